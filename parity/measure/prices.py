"""Predict what a step costs on an H100 from its calls on the stand-in GPU: each call takes its elements, bytes or
operations over the rate of its kind, plus a launch.

    calls = counts.calls() - before        # of a step, by parity.stand_in.counts
    busy_ms(calls), step_ms(calls)
    kinds(calls)["addcmul, float32"].ms

`parity/benchmark.py --only launches costs` prints them; judge a change by the difference. `own_ms(bytes)` predicts an
own kernel that is not written yet from the bytes it must move.

KINDS has the rates, fitted to the profiled kernels of six steps at two commits ("steps" and "earlier" in h100.json,
which names the card and day, and holds each step's calls on the stand-in and ms by kind). Given a folder of newer
profiles, one pair for each step as `benchmark.py --only train_step --json pmt-float32.json --kernels
pmt-float32.kernels.json` writes them, this counts the calls, replaces "steps" and prints the rates:

    python -m parity.measure.prices FOLDER
"""

import ms_vireid.command.starting  # noqa: F401  # isort: skip  (first, as it answers Ctrl-C)
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from math import prod
from pathlib import Path
from typing import NamedTuple

from ms_vireid.command.errors import InputError
from ms_vireid.command.running import Parser, run
from ms_vireid.files.writing import write_text
from parity.stand_in import DEVICES

H100 = Path(__file__).with_name("h100.json")
LAUNCH_MS = 0.0013  # the shortest kernel
MEMORY_RATE = 2.8e9  # bytes a ms: of a kernel that moves each once and does nothing else, and of none more
TIMED = 5  # steps of a measurement of 2026-11-26 and 27, which waited for the last alone
# While a batch is copied from pageable memory and the host prepares it, the device has nothing to do: bytes a ms.
HOST_RATE = 5.6e6  # 2 to 8 ms for 32 MB
TO_DEVICE, OWN, OTHERS = "copy to the device", "own", "others"
_WIDTHS = {"bool": 1, "int8": 1, "uint8": 1, "float16": 2, "bfloat16": 2, "int16": 2, "int64": 8, "float64": 8}
_TENSOR = re.compile(r"(\w+)\[([\d,]*)\]")


@dataclass(frozen=True)
class Call:
    """A call that puts work on the device. tensors: type and shape of each, results first; for a convolution x, filter
    and y. note: what else the price depends on."""

    function: str
    tensors: tuple[tuple[str, tuple[int, ...]], ...]
    note: str

    @property
    def type(self) -> str:
        """The floating-point type that it has to do with, or else that of what it reads."""
        types = [kind for kind, _ in reversed(self.tensors)]
        if self.function.startswith("Cast<") and "float16" in types:
            return "float16"
        return next((kind for kind in types if "float" in kind), types[0] if types else "")

    @property
    def sizes(self) -> list[int]:
        return [prod(shape) for _, shape in self.tensors]


@cache
def read_call(text: str) -> Call:
    """Parse a name of `parity.stand_in.counts.calls`."""
    function, _, work = text.partition("\t")
    tensors = tuple((kind, tuple(map(int, filter(None, shape.split(","))))) for kind, shape in _TENSOR.findall(work))
    return Call(function, tensors, _TENSOR.sub("", work).strip())


# What a call counts as: its work.
def results(call: Call) -> float:
    return call.sizes[0]


def largest(call: Call) -> float:
    return max(call.sizes)


def in_bytes(call: Call) -> float:
    return sum(size * _WIDTHS.get(kind, 4) for size, (kind, _) in zip(call.sizes, call.tensors, strict=True))


def rewritten(call: Call) -> float:
    """Count weights and states twice, which an update reads and writes, and once what else it reads."""
    return 2 * in_bytes(call) - largest(call) * 4


def searched(call: Call) -> float:
    """Count the inputs that each element of a joined tensor is looked up in, from the first on."""
    return call.sizes[0] * (1 + SEARCH * sum(call.tensors[1][1]))


def product(call: Call) -> float:
    (_, result), (_, (*_, k)), _ = call.tensors
    return 2 * prod(result) * k


def convolution(call: Call) -> float:
    _, (_, filters), (_, y) = call.tensors
    return 2 * prod(y) * prod(filters[1:])


# Which calls a kind has, besides its functions.
def _equal(call: Call) -> bool:
    return len(set(call.sizes[:4])) == 1


def _number(call: Call) -> bool:
    return 1 in call.sizes


def _odd(call: Call) -> bool:
    """Whether rows of float16 are not aligned to 16 bytes."""
    return call.type == "float16" and any(length % 8 for _, shape in call.tensors for length in shape[1:])


def _by_channel(call: Call) -> bool:
    (_, x), (_, filters), _ = call.tensors
    return x[1] != filters[1]


def _one_channel(call: Call) -> bool:
    (_, x), _, (_, y) = call.tensors
    return 1 in (x[1], y[1])


def _one_condition(call: Call) -> bool:
    return call.sizes[1] == 1


def _columns(call: Call) -> bool:
    """Whether it reduces over many rows."""
    (_, result), (_, x), *_ = call.tensors
    return len(x) == 2 and x[1:] == result and x[0] > 4 * x[1]


def _note(note: str) -> Callable[[Call], bool]:
    return lambda call: call.note == note


class Kind(NamedTuple):
    """functions: a pattern of their names. kernels: one of "step: kernel" as the profiles name them, for the fit; "" is
    none. work: what a call counts as. rates: work a ms by the call's type; for another type, the first. which: of the
    functions' calls, the kind's."""

    name: str
    functions: str
    kernels: str
    work: Callable[[Call], float]
    rates: Mapping[str, float]
    which: Callable[[Call], bool] = lambda call: True

    def ms(self, call: Call) -> float:
        rate = self.rates.get(call.type) or next(iter(self.rates.values()))
        return LAUNCH_MS + max(self.work(call) / rate, in_bytes(call) / MEMORY_RATE)


# By the kernels of six steps with `cuda` (docs/evidence/h100.md).
OWN_RATES = {"float32": MEMORY_RATE, "float16": 2.35e9}
_BINARY = r"Binary(Ext)?OpWithBroadcastCudaFunc"
_GEMM = r"cublasGemm"
_CONVOLUTION = r"cudnnConvolution"
SEARCH = 0.022  # what an input more costs an element that is joined, of what the element costs
# A call is of the first kind that has it, a kernel of the first whose pattern it has.
KINDS = (
    Kind("product of odd rows", _GEMM, "PMT.*cutlass_75", product, {"float16": 3.29e10}, _odd),
    Kind("product in TF32", _GEMM, "", product, {"float32": 3.09e11}, _note("TF32")),  # of 4096^3, by first_run.py
    Kind(
        "product in batches",
        _GEMM + "StridedBatched",
        "PMT float32.*tilesize64x32x8",
        product,
        {"float32": 2.41e10, "float16": 2e11},  # of float16 a guess
    ),
    Kind(
        "product",
        _GEMM,
        r"(PMT|MUN).*f32f32_f32f32|sgemm|splitK|PMT.*xmma_gemm|dot_kernel|gemmk1|reduce_1Block",
        product,
        {"float32": 4.55e10, "float16": 6.14e11},
    ),
    Kind(
        "depthwise convolution",
        r"ConvolutionOp\w+<\w+::\w+Forward",
        "DepthWiseForward",
        convolution,
        {"float16": 1.23e9},
    ),
    Kind("depthwise convolution's gradient", r"ConvolutionOp", "DepthWiseInputGrad", convolution, {"float16": 4.56e8}),
    Kind(
        "convolution by channel",
        _CONVOLUTION,
        "MUN.*(grouped_direct|c1_k1|depthwise|wgrad2d_shmem)",
        convolution,
        {"float32": 2.38e9, "float16": 6.77e9},
        _by_channel,
    ),
    Kind(
        "convolution of one channel",
        _CONVOLUTION,
        "AGW.*(grouped_direct|gemv|f32f32_f32f32)",
        in_bytes,
        {"float32": 1.28e9, "float16": 9.11e8},
        _one_channel,
    ),
    # The kernels of the next kind without those that turn maps; no GPU has run it.
    Kind(
        "convolution with channels last",
        _CONVOLUTION,
        "",
        convolution,
        {"float32": 1.28e11, "float16": 2.67e11},
        _note("with channels last"),
    ),
    Kind(
        "convolution",
        _CONVOLUTION,
        "To(Folded)?N|[dw]grad|fprop|mplicit|SplitK|workspace|s1688|f16_s|s16816|f16f16|f16f32|tf32f32",
        convolution,
        {"float32": 9.16e10, "float16": 1.62e11},
    ),
    Kind(
        "cuDNN's reduction",
        "cudnnReduceTensor",
        "reduce_tensor_kernel|alpha2_zero",
        in_bytes,
        {"float32": 7.03e7, "float16": 3.54e7},
    ),
    Kind("cuDNN's OpTensor", "cudnnOpTensor", "op_generic_tensor", results, {"float32": 2.82e8, "float16": 2.83e8}),
    Kind("BatchNorm", "cudnnBatchNormalizationForward", "bn_fw", in_bytes, {"float32": 1.56e9, "float16": 1.94e9}),
    Kind(
        "BatchNorm's gradient",
        "cudnnBatchNormalizationBackward",
        "bn_bw",
        in_bytes,
        {"float32": 1.42e9, "float16": 2e9},
    ),
    Kind("ReLU's gradient", "CalReLUGrad", "CalReLUGrad", in_bytes, {"float32": 1.61e9, "float16": 9.4e8}),
    Kind("power", _BINARY + r"<\w+::kPow", r"In1Scalar<\(BinaryOpType\)14", results, {"float32": 3.83e7}, _number),
    Kind(
        "elementwise, equal shapes",
        _BINARY + "|CalSelect<|BinaryOps|CalAssign",
        "TransitFactory<(BinaryFunc|Select)|NoScalar|BinaryNoVec",
        in_bytes,
        {"float32": 2.09e9, "float16": 2e9, "int32": 1.8e9},
        _equal,
    ),
    Kind(
        "elementwise, with a number",
        _BINARY,
        "In1Scalar|In0Scalar",
        results,
        {"float32": 7.59e7, "float16": 8.51e7, "int32": 7.83e7},
        _number,
    ),
    Kind(
        "elementwise, with a broadcast",
        _BINARY + "|BroadcastRightShift",
        "BinaryWithBroadcast|BroadcastRightShift",
        results,
        {"float32": 4.66e7, "float16": 4.85e7, "int32": 4.18e7},
    ),
    Kind(
        "elementwise, one operand",
        "UnaryOps|Softplus|CalIsFinite",
        "TransitFactory<UnaryFunc|UnaryNoVec",
        in_bytes,
        {"float32": 1.67e9, "float16": 1.39e9},
    ),
    Kind("cast", "Cast<", "CastFunctor", in_bytes, {"float16": 1.43e9}),
    Kind("masked fill", r"\w+MaskedFill", "MaskedFill", results, {"float32": 1.32e8, "float16": 1.5e8}),
    Kind(
        "selection by one condition",
        "CalSelectBroadcast",
        "float16.*SelectBroadcastKernel<float",
        results,
        {"float32": 1.78e8},
        _one_condition,
    ),
    Kind("selection", "CalSelectBroadcast", "SelectBroadcast", results, {"float32": 8.08e7, "float16": 8.09e7}),
    Kind(
        "addcmul of equal shapes",
        "CalAddc(mul|div)",
        "Addc(mul|div)_all_same",
        results,
        {"float32": 1.29e8, "float16": 2.15e8},
        _equal,
    ),
    Kind("addcmul", "CalAddc(mul|div)", "Addc(mul|div)", results, {"float32": 4.86e7, "float16": 5.14e7}),
    Kind(
        "transposition",
        "CalTranspose|CalAsStrided",
        "TransposeKernel|Swap3D",
        results,
        {"float32": 1.23e8, "float16": 1.28e8},
    ),
    Kind(
        "strided slice",
        "StridedSlice(Grad)?<",
        "StridedSlice",
        results,
        {"float32": 5.55e7, "float16": 5.82e7, "int32": 3e5},
    ),
    Kind("slice", r"Slice\dDKernel", r"Slice\dD<", results, {"float32": 1.05e8, "float16": 1.09e8}),
    Kind("joining", "ConcatKernel", "Concat<", searched, {"float32": 1.19e8, "float16": 1.39e8}),
    Kind("splitting", "SplitKernel|PackKernel|UnpackKernel|Gather|TensorScatter", "", results, {"": 60e6}),
    Kind("repetition", "CalTile|BroadcastTo", "Tile<|BroadcastTo", results, {"float32": 5.07e7}),
    Kind(
        "sums of columns",
        "ArrayReduce",
        "ColumnReduceKernel",
        largest,
        {"float32": 1.35e8, "float16": 1.52e8},
        _columns,
    ),
    Kind(
        "reduction",
        "ArrayReduce|CalArgmax|UnsortedSegmentSum",
        "RowReduce|ColumnReduce|BlockReduce|cub::Device",
        largest,
        {"float32": 6.17e8, "float16": 6.77e8},
    ),
    Kind(
        "convolution's bias gradient",
        "CalBiasAddGrad",
        "BiasAddGradNCHW",
        largest,
        {"float32": 3.45e8, "float16": 1.49e8},
    ),
    Kind("LayerNorm", "LayerNorm<", "TiledLayerNorm", results, {"float32": 1.26e8, "float16": 1.58e8}),
    Kind(
        "LayerNorm's gradient",
        "LayerNormGrad<",
        "TiledGamma|TiledInputProp",
        results,
        {"float32": 7.81e7, "float16": 9.14e7},
    ),
    Kind("softmax", "Softmax<|cudnnSoftmax", "SoftMax", results, {"float32": 3.56e8, "float16": 5.43e8}),
    Kind(
        "max pooling", "CalMaxPool3DWithArgmax", "MaxPool3DWithArgmax", largest, {"float32": 1.56e8, "float16": 1.57e8}
    ),
    Kind("max pooling's gradient", "CalMaxPool3DGrad", "MaxPool3DGrad", largest, {"float32": 2.22e8, "float16": 1.5e8}),
    Kind("average pooling", "cudnnPoolingForward", "pooling_fw", largest, {"float32": 4.97e8, "float16": 7.03e8}),
    Kind(
        "average pooling's gradient",
        "cudnnPoolingBackward",
        "pooling_bw",
        largest,
        {"float32": 2.35e8, "float16": 2.27e8},
    ),
    Kind(
        "update of weights",
        "AdamWeightDecay|Momentum|CalApplyGradientDescent",
        "AdamWeight|Momentum|ApplyGradientDescent",
        in_bytes,
        {"float32": 1.24e9},
    ),
    Kind(
        "filling", "Fill|cudaMemset", "Fill|Memset", in_bytes, {"float32": 5.48e8, "float16": 3.26e9, "int32": 3.17e9}
    ),
    Kind(TO_DEVICE, "cudaMemcpy", "Memcpy HtoD", in_bytes, {"uint8": 7.3e6}, _note("to the device")),
    # 32 MB in 0.587 ms, by PyTorch on the same H100.
    Kind("copy of pinned memory", "cudaMemcpy", "", in_bytes, {"": 5.4e7}, _note("to the device from pinned memory")),
    Kind("copy on the device", "cudaMemcpy", "Memcpy DtoD", in_bytes, {"uint8": 1.48e9}, _note("on the device")),
    Kind("copy to the host", "cudaMemcpy", "", in_bytes, {"": 1e7}, _note("to the host")),
    # Kernels of this project: each tensor to which a launch's arguments point is read or written once.
    Kind(OWN, "own (adamw|sgd)_", "", rewritten, OWN_RATES),
    Kind(OWN, "own ", "", in_bytes, OWN_RATES),
    Kind(OTHERS, "", "", in_bytes, {"": 5e8}),  # a guess; of functions without tensors the launch alone
)


class Cost(NamedTuple):
    calls: float
    ms: float


@cache
def measured() -> dict:
    """h100.json: date, card, commit, and of each of "steps" its calls, and by framework step_ms, busy_ms and kinds;
    "earlier": the same of an earlier commit; "cuda": with CUDA kernels, and the host's ms, for AGW and MUN as
    their steps in float16 need it, for PMT by a stand-in. Raises InputError if it is not there, as in a wheel."""
    if not H100.is_file():
        raise InputError(f"{H100}: is not there; run this in a checkout, which has it")
    return json.loads(H100.read_text(encoding="utf-8"))


def label_of(kind: str, of: str) -> str:
    return f"{kind}, {of}" if of else kind


def kind_of(call: Call) -> Kind:
    return next(kind for kind in KINDS if re.match(kind.functions, call.function) and kind.which(call))


def priced(calls: Mapping[str, float]) -> Iterator[tuple[Call, float]]:
    """Return the calls that put work on the device or copy, and how often."""
    device = DEVICES["GPU"]
    for text, times in calls.items():
        call = read_call(text)
        if device.is_launch(call.function) or call.function in device.COPIES:
            yield call, times


def kinds(calls: Mapping[str, float]) -> dict[str, Cost]:
    """What calls cost by their kind and type, as "addcmul, float32", the most expensive first. An own kernel has its
    name, as "own gelu_float_4", and what is of no kind its function's, as "others: Foo<float>"."""
    costs: dict[str, Cost] = defaultdict(lambda: Cost(0, 0))
    for call, times in priced(calls):
        kind = kind_of(call)
        label = label_of(kind.name, call.type)
        if kind.name in (OWN, OTHERS):
            label = call.function if kind.name == OWN else f"{OTHERS}: {call.function}"
        before = costs[label]
        costs[label] = Cost(before.calls + times, before.ms + times * kind.ms(call))
    return dict(sorted(costs.items(), key=lambda item: -item[1].ms))


def busy_ms(calls: Mapping[str, float]) -> float:
    """Return the ms that the device works, one kernel after another."""
    return sum(cost.ms for cost in kinds(calls).values())


def step_ms(calls: Mapping[str, float], host_ms: float = 0.0) -> float:
    """Return the ms of one step among many in the queue: the longer of what the host takes and of `busy_ms`, with the
    wait for the batch if it is copied from pageable memory."""
    return max(busy_ms(calls) + _waited_ms(calls), host_ms)


def timed_ms(calls: Mapping[str, float], host_ms: float) -> float:
    """Return the ms of one of `TIMED` steps, before and after which the queue is empty: the device begins after the
    host, or ends after it, unless it waits for each batch as long."""
    longer, shorter = max(busy_ms(calls), host_ms), min(busy_ms(calls), host_ms)
    return longer + max(shorter / TIMED, _waited_ms(calls))


def _waited_ms(calls: Mapping[str, float]) -> float:
    """Return the device's wait for a batch that is copied from pageable memory."""
    waited = sum(times * in_bytes(call) for call, times in priced(calls) if kind_of(call).name == TO_DEVICE)
    return waited / HOST_RATE


def own_ms(moved: float) -> float:
    """Return the ms of an own kernel that moves so many bytes."""
    return LAUNCH_MS + moved / MEMORY_RATE


# --- the fit ---------------------------------------------------------------------------------------------------------

LEAST_MS = 0.05  # of a kind in a step: the profiles have a step's 80 kernels that take longest
# PyTorch's kernels by kind: the first whose pattern "step: kernel" has.
TORCH_KINDS = {
    "BatchNorm": "bn_fw|batch_norm_(?!backward)",
    "BatchNorm's gradient": "bn_bw|batch_norm_backward",
    "LayerNorm": "vectorized_layer_norm",
    "LayerNorm's gradient": "layer_norm_grad|GammaBeta",
    "softmax": "softmax",
    "pooling": "pool",
    "convolution by channel": "depthwise|c1_k1|MUN.*(grouped_direct|wgrad2d_shmem)",
    "product": "PMT.*(gemm|nvjet|gemv|splitK)|f32f32_f32f32|f16f16_f32f32|simt|gemmk1|gemv",
    "convolution": "To(Folded)?N|wgrad|dgrad|fprop|mplicit|ReduceSplitK|workspace|gemm|nvjet|tensorTransform|splitK",
    "update of weights": "multi_tensor",
    "joining": "CatArray",
    "reduction": "reduce_kernel|Reduce",
    "elementwise": "elementwise",
    "copies": "Memcpy",
    "filling": "Memset",
    "others": "",
}


def _sums(kernels: Iterable[tuple[str, float]], kind: Callable[[str], str]) -> dict[str, float]:
    """Sum the ms of kernels by kind, the largest first."""
    found: dict[str, float] = defaultdict(float)
    for kernel, ms in kernels:
        found[kind(kernel)] += ms
    return {label: round(ms, 3) for label, ms in sorted(found.items(), key=lambda item: -item[1])}


def _kernel_kinds(step: str, calls: Mapping[str, float]) -> Callable[[str], str]:
    """Return the kind and type of a MindSpore kernel in that step."""
    types: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for call, times in priced(calls):
        types[kind_of(call).name][call.type] += times * kind_of(call).work(call)

    def kind(kernel: str) -> str:
        found = (kind.name for kind in KINDS if kind.kernels and re.search(kind.kernels, f"{step}: {kernel}"))
        name = next(found, OTHERS)
        integral = re.search(r"\)\d+, int, int|Kernel<int>", kernel)
        own = "float16" if re.search("half|f16", kernel) else "int32" if integral else "float32"
        of_calls = types[name] or {own: 0}
        return label_of(name, own if own in of_calls else max(of_calls, key=of_calls.get))

    return kind


def _torch_kind(step: str, kernel: str) -> str:
    return next(kind for kind, pattern in TORCH_KINDS.items() if re.search(pattern, f"{step}: {kernel}"))


def fitted(steps: Iterable[dict]) -> dict[str, float]:
    """Fit the rate of each kind and type: the work of all steps in h100.json over their ms without launches."""
    work: dict[str, float] = defaultdict(float)
    ms: dict[str, float] = defaultdict(float)
    for step in steps:
        found = {label: spent for label, spent in step["mindspore"]["kinds"].items() if spent > LEAST_MS}
        for call, times in priced(step["calls"]):
            kind = kind_of(call)
            if (label := label_of(kind.name, call.type)) in found:
                work[label] += times * kind.work(call)
                ms[label] -= times * LAUNCH_MS
        for label, spent in found.items():
            ms[label] += spent
    return {label: work[label] / ms[label] for label in work}


def _row(path: Path) -> dict:
    """Return the only row of a file of figures with steps only."""
    try:
        (row,) = json.loads(path.read_text(encoding="utf-8"))["train_step"].values()
        return row
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: {error}; it is a step's, by benchmark.py --only train_step") from None


def read_profiles(folder: Path, calls: Mapping[str, Mapping[str, float]]) -> dict[str, dict]:
    """Make the steps of h100.json from the files of `benchmark.py --json F --kernels K` and each step's calls.

    Raises:
        InputError: a file cannot be read, or does not have a step.
    """
    steps: dict[str, dict] = {}
    for step, own in calls.items():
        name = step.lower().replace(" ", "-")
        figures, kernels = _row(folder / f"{name}.json"), _row(folder / f"{name}.kernels.json")
        steps[step] = {"calls": own}
        for framework, kind in (("mindspore", _kernel_kinds(step, own)), ("torch", partial(_torch_kind, step))):
            profile = kernels[framework]
            spent = [
                (name, microseconds / profile["steps"] / 1e3)
                for name, _, microseconds in profile["kernels_calls_us"]
                if not name.startswith("Optimizer.step")  # a range, no kernel
            ]
            steps[step][framework] = {
                "step_ms": round(1e3 * figures[f"{framework}_s"], 2),
                "busy_ms": round(profile["busy_ms"] / profile["steps"], 1),
                "kinds": _sums(spent, kind),
            }
    return steps


def main() -> None:
    from parity.measure.launches import COST_ROWS, calls_of  # not at the top: it imports this module

    parser = Parser(__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="with two files of each step")
    folder = parser.parse_args().folder
    steps = read_profiles(folder, {step: calls_of(step) for step in COST_ROWS})
    write_text(H100, json.dumps(measured() | {"steps": steps}, indent=1) + "\n")
    for label, rate in fitted(steps.values()).items():
        print(f"{label:46}{rate:10.3g}")


if __name__ == "__main__":
    run(main)
