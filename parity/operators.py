"""The operators that all models, losses and optimisers are compiled to, and what MindSpore's plugin for Ascend has for
each: docs/operators.md, written with --write. Exit code 1 if it has nothing for one, or, without --write, if the file
says something else.

The plugin cannot be loaded where there is no Ascend, but it can be read: it holds a C++ class for everything that it
runs, and the compiler writes the names of classes into the library.
"""

import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from ms_vireid import runtime
from ms_vireid.command import Parser, run
from ms_vireid.config import CONFIG_ROOT, Config, load_config
from ms_vireid.errors import InputError
from ms_vireid.files.writing import write_text

PAGE = Path(__file__).parents[1] / "docs" / "operators.md"
# What a compiled graph has besides operators: it is done by the runtime and has no kernel.
STRUCTURE = {"Depend", "Load", "MakeTuple", "Partial", "Return", "Switch", "TupleGetItem", "UpdateState"}
# A node of a compiled graph, as MindSpore prints it. Subgraphs' names begin with a small letter or a sign.
NODE = re.compile(r"^ +%\d+\([^)]*\) = (?:PrimFunc_)?([A-Z]\w*)\(", re.MULTILINE)
VALIDATED = "*_validate_*.ir"  # the last graph before that of a device: differentiated and optimised

PLUGINS = Path(find_spec("mindspore").origin).parent / "lib" / "plugin"
# Kinds of classes, the best first: the library that holds them, and how the compiler writes their names there. A group
# is the operator's; digits are the length of the name after them; `pyboost` is for operators that are run one by one.
CLASSES = {
    "aclnn": (
        "libmindspore_ops_ascend.so",
        rb"9mindspore6kernel(?!7pyboost)(?:\d+[a-z]\w*?)?\d+(?:Aclnn)?([A-Z]\w*?)"
        rb"(?:Ascend|AscendCall|AclnnKernelMod|KernelModILm\d+EE)E\0",
    ),
    "CANN": ("ascend/libmindspore_ascend_res_manager.so", rb"9OpAdapterINS1_\d+cz(?!Cust)(\w+?)EEE\0"),
    "AI CPU": ("ascend/libmindspore_ascend_res_manager.so", rb"9OpAdapterINS1_\d+czCust(\w+?)EEE\0"),
    "pass": ("libmindspore_ascend.so.2", rb"9mindspore3opt\d+(\w+?)UnifyMindIRE\0"),
}
# Operators whose classes have other names.
CLASS_NAMES = {
    "BatchMatMul": "BMM",
    "Gather": "GatherV2",
    "GatherDGradV2": "GatherDGrad",
    "MatMulExt": "MMExt",
    "Stack": "Pack",
    "Unstack": "Unpack",
}

SIZE = (48, 24)  # of the pictures, (H, W) in pixels
LABELS = np.array([0, 0, 1, 1] * 2, np.int32)
_RESNET = ["model.layers=[1,1,1,1]", "model.width=4"]
_VIT = ["model.patch_size=8", "model.stride=6", "model.embed_dim=16", "model.num_heads=2", "model.depth=2"]
SMALL = {
    "PMT": ("pmt/sysu.yaml", _VIT),
    "AGW": ("agw/sysu.yaml", [*_RESNET, "model.non_local=[0,1,0,0]", "train.amp=true"]),
    "MUN": ("mun/sysu.yaml", [*_RESNET, "model.ratios=[2]", "model.memory=identity"]),
}


def small_config(family: str, *options: str) -> Config:
    recipe, model = SMALL[family]
    common = ["model.num_classes=3", "train.num_identities=2", "train.num_instances=2", "augmentation.crop_padding=0"]
    return load_config(CONFIG_ROOT / recipe, [f"data.image_size={list(SIZE)}", *model, *common, *options])


def cases() -> Iterator[tuple[str, Callable[[], object]]]:
    """Every computation to compile, with the name of what it belongs to: training steps of the last stage, evaluation,
    and the losses and intermediate modalities that are not in these."""
    import mindspore as ms
    from mindspore import Tensor, amp, nn

    from ms_vireid import losses
    from ms_vireid.engine.optimizer import build_optimizer
    from ms_vireid.engine.train_step import StageLoss, TrainStep
    from ms_vireid.exports.verified import InferenceGraph
    from ms_vireid.models import build_model

    rng = np.random.default_rng(0)

    def values(*shape: int) -> Tensor:
        return Tensor(rng.random(shape).astype(np.float32))

    images, labels, key = values(8, 3, *SIZE), Tensor(LABELS), Tensor(7, ms.int32)

    def train(config: Config) -> None:
        model = build_model(config).set_train()
        optimizer = build_optimizer(model, config)
        scaler = amp.DynamicLossScaler(1024.0, 2, 2000) if config.train.amp else None
        step = TrainStep(model, StageLoss(config.stages[-1].losses, 2), optimizer, True, scaler)
        step(images.asnumpy(), LABELS, 7, 0.0, optimizer.scalars(1, [1e-3] * len(optimizer.groups)))

    def evaluate(config: Config) -> None:
        graph = InferenceGraph(build_model(config, inference=True), "visible").set_train(False)
        ms.jit(graph.construct)(images)

    def differentiate(cells, call, *inputs) -> None:
        """All of `cells` in one graph: the gradients of the sum of their outputs, of the first input and weights."""
        weights = ms.ParameterTuple([weight for cell in cells for weight in cell.trainable_params()])

        def total(*given):
            result = 0.0
            for cell in cells:
                outputs = call(cell, *given)
                for output in outputs if isinstance(outputs, tuple) else (outputs,):
                    result = result + output.sum()
            return result

        ms.jit(ms.grad(total, 0, weights if len(weights) else None))(*inputs)

    def plain(cell, *given):
        return cell(*given)

    def first_stage(loss, features, labels):
        return loss(features, labels, 1)

    def on_pairs(generator, visible, infrared, key):
        return generator((visible, infrared), (visible, infrared), key)

    for family in SMALL:
        config = small_config(family)
        yield family, lambda config=config: train(config)
        yield family, lambda config=config: evaluate(config)

    by_labels = (
        losses.HardTripletLoss(0.3),
        losses.WeightedRegularizedTripletLoss(),
        losses.WeightedRegularizedTripletLoss("softmax"),
        losses.HeteroCenterTripletLoss(2, 0.3),
        losses.ModalitySharedEnhancementLoss(2, "cosine"),
        losses.DiscriminativeCenterLoss(2, "hard"),
        losses.DiscriminativeCenterLoss(2, "all"),
    )
    yield "losses", lambda: differentiate(by_labels, plain, values(8, 16), labels)
    progressive = (losses.ProgressiveHardTripletLoss(0.1, "sum"),)
    yield "losses", lambda: differentiate(progressive, first_stage, values(8, 16), labels)
    of_modalities = (
        losses.IdentityAlignmentLoss(2, 0.55),
        losses.ModalityAlignmentLoss(2, True),
        losses.ModalityAlignmentLoss(2, False),
    )
    yield "losses", lambda: differentiate(of_modalities, plain, *(values(4, 16) for _ in range(3)))

    kinds = (["X"], ["syncretic"], ["mixed", "model.mixing=picture"], ["mixed", "model.mixing=pixel"])
    configs = [small_config("MUN", f"model.intermediate={kind}", *more) for kind, *more in kinds]
    generators = nn.CellList([build_model(config).set_train().generator for config in configs])  # names become unique
    yield "MUN", lambda: differentiate(generators, on_pairs, values(4, 3, *SIZE), values(4, 3, *SIZE), key)


def collect() -> dict[str, set[str]]:
    """The operators of all cases: by whom each is used."""
    import mindspore as ms

    os.environ["MS_DEV_DUMP_IR_PASSES"] = "validate"  # the others take longer to write than to make
    used: dict[str, set[str]] = {}
    for owner, compute in cases():
        with tempfile.TemporaryDirectory() as folder:
            ms.set_context(save_graphs=1, save_graphs_path=folder)
            compute()
            graphs = list(Path(folder).rglob(VALIDATED))
            if not graphs:
                raise RuntimeError(f"MindSpore has saved no graph {VALIDATED} of {owner}")
            for graph in graphs:
                for name in NODE.findall(graph.read_text()):
                    if name not in STRUCTURE:
                        used.setdefault(name, set()).add(owner)
    ms.set_context(save_graphs=0)
    return used


def ascend_classes() -> dict[str, set[str]]:
    """The operators that the classes of the plugin for Ascend are named after, by kind.

    Raises:
        InputError: the installed MindSpore has no such plugin.
    """
    found = {}
    for kind, (library, pattern) in CLASSES.items():
        path = PLUGINS / library
        if not path.exists():
            raise InputError(f"{path} is not there: MindSpore has a plugin for Ascend only in its wheels for Linux")
        found[kind] = {name.decode() for name in re.findall(pattern, path.read_bytes())}
    return found


def kind_of(operator: str, classes: dict[str, set[str]]) -> str:
    """The first kind of `ascend_classes` that an operator has, or "missing"."""
    name = CLASS_NAMES.get(operator)
    return next((kind for kind, names in classes.items() if operator in names or name in names), "missing")


def report(used: dict[str, set[str]], write: bool) -> int:
    """Print what is missing, write the page or compare with it; the exit code."""
    classes = ascend_classes()
    rows = [(name, ", ".join(sorted(used[name])), kind_of(name, classes)) for name in sorted(used)]
    text = page(rows)
    if write:
        write_text(PAGE, text)
    missing = [name for name, _, kind in rows if kind == "missing"]
    differs = not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text
    print(f"{len(rows)} operators, missing on Ascend: {', '.join(missing) or 'none'}")
    if missing:
        print(f"a class of another name can stand for one: CLASS_NAMES in {Path(__file__).name}")
    if differs:
        print(f"{PAGE} is not up to date; --write writes it")
    return 1 if missing or differs else 0


def page(rows: list[tuple[str, str, str]]) -> str:
    """docs/operators.md."""
    heads = ("operator", "used by", "Ascend")
    lines = [f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows)]
    return INTRODUCTION + "\n".join(lines) + "\n"


INTRODUCTION = """# Operators

What the models, losses and optimisers are compiled to, forward and backward, and what MindSpore 2.10's plugin for
Ascend has for each. `python parity/operators.py --write` writes this page, and a test compares it with what it finds.

The operators are those of the compiled graphs (`mindspore.jit`) of small models before anything of a device enters:
training steps of PMT, AGW and MUN with their optimisers (AGW's in mixed precision, MUN's with prototypes by identity:
both add operators to a step and take none away), evaluation, every loss with its alternatives, and the intermediate
modalities of MUN's Table 2.

| Ascend | the plugin has |
| --- | --- |
| aclnn | a kernel that calls CANN's operator interface |
| CANN | an adapter that hands the operator to CANN by name |
| AI CPU | such an adapter for MindSpore's own kernel on the AI CPU beside the Ascend's cores: it works, and is slow |
| pass | a pass that replaces the operator by others before kernels are selected |
| missing | none of these |

The kind is the first that applies, and each is a C++ class in the plugin's libraries, found by its name. Compared once
with the tables that the plugin of MindSpore 2.10.0 fills when it is loaded: of the 1,253 operators in them, this finds
1,066; of 700 others that MindSpore knows, it finds 12, six of them by a pass. So "missing" may only mean that a class
has another name, and what is found is hardly ever wrong.

This proves that nothing is missing by name, and no more: nothing here has run on an Ascend. It is not known whether a
kernel takes the types and shapes that it is given, whether the installed CANN knows an operator that it is handed, what
comes out, or where MindSpore takes other operators because the device is an Ascend.

The other devices need no table. On a CPU the parity ladder runs. For a GPU, `tests/device` takes MindSpore's own plugin
through whole trainings on a stand-in, where it selects a kernel for each operator, type and shape.

"""


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(PAGE.parents[1])}")
    arguments = parser.parse_args()
    runtime.set_up("CPU")
    runtime.cap_convolutions()
    sys.exit(report(collect(), arguments.write))


if __name__ == "__main__":
    run(main)
