"""What a step costs on an H100, by what it asks of the stand-in GPU: each call by its kind, as so many elements, bytes
or operations at a rate, and a launch.

    calls = counts.calls() - before        # of a step, by parity.stand_in.counts
    busy_ms(calls), step_ms(calls)
    kinds(calls)["addcmul, float32"].ms

`parity/benchmark.py --only launches costs` prints them; a change is judged by the difference. `own_ms(bytes)` is what a
kernel of our own will cost that is not written yet, by the bytes that it must move.

KINDS has the rates, fitted to the kernels of six steps as they were profiled on the card and day that h100.json names.
That file also has their ms by kind, and the calls of the same steps on the stand-in. With a folder of other profiles
(profiles.json, steps.json) of these calls, this writes the ms anew and prints the rates:

    python -m parity.measure.prices FOLDER
"""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from math import prod
from pathlib import Path
from statistics import median
from typing import NamedTuple

from ms_vireid.command.errors import InputError
from ms_vireid.command.running import Parser, run
from ms_vireid.files.writing import write_text
from parity.stand_in import DEVICES

H100 = Path(__file__).with_name("h100.json")
LAUNCH_MS = 0.0013  # the shortest kernel
MEMORY_RATE = 2.4e9  # bytes a ms: of a kernel that moves each once and does nothing else, and of none more
# While the batch is copied into a tensor and from pageable memory, the device has nothing to do: 9 ms for 32 MB.
HOST_RATE = 3.5e6  # bytes a ms
TO_DEVICE, OTHERS = "copy to the device", "others"
_WIDTHS = {"bool": 1, "int8": 1, "uint8": 1, "float16": 2, "bfloat16": 2, "int16": 2, "int64": 8, "float64": 8}
_TENSOR = re.compile(r"(\w+)\[([\d,]*)\]")


@dataclass(frozen=True)
class Call:
    """A function that puts work on the device. tensors: type and shape of each, results first, but of a convolution x,
    filter and y. note: what else its price depends on."""

    function: str
    tensors: tuple[tuple[str, tuple[int, ...]], ...]
    note: str

    @property
    def type(self) -> str:
        """The floating-point type that it has to do with, or else that of what it reads."""
        types = [kind for kind, _ in reversed(self.tensors)]
        return next((kind for kind in types if "float" in kind), types[0] if types else "")

    @property
    def sizes(self) -> list[int]:
        return [prod(shape) for _, shape in self.tensors]


@cache
def read_call(text: str) -> Call:
    """As `parity.stand_in.counts.calls` names it."""
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


def searched(call: Call) -> float:
    """Each element of what is joined looks for its input, from the first on."""
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
    """Rows of float16 that do not begin at multiples of 16 bytes."""
    return call.type == "float16" and any(length % 8 for _, shape in call.tensors for length in shape[1:])


def _by_channel(call: Call) -> bool:
    (_, x), (_, filters), _ = call.tensors
    return x[1] != filters[1]


def _one_channel(call: Call) -> bool:
    (_, x), _, (_, y) = call.tensors
    return 1 in (x[1], y[1])


def _one_condition(call: Call) -> bool:
    return call.sizes[1] == 1


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
        {"float32": 2.35e10, "float16": 2e11},  # of float16 a guess
    ),
    Kind(
        "product",
        _GEMM,
        r"(PMT|MUN).*f32f32_f32f32|sgemm|splitK|PMT.*xmma_gemm|dot_kernel|gemmk1|reduce_1Block",
        product,
        {"float32": 4.43e10, "float16": 6.09e11},
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
        {"float32": 2.68e9, "float16": 7.06e9},
        _by_channel,
    ),
    Kind(
        "convolution of one channel",
        _CONVOLUTION,
        "AGW.*(grouped_direct|gemv|f32f32_f32f32)",
        in_bytes,
        {"float32": 1.28e9, "float16": 9.19e8},
        _one_channel,
    ),
    Kind(
        "convolution",
        _CONVOLUTION,
        "To(Folded)?N|[dw]grad|fprop|mplicit|SplitK|workspace|s1688|f16_s|s16816|f16f16|f16f32|tf32f32",
        convolution,
        {"float32": 9.17e10, "float16": 1.63e11},
    ),
    Kind(
        "cuDNN's reduction",
        "cudnnReduceTensor",
        "reduce_tensor_kernel|alpha2_zero",
        in_bytes,
        {"float32": 7.03e7, "float16": 3.54e7},
    ),
    Kind("cuDNN's OpTensor", "cudnnOpTensor", "op_generic_tensor", results, {"float32": 2.7e8, "float16": 2.82e8}),
    Kind("BatchNorm", "cudnnBatchNormalizationForward", "bn_fw", in_bytes, {"float32": 1.56e9, "float16": 1.95e9}),
    Kind(
        "BatchNorm's gradient",
        "cudnnBatchNormalizationBackward",
        "bn_bw",
        in_bytes,
        {"float32": 1.42e9, "float16": 2e9},
    ),
    Kind("ReLU's gradient", "CalReLUGrad", "CalReLUGrad", in_bytes, {"float32": 1.61e9, "float16": 9.44e8}),
    Kind("power", _BINARY + r"<\w+::kPow", r"In1Scalar<\(BinaryOpType\)14", results, {"float32": 3.83e7}, _number),
    Kind(
        "elementwise, equal shapes",
        _BINARY + "|CalSelect<|BinaryOps|CalAssign",
        "TransitFactory<(BinaryFunc|Select)|NoScalar|BinaryNoVec",
        in_bytes,
        {"float32": 2.07e9, "float16": 2.01e9, "int32": 2.21e9},
        _equal,
    ),
    Kind(
        "elementwise, with a number",
        _BINARY,
        "In1Scalar|In0Scalar",
        results,
        {"float32": 7.49e7, "float16": 8.4e7, "int32": 7.89e7},
        _number,
    ),
    Kind(
        "elementwise, with a broadcast",
        _BINARY + "|BroadcastRightShift",
        "BinaryWithBroadcast|BroadcastRightShift",
        results,
        {"float32": 4.66e7, "float16": 4.93e7, "int32": 4.12e7},
    ),
    Kind(
        "elementwise, one operand",
        "UnaryOps|Softplus|CalIsFinite",
        "TransitFactory<UnaryFunc|UnaryNoVec",
        in_bytes,
        {"float32": 1.65e9, "float16": 1.38e9},
    ),
    Kind("cast", "Cast<", "CastFunctor", in_bytes, {"float16": 6.67e8}),
    Kind("masked fill", r"\w+MaskedFill", "MaskedFill", results, {"float32": 1.3e8, "float16": 1.51e8}),
    Kind(
        "selection by one condition",
        "CalSelectBroadcast",
        "float16.*SelectBroadcastKernel<float",
        results,
        {"float32": 1.78e8},
        _one_condition,
    ),
    Kind("selection", "CalSelectBroadcast", "SelectBroadcast", results, {"float32": 7.27e7, "float16": 7.76e7}),
    Kind(
        "addcmul of equal shapes",
        "CalAddc(mul|div)",
        "Addc(mul|div)_all_same",
        results,
        {"float32": 1.45e8, "float16": 2.2e8},
        _equal,
    ),
    Kind("addcmul", "CalAddc(mul|div)", "Addc(mul|div)", results, {"float32": 4.84e7, "float16": 5.14e7}),
    Kind(
        "transposition",
        "CalTranspose|CalAsStrided",
        "TransposeKernel|Swap3D",
        results,
        {"float32": 1.21e8, "float16": 1.29e8},
    ),
    Kind(
        "strided slice",
        "StridedSlice(Grad)?<",
        "StridedSlice",
        results,
        {"float32": 5.42e7, "float16": 5.81e7, "int32": 3e5},
    ),
    Kind("slice", r"Slice\dDKernel", r"Slice\dD<", results, {"float32": 1.03e8, "float16": 1.09e8}),
    Kind("joining", "ConcatKernel", "Concat<", searched, {"float32": 1.18e8, "float16": 1.39e8}),
    Kind("splitting", "SplitKernel|PackKernel|UnpackKernel|Gather|TensorScatter", "", results, {"": 60e6}),
    Kind("repetition", "CalTile|BroadcastTo", "Tile<|BroadcastTo", results, {"float32": 5.09e7}),
    Kind(
        "reduction",
        "ArrayReduce|CalArgmax|UnsortedSegmentSum",
        "RowReduce|ColumnReduce|BlockReduce|cub::Device",
        largest,
        {"float32": 6.57e8, "float16": 7.05e8},
    ),
    Kind(
        "convolution's bias gradient",
        "CalBiasAddGrad",
        "BiasAddGradNCHW",
        largest,
        {"float32": 3.46e8, "float16": 1.49e8},
    ),
    Kind("LayerNorm", "LayerNorm<", "TiledLayerNorm", results, {"float32": 1.24e8, "float16": 1.58e8}),
    Kind(
        "LayerNorm's gradient",
        "LayerNormGrad<",
        "TiledGamma|TiledInputProp",
        results,
        {"float32": 7.66e7, "float16": 9.2e7},
    ),
    Kind("softmax", "Softmax<|cudnnSoftmax", "SoftMax", results, {"float32": 3.44e8, "float16": 5.44e8}),
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
        {"float32": 2.35e8, "float16": 2.28e8},
    ),
    Kind(
        "update of weights",
        "AdamWeightDecay|Momentum|CalApplyGradientDescent",
        "AdamWeight|Momentum|ApplyGradientDescent",
        in_bytes,
        {"float32": 1.22e9},
    ),
    Kind("filling", "Fill|cudaMemset", "Fill|Memset", in_bytes, {"float32": 5.55e8, "float16": 3.52e9}),
    Kind(TO_DEVICE, "cudaMemcpy", "Memcpy HtoD", in_bytes, {"uint8": 7.98e6}, _note("to the device")),
    Kind("copy of pinned memory", "cudaMemcpy", "", in_bytes, {"": 2.5e7}, _note("to the device from pinned memory")),
    Kind("copy on the device", "cudaMemcpy", "Memcpy DtoD", in_bytes, {"uint8": 1.49e9}, _note("on the device")),
    Kind("copy to the host", "cudaMemcpy", "", in_bytes, {"": 1e7}, _note("to the host")),
    # Kernels of this project, where their tensors are counted: each is read or written once.
    Kind("own", "own ", "", in_bytes, {"": MEMORY_RATE}, lambda call: bool(call.tensors)),
    Kind(OTHERS, "", "", in_bytes, {"": 5e8}),  # a guess; of functions without tensors the launch alone
)


class Cost(NamedTuple):
    calls: float
    ms: float


@cache
def measured() -> dict:
    """h100.json: date, card, commit, and of each of "steps" its calls, and by framework step_ms, busy_ms and kinds."""
    return json.loads(H100.read_text())


def label_of(kind: str, of: str) -> str:
    return f"{kind}, {of}" if of else kind


def kind_of(call: Call) -> Kind:
    return next(kind for kind in KINDS if re.match(kind.functions, call.function) and kind.which(call))


def priced(calls: Mapping[str, float]) -> Iterator[tuple[Call, float]]:
    """Those that put work on the device or copy, with how often."""
    device = DEVICES["GPU"]
    for text, times in calls.items():
        call = read_call(text)
        if device.is_launch(call.function) or call.function in device.COPIES:
            yield call, times


def kinds(calls: Mapping[str, float]) -> dict[str, Cost]:
    """What calls cost by their kind and type, as "addcmul, float32", the most expensive first. What is of no kind has
    its function's name, as "others: Foo<float>"."""
    costs: dict[str, Cost] = defaultdict(lambda: Cost(0, 0))
    for call, times in priced(calls):
        kind = kind_of(call)
        label = f"{OTHERS}: {call.function}" if kind.name == OTHERS else label_of(kind.name, call.type)
        before = costs[label]
        costs[label] = Cost(before.calls + times, before.ms + times * kind.ms(call))
    return dict(sorted(costs.items(), key=lambda item: -item[1].ms))


def busy_ms(calls: Mapping[str, float]) -> float:
    """For how long the device works, one kernel after the other."""
    return sum(cost.ms for cost in kinds(calls).values())


def step_ms(calls: Mapping[str, float]) -> float:
    """The same and how long it waits for what is copied from pageable memory, the batch."""
    waited = sum(times * in_bytes(call) for call, times in priced(calls) if kind_of(call).name == TO_DEVICE)
    return busy_ms(calls) + waited / HOST_RATE


def own_ms(moved: float) -> float:
    """What a kernel of our own costs that moves so many bytes."""
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
    """Of the ms of kernels, by kind; the largest first."""
    found: dict[str, float] = defaultdict(float)
    for kernel, ms in kernels:
        found[kind(kernel)] += ms
    return {label: round(ms, 3) for label, ms in sorted(found.items(), key=lambda item: -item[1])}


def _kernel_kinds(step: str, calls: Mapping[str, float]) -> Callable[[str], str]:
    """For a kernel of MindSpore's in that step its kind and type."""
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


def fitted(steps: Mapping[str, dict]) -> dict[str, float]:
    """The rates of each kind and type: the work of all steps, as h100.json has them, by their ms without launches."""
    work: dict[str, float] = defaultdict(float)
    ms: dict[str, float] = defaultdict(float)
    for step in steps.values():
        found = {label: spent for label, spent in step["mindspore"]["kinds"].items() if spent > LEAST_MS}
        for call, times in priced(step["calls"]):
            kind = kind_of(call)
            if (label := label_of(kind.name, call.type)) in found:
                work[label] += times * kind.work(call)
                ms[label] -= times * LAUNCH_MS
        for label, spent in found.items():
            ms[label] += spent
    return {label: work[label] / ms[label] for label in work}


def _read(path: Path) -> dict:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: {error}") from None


def read_profiles(folder: Path, calls: Mapping[str, Mapping[str, float]]) -> dict[str, dict]:
    """The steps of h100.json, from profiles.json and steps.json and the calls of each.

    Raises:
        InputError: a file cannot be read, or does not have a step.
    """
    profiles, times = (_read(folder / name) for name in ("profiles.json", "steps.json"))
    for step in calls:
        if step not in times or not {f"{step} mindspore", f"{step} torch"} <= set(profiles):
            raise InputError(f"{folder}: has no {step} of both frameworks")
    steps: dict[str, dict] = {}
    for step, own in calls.items():
        steps[step] = {"calls": own}
        for framework, kind in (("mindspore", _kernel_kinds(step, own)), ("torch", partial(_torch_kind, step))):
            profile = profiles[f"{step} {framework}"]
            kernels = [
                (name, microseconds / profile["steps"] / 1e3)
                for name, _, microseconds in profile["kernels_calls_us"]
                if not name.startswith("Optimizer.step")  # a range, no kernel
            ]
            steps[step][framework] = {
                "step_ms": median(times[step][f"{framework}_ms"]),
                "busy_ms": round(profile["busy_ms"] / profile["steps"], 1),
                "kinds": _sums(kernels, kind),
            }
    return steps


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="with profiles.json and steps.json")
    folder = parser.parse_args().folder
    steps = read_profiles(folder, {step: found["calls"] for step, found in measured()["steps"].items()})
    write_text(H100, json.dumps(measured() | {"steps": steps}, indent=1) + "\n")
    for label, rate in fitted(steps).items():
        print(f"{label:46}{rate:10.3g}")


if __name__ == "__main__":
    run(main)
