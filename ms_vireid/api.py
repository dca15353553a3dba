"""`ms_vireid.create_model`: a network for a program of your own."""

from pathlib import Path
from typing import TYPE_CHECKING

from ms_vireid.command.arguments import as_path, plain
from ms_vireid.command.errors import InputError, shown
from ms_vireid.command.running import in_one_line
from ms_vireid.config import Config, check_config, dump_config, list_models, load_config
from ms_vireid.search.start import begin, load_trained

if TYPE_CHECKING:
    from ms_vireid.models.base import ReIDModel

RECIPES = (".yaml", ".yml")


@in_one_line()
def create_model(
    name: str | Path | Config | None = None,
    num_classes: int | None = None,
    pretrained: str | Path | None = None,
    checkpoint: str | Path | None = None,
    device: str = "auto",
    **overrides,
) -> "ReIDModel":
    """Build a model, or load a trained one, on a device. Call it before anything else imports mindspore.

    name: one of `ms_vireid.list_models()`, a recipe's file such as "configs/pmt/sysu.yaml", or a `Config`.
    num_classes: the size of the classifier; a recipe for a public data set knows it.
    pretrained: a file or run folder to start from, as `model.pretrained` takes it; by default weights are random.
    checkpoint: a run folder or weight file of this project, in place of all the above: its model in evaluation mode,
        without the parts that only training needs.
    device: "auto", "CPU", "GPU" or "Ascend".
    overrides: other keys of the configuration's section `model`, and for a model by name also `image_size`, `batch` and
        `parts`, as `ms_vireid.models.create_model` takes them.

    Raises InputError, with one line that says what is wrong, where, and what to do.
    """
    if pretrained is True:
        raise InputError("pretrained True: no weights come with this project; give a file (docs/training.md)")
    if pretrained is not None and pretrained is not False:  # timm's default
        overrides["pretrained"] = pretrained
    if checkpoint is not None:
        if name is not None or num_classes is not None or overrides:
            raise InputError("checkpoint: names the model already; give nothing else but device")
        return _load(as_path("checkpoint", checkpoint), device)
    config = _recipe(name, num_classes, overrides)
    _, backend = begin(device, "eager")
    from ms_vireid.models import build  # imports mindspore: after the device is set up

    model = build.build_model(config) if config else build.create_model(name, num_classes, **overrides)
    backend.accelerate(model)
    return model


def _load(checkpoint: Path, device: str) -> "ReIDModel":
    _, backend = begin(device, "eager", checkpoint)
    (trained,) = load_trained([checkpoint], backend)
    return trained.model


def _recipe(name: str | Path | Config | None, num_classes: int | None, overrides: dict) -> Config | None:
    """The configuration that `name` is or names, with the keys of its model that are given; None for a model's name."""
    if isinstance(name, str) and name in list_models():
        return None
    if isinstance(name, str | Path) and Path(name).suffix in RECIPES:
        name, source = load_config(as_path("name", name)), str(name)
    elif isinstance(name, Config):
        source = "name"
    else:
        known = f"one of {', '.join(list_models())}, a recipe's .yaml, or a Config"
        raise InputError(f"name {shown(name)}: must be {known}; give a trained model as checkpoint")
    given = overrides | ({} if num_classes is None else {"num_classes": num_classes})
    tree = dump_config(name)
    return check_config(tree | {"model": tree["model"] | {key: plain(value) for key, value in given.items()}}, source)
