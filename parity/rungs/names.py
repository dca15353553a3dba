"""Rung 1: the same parameters and buffers by name and shape in both frameworks, for every model."""

from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType

from ms_vireid.checkpoints.weights import COUNTER
from ms_vireid.models import create_model as mindspore_model
from ms_vireid.models import list_models as mindspore_models
from parity.compare import Comparison, compare_names
from parity.harness import once
from parity.mapping import twins
from torch_ref.models import create_model as torch_model
from torch_ref.models import list_models as torch_models

CLASSES = 7
PACKAGES = ("models", "losses", "optimizers", "engine")
# Needed by one side only: what the CUDA kernels hash a step's noise from; what an update is given, which PyTorch's
# optimisers keep to themselves; the run's state, which the mirror's loop holds in variables, as `train` is one function
# without a run folder, an evaluation or several processes.
ONLY_MINDSPORE = {
    "engine.checkpoint": {"TrainingState", "load_parameters"},
    "engine.trainer": {"Trainer", "explain_out_of_memory"},
    "models.noise": {"noise_constants"},
    "optimizers.adamw": {"Scalars"},
    "optimizers.groups": {"Part"},
    "optimizers.sgd": {"Scalars"},
}
ONLY_PYTORCH = {"engine.checkpoint": {"load_optimizer"}, "engine.trainer": {"train"}}
ELSEWHERE = {"engine.batches", "engine.device"}  # of torch_ref; MindSpore has data loaders and devices elsewhere


def list_of_models() -> list[Comparison]:
    return [compare_names("models by name", mindspore_models(), torch_models())]


def public_names() -> list[Comparison]:
    """Compare the public classes and functions of each module of torch_ref with its twin's, and with what is listed
    above: a name that one side alone has is listed, and what is listed is there."""
    comparisons = []
    for package in PACKAGES:
        root = import_module(f"torch_ref.{package}")
        for module in sorted(info.name for info in iter_modules(root.__path__)):
            path = f"{package}.{module}"
            if path in ELSEWHERE:
                continue
            theirs = _defined(import_module(f"torch_ref.{path}"))
            if not theirs:
                continue
            ours = _defined(import_module(f"ms_vireid.{path}")) | ONLY_PYTORCH.get(path, set())
            comparisons.append(compare_names(path, ours, theirs | ONLY_MINDSPORE.get(path, set())))
    return comparisons


def _defined(module: ModuleType) -> set[str]:
    return {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    }


def bijection(name: str) -> list[Comparison]:
    """Compare names with shapes, and which parameters are trained."""
    pairs = twins(mindspore_model(name, CLASSES))
    module = torch_model(name, CLASSES)
    mindspore = {f"{twin.torch_name} {list(twin.parameter.shape)}" for twin in pairs}
    torch = {f"{n} {list(value.shape)}" for n, value in module.state_dict().items() if not n.endswith(COUNTER)}
    trainable = {t.torch_name for t in pairs if t.parameter.requires_grad}
    return [
        compare_names("parameters and buffers", mindspore, torch),
        compare_names("trainable parameters", trainable, {n for n, p in module.named_parameters() if p.requires_grad}),
    ]


CASES = [
    once(1, "models", list_of_models),
    once(1, "public names", public_names),
    *(once(1, name, bijection, name) for name in torch_models()),
]
