"""Models from the configuration or by name."""

from dataclasses import dataclass

import mindspore as ms

from ms_vireid.config import Config, ModelConfig, expand_user, list_models, model_by_name
from ms_vireid.models.agw import AGW
from ms_vireid.models.base import ReIDModel
from ms_vireid.models.mun import MUN
from ms_vireid.models.pmt import PMT

__all__ = ["build_model", "create_model", "list_models"]


@dataclass(frozen=True)
class Setting:
    """What a network depends on besides its own section of the configuration.

    image_size: (H, W). recompute: keep less and compute it again. batch: P and K. terms: names of the loss terms.
    inference: without the parts that only training needs.
    """

    image_size: tuple[int, int]
    recompute: bool = False
    batch: tuple[int, int] = (8, 4)
    terms: frozenset[str] = frozenset({"ma"})
    inference: bool = False


def create_model(
    name: str, num_classes: int, image_size: tuple[int, int] = (256, 128), batch: tuple[int, int] = (8, 4), **overrides
) -> ReIDModel:
    """A model by name, as in timm and mindcv; `overrides` are fields of its `ms_vireid.config.ModelConfig`.

    `image_size` is (H, W); AGW and MUN take images of any size. `batch` is P and K of MUN's training.

    Raises:
        ValueError: no model of that name, no such field, or a value that does not fit it.
    """
    return _build(model_by_name(name, **overrides), num_classes, Setting(image_size, batch=batch))


def build_model(config: Config, inference: bool = False) -> ReIDModel:
    """The configured model, with its pretrained weights if `model.pretrained` names a file.

    With `inference` the parts that only training needs are left out. Weights are drawn from `config.seed`.

    Raises:
        InputError: the weight file is missing or does not fit.
        ValueError: the number of identities is neither configured nor known for the data set.
    """
    if config.num_classes is None:
        raise ValueError(f"model.num_classes is not set, and not known for data.name={config.data.name}")
    ms.set_seed(config.seed)
    batch = config.train.num_identities, config.train.num_instances
    setting = Setting(config.data.image_size, config.train.recompute, batch, config.terms, inference)
    model = _build(config.model, config.num_classes, setting)
    if config.model.pretrained != "none":
        model.load_pretrained(expand_user(config.model.pretrained))
    return model


def _build(model: ModelConfig, num_classes: int, setting: Setting) -> ReIDModel:
    architecture = model.model_dump(exclude={"name", "num_classes", "pretrained"})
    return _NETWORKS[model.name](num_classes, setting, **architecture)


def _pmt(num_classes: int, setting: Setting, **architecture) -> PMT:
    return PMT(num_classes, image_size=setting.image_size, recompute=setting.recompute, **architecture)


def _agw(num_classes: int, setting: Setting, **architecture) -> AGW:
    return AGW(num_classes, **architecture)


def _mun(num_classes: int, setting: Setting, memory: str, **architecture) -> MUN:
    """Prototypes and C_a belong to the loss terms that use them."""
    return MUN(
        num_classes,
        batch=setting.batch,
        memory=memory if "ma" in setting.terms else "none",
        auxiliary_classifier="id_a" in setting.terms,
        inference=setting.inference,
        **architecture,
    )


_NETWORKS = {"pmt": _pmt, "agw": _agw, "mun": _mun}
