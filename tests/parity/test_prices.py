"""What a step costs on an H100: predicted beside measured."""

import json

import pytest

from ms_vireid.command.errors import InputError
from parity.measure import prices
from parity.measure.launches import COST_ROWS

STEPS, EARLIER = (found["steps"] for found in (prices.measured(), prices.measured()["earlier"]))
STEPS_OF = {"earlier": EARLIER, "since": STEPS}


@pytest.mark.parametrize("steps", STEPS_OF)
def test_the_steps_that_were_measured_are_the_benchmarks(steps):
    assert list(STEPS_OF[steps]) == list(COST_ROWS)


@pytest.mark.parametrize("step", STEPS)
def test_a_measured_step_is_predicted(step):
    """Of the earlier ones the host copied the batch as well."""
    expected = pytest.approx(STEPS[step]["mindspore"]["step_ms"], rel=0.1)
    assert prices.step_ms(STEPS[step]["calls"]) == expected
    assert prices.timed_ms(STEPS[step]["calls"], host_ms=30.0) == expected


@pytest.mark.parametrize("step", STEPS)
def test_a_measured_step_with_cuda_kernels_is_predicted_by_its_host_too(step):
    found = prices.measured()["cuda"]["steps"][step]
    assert prices.busy_ms(found["calls"]) == pytest.approx(found["mindspore"]["busy_ms"], rel=0.1)
    timed = prices.timed_ms(found["calls"], found["host_ms"])
    assert timed == pytest.approx(found["mindspore"]["step_ms"], rel=0.1)


@pytest.mark.parametrize("steps", STEPS_OF)
@pytest.mark.parametrize("step", STEPS)
def test_a_measured_steps_kernels_are_predicted(steps, step):
    found, calls = STEPS_OF[steps][step]["mindspore"], STEPS_OF[steps][step]["calls"]
    assert prices.busy_ms(calls) == pytest.approx(found["busy_ms"], rel=0.1)
    predicted = {kind: cost.ms for kind, cost in prices.kinds(calls).items()}
    for kind in {*list(found["kinds"])[:10], *list(predicted)[:10]}:
        assert predicted[kind] == pytest.approx(found["kinds"][kind], rel=0.25), kind


def test_every_call_of_the_steps_has_a_price():
    functions = {
        call.function
        for step in (*STEPS.values(), *EARLIER.values())
        for call, _ in prices.priced(step["calls"])
        if prices.kind_of(call).name == "others"
    }
    assert functions == {"NLLLoss<float, float>", "NLLLossGrad<float, float>"}


def test_the_rates_are_those_of_the_profiles():
    """A kind's rates are fitted where a step spent a measurable time in it; the others are nobody's."""
    fitted = prices.fitted([*EARLIER.values(), *STEPS.values()])
    rates = {prices.label_of(kind.name, of): rate for kind in prices.KINDS for of, rate in kind.rates.items()}
    assert len(fitted) > 60
    assert {label: rates[label] for label in fitted} == pytest.approx(fitted, rel=0.01)


def test_profiles_are_summed_by_kind(tmp_path):
    """Of both frameworks, with the types that the calls say where a kernel's name has none."""
    calls = {
        "cudnnReduceTensor\tfloat16[1,768] float16[13504,768]": 48,
        "CalAddcmul<float, float>\tfloat32[8] float32[8] float32[8] float32[1] float32[1]": 2,
    }
    kernels = [["void reduce_tensor_kernel<float, 2>", 96, 4000.0], ["Addcmul_value1<float>", 4, 10.0], ["new", 2, 2.0]]
    torch = [["Optimizer.step#AdamW.step", 2, 9e9], ["nvjet_sm90_hsh_64x8", 2, 1000.0], ["nchwToNhwcKernel", 2, 500.0]]
    profiles = {
        framework: {"steps": 2, "busy_ms": 4.4, "kernels_calls_us": spent}
        for framework, spent in (("mindspore", kernels), ("torch", torch))
    }
    write_row(tmp_path / "pmt-float16.kernels.json", profiles)
    write_row(tmp_path / "pmt-float16.json", {"mindspore_s": 0.0025, "torch_s": 0.001})
    assert prices.read_profiles(tmp_path, {"PMT float16": calls}) == {
        "PMT float16": {
            "calls": calls,
            "mindspore": {
                "step_ms": 2.5,
                "busy_ms": 2.2,
                "kinds": {"cuDNN's reduction, float16": 2.0, "addcmul, float32": 0.005, "others, float32": 0.001},
            },
            "torch": {"step_ms": 1.0, "busy_ms": 2.2, "kinds": {"product": 0.5, "convolution": 0.25}},
        }
    }


def write_row(path, row):
    path.write_text(json.dumps({"train_step": {"PMT ViT-B/16 256x128": row}}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "pmt-float16.json: .*No such file"),
        ("[", "pmt-float16.json: "),
        ("{}", "pmt-float16.json: 'train_step'; it is a step's, by benchmark.py --only train_step"),
        ('{"train_step": {}}', "pmt-float16.json: not enough values"),
    ],
)
def test_profiles_that_cannot_be_read_are_refused_in_a_line(text, message, tmp_path):
    if text:
        (tmp_path / "pmt-float16.json").write_text(text)
    with pytest.raises(InputError, match=message) as error:
        prices.read_profiles(tmp_path, {"PMT float16": {}})
    assert "\n" not in str(error.value)


# --- a call's price --------------------------------------------------------------------------------------------------


def ms(call):
    ((_, cost),) = prices.kinds({call: 1}).items()
    return cost.ms


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        ("cublasGemmEx\tfloat32[1,8,8] float32[1,8,8] float32[1,8,8]", "product, float32"),
        ("cublasGemmEx\tfloat32[1,8,8] float32[1,8,8] float32[1,8,8] TF32", "product in TF32, float32"),
        ("cublasGemmStridedBatchedEx\tfloat16[9,8,7] float16[9,8,8] float16[9,8,7]", "product of odd rows, float16"),
        ("cublasGemmStridedBatchedEx\tfloat16[9,8,8] float16[9,8,8] float16[9,8,8]", "product in batches, float16"),
        (
            "BinaryOpWithBroadcastCudaFunc<T::kMul, int>\tint32[9] int32[9] int32[1]",
            "elementwise, with a number, int32",
        ),
        (
            "BinaryOpWithBroadcastCudaFunc<T::kMul, int>\tint32[9,8] int32[9,8] int32[9,1]",
            "elementwise, with a broadcast, int32",
        ),
        ("BinaryOpWithBroadcastCudaFunc<T::kLess, int>\tbool[9] int32[9] int32[9]", "elementwise, equal shapes, int32"),
        ("BinaryOpWithBroadcastCudaFunc<T::kPow, float>\tfloat32[9] float32[9] float32[1]", "power, float32"),
        ("cudnnConvolutionForward\tfloat16[9,8,6,6] float16[4,8,1,1] float16[9,4,6,6]", "convolution, float16"),
        (
            "cudnnConvolutionForward\tfloat16[9,8,6,6] float16[8,1,1,1] float16[9,8,6,6]",
            "convolution by channel, float16",
        ),
        ("Cast<int, float>\tfloat32[9] int32[9]", "cast, float32"),
        ("cudaMemcpyAsync\tuint8[9] to the device", "copy to the device, uint8"),
        ("cudaMemcpyAsync\tuint8[9] to the device from pinned memory", "copy of pinned memory, uint8"),
        ("cudaMemcpyAsync\tuint8[9] on the device", "copy on the device, uint8"),
        ("own gelu_half_8\tfloat16[9] float16[9]", "own gelu_half_8"),
        ("own sums_half_1", "own sums_half_1"),
        ("NLLLoss<float>\tfloat32[] float32[9]", "others: NLLLoss<float>"),
        ("cudnnUnheardOf", "others: cudnnUnheardOf"),
    ],
)
def test_a_call_has_its_kind(call, kind):
    assert list(prices.kinds({call: 1})) == [kind]


def test_what_puts_nothing_on_the_device_costs_nothing():
    assert prices.kinds({"cublasSetStream_v2": 9, "cudaMalloc": 1}) == {}


def test_no_kernel_is_faster_than_memory():
    """A bias's gradient as a product with ones reads its operand once, which takes longer than its operations."""
    rows, width = 13504, 3072
    bytes_ = 4 * (rows * width + rows + width)
    product = ms(f"cublasGemmEx\tfloat32[1,1,{width}] float32[1,1,{rows}] float32[1,{rows},{width}]")
    own = ms(f"own sum\tfloat32[1,1,{width}] float32[1,1,{rows}] float32[1,{rows},{width}]")
    assert product == own == pytest.approx(prices.own_ms(bytes_), rel=1e-6)


def test_an_own_update_writes_what_it_reads_but_the_gradient():
    buffer = "float32[1000000]"
    update = ms(f"own adamw_float_4\t{buffer} {buffer} {buffer} {buffer}")
    assert update == pytest.approx(prices.own_ms(7 * 4e6), rel=1e-6)


def test_a_step_waits_for_its_batch():
    copy, cast = "cudaMemcpyAsync\tuint8[35000000] to the device", "Cast<int, float>\tfloat32[9] int32[9]"
    for call, waits in ((copy, 35e6 / prices.HOST_RATE), (f"{copy} from pinned memory", 0)):
        calls = {call: 1, cast: 1}
        assert prices.step_ms(calls) - prices.busy_ms(calls) == pytest.approx(waits)
