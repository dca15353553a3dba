"""`ms_vireid.create_model`: by name, of a recipe, and from a checkpoint."""

import subprocess
import sys

import numpy as np
import pytest

import ms_vireid
from ms_vireid.checkpoints.weights import read_checkpoint
from ms_vireid.config import CONFIG_ROOT, load_config
from tests.tiny_models import write_checkpoint

TINY = {"embed_dim": 16, "depth": 1, "num_heads": 2}
PMT = str(CONFIG_ROOT / "pmt/sysu.yaml")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("factory")
    write_checkpoint(folder / "run/model.safetensors", "mun", folder / "data")
    return folder / "run"


def create(*arguments, **options):
    return ms_vireid.create_model(*arguments, device="CPU", **options)


def test_a_model_by_name_has_the_sizes_that_are_given():
    model = create("pmt_vit_tiny", 3, image_size=(32, 16), pretrained=False, **TINY)
    assert model.classifier.weight.shape == (3, 16)
    assert len(model.base.blocks) == 1


@pytest.mark.parametrize("recipe", [PMT, "configs/pmt/sysu.yaml", load_config(PMT)])
def test_a_recipe_gives_its_model_with_the_keys_that_are_given(recipe):
    """Its data set says how many people there are, unless the call does."""
    assert create(recipe, **TINY).classifier.weight.shape == (395, 16)
    assert create(recipe, np.int64(5), **TINY).classifier.weight.shape == (5, 16)


def test_a_recipe_draws_the_same_weights_each_time():
    first, second = (create(PMT, 5, **TINY).parameters_dict() for _ in range(2))
    assert all(np.array_equal(value.asnumpy(), second[name].asnumpy()) for name, value in first.items())


def test_a_checkpoint_gives_its_trained_model(run):
    model = create(checkpoint=run)
    stored = read_checkpoint(run / "model.safetensors").arrays
    weights = {name: value.asnumpy() for name, value in model.parameters_dict().items()}
    assert all(np.array_equal(value, stored[name]) for name, value in weights.items())
    assert not any(name.startswith(model.TRAINING_ONLY) for name in weights)
    assert not model.training


def test_another_model_starts_from_a_run(run):
    stored = read_checkpoint(run / "model.safetensors")
    chosen = {"name", "num_classes", "pretrained"}
    sizes = {key: value for key, value in stored.meta["config"]["model"].items() if key not in chosen}
    model = create("mun_resnet50", 7, pretrained=run, **sizes)
    shared = {name: value.asnumpy() for name, value in model.parameters_dict().items() if name.startswith("shared.")}
    assert all(np.array_equal(value, stored.arrays[name]) for name, value in shared.items())
    assert model.visible_classifier.weight.shape[0] == 7


@pytest.mark.parametrize(
    ("arguments", "options", "says"),
    [
        ((), {}, "name None: must be one of agw_resnet50, .*, a recipe's .yaml, or a Config; give a trained model as"),
        (("pmt_vit_huge", 5), {}, "name 'pmt_vit_huge': must be one of agw_resnet50, mun_resnet50, .*pmt_vit_base"),
        ((np.array(["pmt_vit_tiny"]), 5), {}, r"name array\(\['pmt_vit_tiny'\].*: must be one of"),
        (("pmt_vit_tiny",), {}, "num_classes None: must be a whole number"),
        (("pmt_vit_tiny", 5), {"widht": 3}, "pmt_vit_tiny: unknown key 'widht'"),
        (("pmt_vit_tiny", 5), {"pretrained": True}, "pretrained True: no weights come with this project; give a file"),
        (("pmt_vit_tiny", 5), {"pretrained": "no.pth"}, r"model\.pretrained: no such file .*no\.pth"),
        ((PMT,), {"pretrained": np.zeros(2)}, r".*sysu\.yaml: model\.pretrained: must be text"),
        ((PMT, "many"), {}, r".*sysu\.yaml: model\.num_classes: input should be a valid integer, got 'many'"),
        ((PMT,), {"image_size": (32, 16)}, r".*sysu\.yaml: unknown key 'model\.image_size'"),
        (("no.yaml",), {}, r"no\.yaml: no such configuration file"),
        ((str(CONFIG_ROOT / "demo.yaml"),), {"dropout": 2.0}, r".*demo\.yaml: model\.dropout: .* got 2\.0"),
        ((), {"checkpoint": "nowhere"}, "nowhere: no such checkpoint file"),
        ((), {"checkpoint": 5}, "checkpoint 5: must be a path"),
        (("pmt_vit_tiny",), {"checkpoint": "run"}, "checkpoint: names the model already; give nothing else but"),
        ((PMT,), {"device": "cuda"}, "device 'cuda': must be one of auto, Ascend, GPU, CPU"),
    ],
)
def test_what_cannot_be_is_one_line(arguments, options, says):
    with pytest.raises(ms_vireid.InputError, match=f"^{says}") as refused:
        ms_vireid.create_model(*arguments, **{"device": "CPU"} | options)
    assert "\n" not in str(refused.value)


def test_nothing_is_imported_before_a_name_is_used():
    script = "import sys, ms_vireid; print(sorted(name for name in sys.modules if name.startswith('ms_vireid')))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "['ms_vireid']\n"


FIRST = """
import ms_vireid.evaluate
try:
    ms_vireid.evaluate("nowhere")
except ms_vireid.InputError as error:
    print(error, sys.modules["ms_vireid.evaluate"].main.__name__)
"""


def test_evaluate_is_the_function_also_if_its_command_is_the_first_import():
    done = subprocess.run([sys.executable, "-c", f"import sys{FIRST}"], capture_output=True, text=True, check=True)
    assert done.stdout == "nowhere: no such checkpoint file main\n"
