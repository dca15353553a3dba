"""What a training step at full size costs on paper: arithmetic, bytes and launches, in time by the devices' published
peaks: docs/performance.md, written with --write. Exit code 1 if, without --write, the file says something else.
Nothing is computed: PyTorch's twins of the models run on tensors without values, in seconds.
"""

import math
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import conv_flop_count, flop_registry

from ms_vireid.command.running import Parser, run
from ms_vireid.config import CONFIG_ROOT, Config, load_config
from ms_vireid.files.writing import write_text
from parity.workers import MODELS
from torch_ref.engine.optimizer import SGD, AdamW, build_optimizer
from torch_ref.engine.train_step import StageLoss, TrainStep
from torch_ref.models import build_model

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
LAUNCH = 5e-6  # seconds
PRECISIONS = {"float32": 4, "TF32/HF32": 4, "float16": 2}  # bytes of a number in memory
# TFLOPS of matrix products without sparsity, and TB/s of the memory. The page names the sources.
DEVICES = {
    "A100 SXM 80 GB": {"float32": 19.5, "TF32/HF32": 156, "float16": 312, "memory": 2.039},
    "H200 SXM": {"float32": 67, "TF32/HF32": 989 / 2, "float16": 1979 / 2, "memory": 4.8},
    "Ascend 910B": {"float32": 83, "TF32/HF32": 313 / 2, "float16": 313, "memory": 1.6},
}
aten = torch.ops.aten
# Besides the views that PyTorch itself calls so.
NO_KERNEL = {aten.empty, aten.empty_like, aten.empty_strided, aten.new_empty, aten.new_empty_strided, aten._unsafe_view}


class Counts(TorchDispatchMode):
    """Counts what PyTorch dispatches inside of it on tensors without values (device "meta").

    launches: operators, but views and allocations. flops: of matrix products and convolutions. moved: bytes of all
    operators' inputs and outputs, by the bytes of a floating-point number. products: of these two kinds alone.
    """

    def __init__(self):
        super().__init__()
        self.launches = self.flops = 0
        self.moved: Counter[int] = Counter()
        self.products: Counter[int] = Counter()

    def __torch_dispatch__(self, operator, types, arguments=(), options=None):
        options = options or {}
        if operator is aten._local_scalar_dense.default and arguments[0].is_meta:
            return 0.0  # item() of what has no value
        result = operator(*arguments, **options)
        written = arguments[0] if result is None else result  # a list of tensors, in place
        leaves = tree_leaves((arguments, options, written))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_meta]
        if tensors and not operator.is_view and operator.overloadpacket not in NO_KERNEL:
            flops = operator_flops(operator, arguments, options, result)
            moved = {width: sum(size(tensor, width) for tensor in tensors) for width in (4, 2)}
            self.launches += 1
            self.flops += flops
            self.moved.update(moved)
            if flops:
                self.products.update(moved)
        return result


def operator_flops(operator, arguments: Sequence, options: dict, result) -> int:
    """By PyTorch's formulas: a multiplication and an addition are two. 0 for all but products and convolutions."""
    if operator is aten.convolution_backward.default:  # PyTorch's formula counts no groups in the weight's gradient
        gradient, images, weight = arguments[:3]
        transposed, wanted = arguments[7], arguments[10]
        return sum(wanted[:2]) * conv_flop_count(images.shape, weight.shape, gradient.shape, transposed)
    formula = flop_registry.get(operator.overloadpacket)
    return formula(*arguments, **options, out_val=result) if formula else 0


def size(tensor: Tensor, width: int) -> int:
    """Bytes; what an expanded tensor repeats counts once."""
    number = width if tensor.is_floating_point() else tensor.element_size()
    return number * math.prod(n for n, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride)


@dataclass(frozen=True)
class Work:
    """Of one step with `batch` images. moved, fused: bytes by the bytes of a number, operator by operator, and if only
    products, convolutions and one update touch the memory. update: what of `moved` is the update's, in float32 always.
    launches, launches_by_weight: with an update of all weights at once, and of one after the other."""

    batch: int
    flops: int
    moved: dict[int, int]
    fused: dict[int, int]
    update: int
    launches: int
    launches_by_weight: int


def work_of(config: Config, stage: int) -> Work:
    """A step of the recipe's `stage`, from 0, with PyTorch; not the first, in which the optimiser makes its state."""
    with torch.device("meta"):
        model = build_model(config).train()
        images = torch.empty(2 * config.train.num_identities * config.train.num_instances, 3, *config.data.image_size)
        labels, key = torch.empty(len(images), dtype=torch.int32), torch.empty((), dtype=torch.int32)
    optimizer = build_optimizer(model, config)
    step = TrainStep(model, StageLoss(config.stages[stage].losses, config.train.num_instances), optimizer)
    for weight in model.parameters():
        weight.grad = torch.empty_like(weight)
    optimizer.step()
    with Counts() as by_weight:
        optimizer.step()
    for group in optimizer.param_groups:
        group["foreach"] = True
    with Counts() as update:
        optimizer.step()
    with Counts() as whole:
        step(images, labels, key, 0.0, [config.optimizer.lr] * len(optimizer.groups))
    return Work(
        batch=len(images),
        flops=whole.flops,
        moved={width: whole.moved[width] - update.moved[width] + update.moved[4] for width in (4, 2)},
        fused={width: whole.products[width] + fused_update(optimizer) for width in (4, 2)},
        update=update.moved[4],
        launches=whole.launches,
        launches_by_weight=whole.launches - update.launches + by_weight.launches,
    )


def fused_update(optimizer: AdamW | SGD) -> int:
    """Bytes: weights and their states read and written once, gradients read once."""
    total = 0
    for weight in (weight for group in optimizer.groups for weight in group.parameters):
        states = [state for state in optimizer.state[weight].values() if isinstance(state, Tensor) and state.is_meta]
        total += size(weight, 4) + 2 * sum(size(tensor, 4) for tensor in (weight, *states))
    return total


def works() -> dict[str, Work]:
    """Of all methods, at full size."""
    return {
        name: work_of(load_config(CONFIG_ROOT / recipe, [*overrides, "model.num_classes=395"]), stage)
        for name, (recipe, overrides, stage) in MODELS.items()
    }


def bounds(work: Work, device: dict[str, float], precision: str, launches: int) -> dict[str, float]:
    """Seconds of a step's arithmetic, bytes (operator by operator), the same if fused, and launches, of which it has
    `launches`: PyTorch's as in `work`, or ours as `parity/benchmark.py --only launches` counts them."""
    width, bandwidth = PRECISIONS[precision], 1e12 * device["memory"]
    return {
        "arithmetic": work.flops / (1e12 * device[precision]),
        "bytes": work.moved[width] / bandwidth,
        "fused": work.fused[width] / bandwidth,
        "launches": LAUNCH * launches,
    }


def longest(seconds: dict[str, float], bytes_as: str) -> str:
    """Which of the three bounds the step, with "bytes" or "fused" for the bytes."""
    return max(("arithmetic", bytes_as, "launches"), key=seconds.get)


def equal_batches(work: Work, device: dict[str, float], seconds: dict[str, float]) -> tuple[float, float]:
    """Images at which the arithmetic, and the bytes, take as long as the launches, whose number is the same for any
    batch, as is the update."""
    update = work.update / (1e12 * device["memory"])
    by_bytes = max(0.0, seconds["launches"] - update) / (seconds["bytes"] - update)
    return work.batch * seconds["launches"] / seconds["arithmetic"], work.batch * by_bytes


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = (heads, ["---"] + ["---:"] * (len(heads) - 1), *rows)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def page(counted: dict[str, Work]) -> str:
    """docs/performance.md."""
    costs = []
    for name, work in counted.items():
        moved = [f"{of[width] / 1e9:.1f}" for of in (work.moved, work.fused) for width in (4, 2)]
        costs.append((name, f"{work.flops / 1e12:.2f}", *moved, f"{work.launches:,}", f"{work.launches_by_weight:,}"))
    sections = []
    for name, work in counted.items():
        rows = []
        for (device, peaks), precision in product(DEVICES.items(), PRECISIONS):
            seconds = bounds(work, peaks, precision, work.launches)
            times = [f"{1e3 * value:.1f}" for value in seconds.values()]
            batches = [f"{images:.0f}" for images in equal_batches(work, peaks, seconds)]
            bound = longest(seconds, "bytes"), longest(seconds, "fused").replace("fused", "bytes")
            rows.append((f"{device}, {precision}", *times, *bound, *batches))
        sections.append(f"### {name}\n\n{table(BOUND_HEADS, rows)}\n")
    devices = [(name, *(f"{peak:g}" for peak in peaks.values())) for name, peaks in DEVICES.items()]
    return TEXT.format(
        batch=next(iter(counted.values())).batch,
        work=table(WORK_HEADS, costs),
        devices=table(("device", *PRECISIONS, "memory"), devices),
        bounds="\n".join(sections),
    )


WORK_HEADS = ("method", "TFLOP", "GB", "in float16", "fused GB", "in float16", "launches", "weight by weight")
BOUND_HEADS = ("ms", "arithmetic", "bytes", "fused", "launches", "bound", "if fused", "images: arithmetic", "bytes")
TEXT = """# Performance on paper

What a training step at full size has to do ({batch} images, P = 8 and K = 4, the last stage of each recipe), and the
time that this means by the devices' published peaks. Nothing here is measured, and no device reaches its peaks.
`python parity/measure/limits.py --write` writes this page, and a test compares it with what the models give.

## The work

{work}

Counted while PyTorch's twins of the methods (`torch_ref`) take a step on tensors without values:

* **TFLOP**: all matrix products and convolutions, forward and backward, from their shapes; a multiplication and an
  addition are two. Other operators count as bytes alone.
* **GB**: each operator, the update's too, reads its inputs and writes its outputs once. Caches save some of it.
* **fused GB**: only products, convolutions and the update touch the memory, the latter reading weights, states and
  gradients and writing weights and states once. What lies between is taken to be free. Fused operators stay above this,
  as a normalisation needs all of its input before its output; attention as one operator could come below it.
* **in float16**: all but the update, which stays in float32; casts are not counted.
* **launches**: operators that PyTorch's eager mode dispatches, without views and allocations; some are several kernels.
  All weights are updated at once, as PyTorch does on a GPU by default. **weight by weight** is what it does on a CPU.
  `python parity/benchmark.py --only launches` prints how many this project launches.

## The devices

TFLOPS of matrix products without sparsity, and TB/s of the memory:

{devices}

A100 and H200: NVIDIA's data sheets; the H200's gives TF32 and float16 with sparsity, which is halved here. Ascend 910B:
Huawei's own performance model (msmodeling, `tensor_cast/device.py`), the chip of 313 TFLOPS in float16; others have 280
and 376. A data sheet with these figures is not known here. HF32 is a guess: half of float16, which is what that file
takes for a later chip.

## The bounds

A launch is taken to last 5 us, which is about what CUDA needs; Python between two of them takes longer. The **bound**
is the longest of arithmetic, bytes (operator by operator) and launches (PyTorch's), and **if fused** that with the
fused bytes. The last two columns are batches: the images at which arithmetic, and bytes, take as long as the launches,
which bound the step below both. A larger batch hardly moves a bound from bytes to arithmetic or back, as both grow with
it: fusing does.

{bounds}
This page is to be replaced by measurements, which `python parity/measure/first_run.py` makes on a device.
"""


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(PAGE.parents[1])}")
    arguments = parser.parse_args()
    text = page(works())
    if arguments.write:
        write_text(PAGE, text)
    print(text, end="")
    if not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
        print(f"{PAGE} is not up to date; --write writes it", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    run(main)
