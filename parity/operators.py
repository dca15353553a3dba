"""The operators that all models, losses and optimisers are compiled to, and how the installed MindSpore runs each on
CPU, GPU and Ascend: docs/operators.md, written with --write. Exit code 1 if a device lacks one, or, without --write, if
the file says something else.
"""

import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ms_vireid import runtime
from ms_vireid.command import Parser, run
from ms_vireid.config import CONFIG_ROOT, Config, load_config
from ms_vireid.engine.run_folder import write_text
from parity.registries import registries

PAGE = Path(__file__).parents[1] / "docs" / "operators.md"
DEVICES = ("CPU", "GPU", "Ascend")
# What a compiled graph has besides operators: it is done by the runtime and has no kernel.
STRUCTURE = {"Depend", "Load", "MakeTuple", "Partial", "Return", "Switch", "TupleGetItem", "UpdateState"}
# A node of a compiled graph, as MindSpore prints it. Subgraphs' names begin with a small letter or a sign.
NODE = re.compile(r"^ +%\d+\([^)]*\) = (?:PrimFunc_)?([A-Z]\w*)\(", re.MULTILINE)
VALIDATED = "*_validate_*.ir"  # the last graph before that of a device: differentiated and optimised
ORDER = ("kernel", "class", "aclnn", "CANN", "AiCPU", "pass", "rewritten")

SIZE = (48, 24)  # of the pictures, (H, W) in pixels
LABELS = np.array([0, 0, 1, 1] * 2, np.int32)
_RESNET = ["model.layers=[1,1,1,1]", "model.width=4"]
_VIT = ["model.patch_size=8", "model.stride=6", "model.embed_dim=16", "model.num_heads=2", "model.depth=2"]
SMALL = {
    "PMT": ("pmt/sysu.yaml", _VIT),
    "AGW": ("agw/sysu.yaml", [*_RESNET, "model.non_local=[0,1,0,0]"]),
    "MUN": ("mun/sysu.yaml", [*_RESNET, "model.ratios=[2]"]),
}


def small_config(family: str, *options: str) -> Config:
    recipe, model = SMALL[family]
    common = ["model.num_classes=3", "train.num_identities=2", "train.num_instances=2", "augmentation.crop_padding=0"]
    return load_config(CONFIG_ROOT / recipe, [f"data.image_size={list(SIZE)}", *model, *common, *options])


def cases() -> Iterator[tuple[str, Callable[[], object]]]:
    """Every computation to compile, with the name of what it belongs to: training steps of the last stage, evaluation,
    and the losses and intermediate modalities that are not in these."""
    import mindspore as ms
    from mindspore import Tensor, nn

    from ms_vireid import losses
    from ms_vireid.engine.export import InferenceGraph
    from ms_vireid.engine.optimizer import build_optimizer
    from ms_vireid.engine.train_step import StageLoss, TrainStep
    from ms_vireid.losses.prototypes import ModalityPrototypes
    from ms_vireid.models import build_model

    rng = np.random.default_rng(0)

    def values(*shape: int) -> Tensor:
        return Tensor(rng.random(shape).astype(np.float32))

    images, labels, key = values(8, 3, *SIZE), Tensor(LABELS), Tensor(7, ms.int32)

    def train(config: Config) -> None:
        model = build_model(config).set_train()
        optimizer = build_optimizer(model, config)
        step = TrainStep(model, StageLoss(config.stages[-1].losses, 2), optimizer, jit=True)
        step(images, labels, key, optimizer.scalars(1, [1e-3] * len(optimizer.groups)))

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
        losses.HeteroCenterTripletLoss(2, 0.3),
        losses.ModalitySharedEnhancementLoss(2, "cosine"),
        losses.DiscriminativeCenterLoss(2, "hard"),
        losses.DiscriminativeCenterLoss(2, "all"),
    )
    yield "losses", lambda: differentiate(by_labels, plain, values(8, 16), labels)
    progressive = (losses.ProgressiveHardTripletLoss(0.1, "sum"),)
    yield "losses", lambda: differentiate(progressive, first_stage, values(8, 16), labels)
    thirds = [values(4, 16) for _ in range(3)]
    of_modalities = (
        losses.IdentityAlignmentLoss(2, 0.55),
        losses.ModalityAlignmentLoss(2, True),
        losses.ModalityAlignmentLoss(2, False),
    )
    yield "losses", lambda: differentiate(of_modalities, plain, *thirds)
    prototypes = (ModalityPrototypes(2, 2, 16, "identity", 3),)
    inputs = (*thirds, Tensor(0.5, ms.float32), labels[:4])
    yield "losses", lambda: differentiate(prototypes, plain, *inputs)

    kinds = (["X"], ["syncretic"], ["mixed", "model.mixing=picture"], ["mixed", "model.mixing=pixel"])
    configs = [small_config("MUN", f"model.intermediate={kind}", *more) for kind, *more in kinds]
    generators = nn.CellList([build_model(config).set_train().generator for config in configs])  # names become unique
    pictures = values(4, 3, *SIZE), values(4, 3, *SIZE)
    yield "MUN", lambda: differentiate(generators, on_pairs, *pictures, key)


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


def how(name: str, found: dict[str, set[str]]) -> str:
    """How a device runs an operator: kinds of `parity.registries.read`, the first two that apply, or "missing"."""
    kinds = [kind for kind in ORDER if name in found.get(kind, ())]
    own = [kind for kind in kinds if kind not in ("rewritten", "pass")]
    return ", ".join(own or kinds[:1]) or "missing"


def table(used: dict[str, set[str]], found: dict[str, dict[str, set[str]]]) -> list[tuple[str, ...]]:
    """Rows of operator, users and devices."""
    return [
        (name, ", ".join(sorted(used[name])), *(how(name, found[device]) for device in DEVICES))
        for name in sorted(used)
    ]


def page(rows: list[tuple[str, ...]]) -> str:
    """docs/operators.md."""
    heads = ("operator", "used by", *DEVICES)
    lines = [f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows)]
    return INTRODUCTION + "\n".join(lines) + "\n"


INTRODUCTION = """# Operators

What the models, losses and optimisers are compiled to, forward and backward, and how MindSpore 2.10 runs each on a CPU,
a GPU and an Ascend. `python parity/operators.py --write` writes this page, and a test compares it with what it finds.

The operators are those of the compiled graphs (`mindspore.jit`) of small models before anything of a device enters:
training steps of PMT, AGW and MUN with their optimisers, evaluation, every loss with its alternatives, and the
intermediate modalities of MUN's Table 2. The kernels are those in the registries of the installed wheel's own plugins
for the three devices (`parity/registries.py` reads them without a device).

| a device's column | means |
| --- | --- |
| kernel | the plugin has a kernel of this name |
| class | so it has by the name of a class; its own, older registry cannot be read |
| aclnn | a kernel that calls CANN's operator interface |
| CANN | the operator is handed to CANN by name |
| AiCPU | a kernel for the AI CPU beside the Ascend's cores: it works, and is slow |
| pass | an optimisation pass replaces it by others before kernels are selected |
| rewritten | MindSpore expresses it by other operators where there is no kernel |
| missing | none of these |

This proves that nothing is missing by name. It does not prove that a kernel takes the types and shapes that it is
given, nor that the installed CANN knows an operator that it is handed: that is known for the CPU, where the tests run.
Where MindSpore runs operators one by one (its default mode here) it may take others for the same computation.

"""


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(PAGE.parents[1])}")
    arguments = parser.parse_args()
    runtime.set_up("CPU", "agw")
    rows = table(collect(), {device: registries(device) for device in DEVICES})
    text = page(rows)
    if arguments.write:
        PAGE.parent.mkdir(exist_ok=True)
        write_text(PAGE, text)
    lacking = [
        f"{name} on {device}"
        for name, _, *kinds in rows
        for device, kind in zip(DEVICES, kinds, strict=True)
        if kind == "missing"
    ]
    differs = not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text
    print(f"{len(rows)} operators, missing: {', '.join(lacking) or 'none'}")
    if differs:
        print(f"{PAGE} is not up to date; --write writes it")
    sys.exit(1 if lacking or differs else 0)


if __name__ == "__main__":
    run(main)
