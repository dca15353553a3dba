"""The CUDA kernels, compiled for the host by the stand-in's NVRTC, launched as by MindSpore, against slow float64."""

import ctypes
import locale
import math
import re
import shutil
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from scipy.special import erf

from ms_vireid.backends.cuda import build, declarations
from ms_vireid.command.errors import DeviceError
from ms_vireid.models.noise import _FIRST, _SECOND, noise_constants
from tests.device.cuda_kernels import ABSENT, LIMIT, aligned, assert_close, each_type, empty, random

# rows, columns: packs, tails, several parts
SHAPES = [*((1, 1), (1, 8), (7, 3), (9, 40), (3, 264), (211, 32), (1200, 16))]
WIDEST, MOST_TOKENS = map(declarations.constants().get, ("WIDEST", "MOST_TOKENS"))


def sums(kernels, dtype, *parts):
    """The gradients that partial sums give."""
    return kernels("sums", empty(1, dtype=dtype), *parts, widths=tuple(part.shape[1] for part in parts))


def integers(*shape, seed=1):
    return aligned(np.random.default_rng([seed, *shape]).integers(-(2**31), 2**31, shape).astype(np.int32))


NO_MASKS, NO_DROP = (ABSENT,) * 4, {"limit": 0, "scale": 1.0}


def hashed_noise(row, column):
    """As `ms_vireid.models.noise._noise`, in NumPy."""

    def shift_right(x, bits):
        return (x.view(np.uint32) >> bits).view(np.int32)

    with np.errstate(over="ignore"):
        noise = (row[:, None] + column) * np.int32(_FIRST)
        noise = (noise ^ shift_right(noise, 15)) * np.int32(_SECOND)
    return noise ^ shift_right(noise, 16)


def masks(rows, columns, rate, scale, width=None, hashed=False):
    """Masks as the kernels take them, their numbers, and what they multiply by: float64 [rows, columns]. hashed: the
    noise is what it starts from."""
    width = width or columns
    noise, starts = integers(rows, width), (ABSENT, ABSENT)
    if hashed:
        starts = integers(rows, seed=3), integers(width, seed=4)
        noise = hashed_noise(*starts)
    multipliers = integers(columns // width, seed=2) | 1
    limit = round(rate * 2**32) - 2**31
    with np.errstate(over="ignore"):
        made = [noise * multiplier >= limit for multiplier in multipliers]
    tensors = ABSENT if hashed else noise, *starts, aligned(multipliers)
    return tensors, {"limit": limit, "scale": scale}, np.concatenate(made, 1) * float(np.float32(scale))


def gelu(x):
    return 0.5 * x * (1 + erf(x / math.sqrt(2)))


def gelu_slope(x):
    return 0.5 * (1 + erf(x / math.sqrt(2))) + x * np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)


from_hashes = pytest.mark.parametrize("hashed", [False, True], ids=["noise", "hashes"])
each_shape = pytest.mark.parametrize(("rows", "columns"), SHAPES)


@each_type
@pytest.mark.parametrize(
    ("rows", "columns"), [*SHAPES, (7, 211), (5, 768), (3, WIDEST), (2, WIDEST - 1), (3, 1025), (9, 1536), (3, 2050)]
)
def test_layer_norm(kernels, rows, columns, dtype):
    x, gradient = random(rows, columns, dtype=dtype), random(rows, columns, dtype=dtype, seed=1)
    gamma, beta = random(columns, dtype=dtype, seed=2), random(columns, dtype=dtype, seed=3)
    x[0] += 100  # far from 0: E[x^2] - E[x]^2 would be off
    eps = 1e-5
    out, mean, scale = kernels("layer_norm", x, gamma, beta, eps=eps)
    wide = x.astype(np.float64)
    deviation = np.sqrt(wide.var(1) + eps)
    normal = (wide - wide.mean(1)[:, None]) / deviation[:, None]
    assert_close(mean, wide.mean(1))
    assert_close(scale, 1 / deviation)
    limit = LIMIT[dtype] if dtype == "float16" else 2e-5  # a mean of 100 has an ulp of 8e-6
    np.testing.assert_allclose(out, normal * gamma + beta, rtol=limit, atol=limit * 10)

    inputs = gradient, x, gamma, mean, scale
    grad_x, _, *parts = kernels("layer_norm_gradient", *inputs, ABSENT, ABSENT)
    grad_gamma, grad_beta = sums(kernels, dtype, *parts)
    g = gradient.astype(np.float64)
    s = g * gamma
    projected = s - s.mean(1, keepdims=True) - normal * (s * normal).mean(1, keepdims=True)
    expected = projected / deviation[:, None]
    np.testing.assert_allclose(grad_x, expected, rtol=10 * limit, atol=limit * np.abs(s / deviation[:, None]).max())
    np.testing.assert_allclose(grad_gamma, (g * normal).sum(0), rtol=limit, atol=limit * rows)
    np.testing.assert_allclose(grad_beta, g.sum(0), rtol=limit, atol=limit * rows)

    rest = random(rows, columns, dtype=dtype, seed=4)
    added, again, *parts = kernels("layer_norm_gradient", *inputs, beta, rest)
    atol = limit * max(1, np.abs(s / deviation[:, None]).max())
    np.testing.assert_allclose(added, expected + rest, rtol=10 * limit, atol=atol)
    np.testing.assert_array_equal(again, out)
    np.testing.assert_array_equal(sums(kernels, dtype, *parts), (grad_gamma, grad_beta))


@each_type
@each_shape
@from_hashes
def test_dropout(kernels, rows, columns, dtype, hashed):
    x, width = random(rows, columns, dtype=dtype), columns // 2 if columns % 2 == 0 else columns
    given, drop, factors = masks(rows, columns, 0.3, 1 / 0.7, width, hashed)
    out = kernels("dropout", x, *given, **drop)
    assert_close(out, x.astype(np.float64) * factors)
    np.testing.assert_array_equal(kernels("dropout_gradient", x, *given, **drop), out)


@each_type
@each_shape
@from_hashes
def test_bias_gelu_and_dropout(kernels, rows, columns, dtype, hashed):
    x, bias = random(rows, columns, dtype=dtype), random(columns, dtype=dtype, seed=1)
    width = columns // 2 if columns % 2 == 0 else columns
    given, drop, factors = masks(rows, columns, 0.3, 1 / 0.7, width, hashed)
    added = x.astype(np.float64) + bias
    assert_close(kernels("gelu", x, bias, *given, **drop), gelu(added) * factors)
    assert_close(kernels("gelu", x, bias, *NO_MASKS, **NO_DROP), gelu(added))

    gradient = random(rows, columns, dtype=dtype, seed=2)
    grad_x, parts = kernels("gelu_gradient", gradient, x, bias, *given, **drop)
    assert_close(grad_x, gradient.astype(np.float64) * factors * gelu_slope(added))
    assert_close(sums(kernels, dtype, parts), grad_x.astype(np.float64).sum(0))


@each_type
@from_hashes
@pytest.mark.parametrize(("samples", "tokens", "columns"), [(1, 1, 1), (1, 7, 8), (3, 5, 3), (2, 211, 24), (70, 9, 16)])
def test_bias_dropout_drop_path_and_residual(kernels, samples, tokens, columns, dtype, hashed):
    rest, x = (random(samples, tokens, columns, dtype=dtype, seed=seed) for seed in (0, 1))
    bias, factors = random(columns, dtype=dtype, seed=2), aligned(np.arange(3 * samples).astype(dtype) / samples)
    factors = factors.reshape(3, samples)
    given, drop, kept = masks(samples * tokens, columns, 0.4, 1.0, hashed=hashed)
    kept = kept.reshape(x.shape)
    of_samples = factors[1].astype(np.float64)[:, None, None]
    out = kernels("residual", rest, x, bias, factors, *given, **drop, layer=1)
    assert_close(out, rest + (x.astype(np.float64) + bias) * kept * of_samples)
    out = kernels("residual", rest, x, bias, ABSENT, *NO_MASKS, **NO_DROP, layer=0)
    assert_close(out, rest.astype(np.float64) + x + bias)

    grad_x, parts = kernels("residual_gradient", x, factors, *given, **drop, layer=1)
    assert_close(grad_x, x.astype(np.float64) * kept * of_samples)
    assert_close(sums(kernels, dtype, parts), grad_x.astype(np.float64).sum((0, 1)))


@each_type
@pytest.mark.parametrize(
    ("batch", "heads", "tokens", "padded", "width"),
    [(1, 1, 1, 1, 1), (2, 3, 5, 8, 8), (3, 2, 7, 7, 6), (1, 2, 1, 4, 3), (2, 2, 211, 216, 64)],
)
def test_heads(kernels, batch, heads, tokens, padded, width, dtype):
    columns, apart = heads * width, (batch, heads, padded, width)
    joined, bias = random(batch, tokens, 3 * columns, dtype=dtype), random(3 * columns, dtype=dtype, seed=1)
    each = kernels("split_heads", joined, bias, heads=heads, padded=padded)
    added = (joined.astype(np.float64) + bias).reshape(batch, tokens, 3, heads, width).transpose(2, 0, 3, 1, 4)
    for found, expected, scale in zip(each, added, (width**-0.5, 1, 1), strict=True):
        assert_close(found[:, :, :tokens], expected * scale)
        assert not found[:, :, tokens:].any()

    gradients = [random(*apart, dtype=dtype, seed=seed) for seed in (2, 3, 4)]
    grad_joined, parts = kernels("split_heads_gradient", *gradients, tokens=tokens)
    expected = np.stack([gradients[0] * float(width**-0.5), *gradients[1:]])[:, :, :, :tokens].astype(np.float64)
    assert_close(grad_joined, expected.transpose(1, 3, 0, 2, 4).reshape(joined.shape))
    assert_close(sums(kernels, dtype, parts), grad_joined.astype(np.float64).sum((0, 1)))

    merged = kernels("merge_heads", gradients[0], tokens=tokens)
    valid = gradients[0][:, :, :tokens]
    np.testing.assert_array_equal(merged, valid.transpose(0, 2, 1, 3).reshape(merged.shape))
    again = kernels("merge_heads_gradient", merged, heads=heads, padded=padded)
    np.testing.assert_array_equal(again[:, :, :tokens], valid)
    assert not again[:, :, tokens:].any()


@each_type
@pytest.mark.parametrize(
    ("tokens", "padded"),
    [
        *((1, 1), (1, 8), (7, 8), (7, 7), (32, 32), (211, 216), (211, 212), (300, 304)),
        *((MOST_TOKENS, MOST_TOKENS), (513, 520), (600, 600), (1030, 1030)),
    ],
)
def test_softmax(kernels, tokens, padded, dtype):
    """Rows and columns from `tokens` on are 0, whatever is there."""
    several = (2, 2) if padded < 600 else (1, 1)
    x, gradient = (random(*several, padded, padded, dtype=dtype, seed=seed) for seed in (0, 1))
    x *= 10
    x[:, :, tokens:], x[..., tokens:] = np.nan, np.nan
    y = kernels("softmax", x, tokens=tokens)
    valid = np.s_[:, :, :tokens, :tokens]
    powers = np.exp(x[valid].astype(np.float64) - x[valid].max(-1, keepdims=True))
    expected = powers / powers.sum(-1, keepdims=True)
    assert_close(y[valid], expected)
    y[valid] = 0
    assert not y.any()

    y[valid] = expected
    g, p = gradient.astype(np.float64), y.astype(np.float64)
    found = kernels("softmax_gradient", gradient, y, tokens=tokens)
    assert_close(found, (g - (g * p).sum(-1, keepdims=True)) * p)


def test_softmax_of_what_is_no_number(kernels):
    x = random(1, 1, 4, 4)
    x[0, 0, 0, 1], x[0, 0, 1, 2], x[0, 0, 2, 0] = np.nan, np.inf, -np.inf
    out = kernels("softmax", x, tokens=4)
    assert np.isnan(out[0, 0, :2]).all()
    assert out[0, 0, 2, 0] == 0
    np.testing.assert_allclose(out[0, 0, 2:].sum(-1), 1, rtol=1e-6)


def test_addresses_between_packs(kernels):
    """A tensor that does not begin at a multiple of 16 bytes is read one element at a time."""
    x, bias = random(9 * 16 + 1)[1:].reshape(9, 16), random(17, seed=1)[1:]
    assert_close(kernels("gelu", x, bias, *NO_MASKS, **NO_DROP), gelu(x.astype(np.float64) + bias))


def test_what_is_no_number_stays_where_it_is(kernels):
    x = random(9, 8)
    x[2, 3], x[4, 5], x[6, 7], x[0, 0] = np.nan, np.inf, -np.inf, 1e-40
    out = kernels("gelu", x, aligned(np.zeros(8, np.float32)), *NO_MASKS, **NO_DROP)
    assert np.isnan(out[2, 3])
    assert out[4, 5] == np.inf
    np.testing.assert_allclose(out[0, 0], 0.5e-40, rtol=1e-4)
    finite = np.isfinite(x)
    np.testing.assert_allclose(out[finite], gelu(x[finite].astype(np.float64)), atol=1e-6)


def test_the_same_bits_whatever_the_order_of_threads(kernels, monkeypatch):
    """Sums do not depend on which thread comes first: a missing barrier shows as another number."""
    gradient, x, bias = random(600, 40), random(600, 40, seed=1), random(40, seed=2)
    mean, scale = random(600, seed=3), random(600, seed=4)
    results = []
    for order in ("forward", "backward"):
        monkeypatch.setenv("STAND_IN_ORDER", order)
        of_gelu = kernels("gelu_gradient", gradient, x, bias, *NO_MASKS, **NO_DROP)
        of_norm = kernels("layer_norm_gradient", gradient, x, bias, mean, scale, ABSENT, ABSENT)
        added = sums(kernels, "float32", of_gelu[1], *of_norm[2:])
        results.append((*of_gelu, *of_norm, *added))
    for first, second in zip(*results, strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    ("network", "kernel"), [("ViT, 1028 columns", "layer_norm"), ("ViT, 530 tokens", "softmax")], ids=str
)
def test_a_vit_whose_rows_no_registers_hold(worker, network, kernel):
    assert worker.do("kernels_differ_by", network, []) < 2e-5
    launched = worker.do("launched")
    assert any(name.startswith(f"own {kernel}_long_float") for name in launched)
    assert any(name.startswith(f"own {kernel}_gradient_long_float") for name in launched)


@pytest.mark.parametrize(("network", "limit"), [("Bottleneck", 1e-5), ("NonLocal", 3e-5)])
def test_another_operators_statistics_are_taken(worker, network, limit):
    """Of several processes (train.sync_batch_norm), for one. A non-local block normalises a map of a variance of 0.003
    here, which magnifies rounding: in W's gradient MindSpore's own is 8e-6 from float64, the kernels' 1.4e-5."""
    assert worker.do("kernels_differ_by", f"other statistics, {network}", []) < limit


def test_tensors_that_are_not_as_declared_are_refused(kernels, capfd):
    x, bias, out = random(9, 16), random(16), empty(9, 16)
    tensors = {"x": x, "bias": bias, "masks": NO_MASKS, "out": out}
    wrong = {
        "tensor 2 is not T bias[columns]": {"bias": random(17)},
        "tensor 2 is not T bias[columns];": {"bias": random(16, dtype="float16")},
        "tensor 1 is not T x[rows.., columns]": {"x": ABSENT},
        "tensor 3 is not int noise?[rows.., unit]": {"masks": (random(9, 16), *NO_MASKS[1:])},
        "tensor 6 is not int multipliers?[columns / unit]": {"masks": (integers(9, 8), ABSENT, ABSENT, integers(3))},
        "tensor 7 is not T out[rows.., columns]": {"out": empty(8, 16)},
        "it takes 7 tensors, not 8": {"masks": (ABSENT,) * 5},
    }
    for message, others in wrong.items():
        x, bias, masks, out = (tensors | others).values()
        assert kernels.status("gelu", x, bias, *masks, out, **NO_DROP) != 0
        assert f"ms_vireid: operator gelu: {message}" in capfd.readouterr().err
    assert np.isnan(tensors["out"]).all()
    of_norm = x, x, random(16), random(9), random(9), ABSENT, ABSENT, empty(9, 16), empty(9, 16)
    assert kernels.status("layer_norm_gradient", *of_norm, empty(2, 16), empty(2, 16)) != 0
    assert "again or beta is absent, not both" in capfd.readouterr().err


def test_numbers_that_are_not_declared_are_refused(kernels):
    gelu = declarations.operators()["gelu"]
    with pytest.raises(TypeError, match=r"gelu takes \['limit', 'scale'\], not \['limit'\]"):
        gelu.flat({"limit": 1})
    with pytest.raises(TypeError, match="ratios has 9 numbers, more than RATIOS"):
        declarations.operators()["average_pools"].flat({"ratios": (1,) * 9})


def test_mindspore_knows_which_inputs_an_operator_writes(worker):
    """Of several tensors, too: it would copy the others, or read those too early."""
    averages = {"relu": 0, "eps": 1e-5, "momentum": 0.1, "widths": [2, 2, 2]}
    assert worker.do("written_inputs", "batch_norm", averages) == ["running_mean", "running_variance", "of 8"]
    scale = {"factor": 2.0, "window": 3, "counts": [1, 5]}
    assert worker.do("written_inputs", "adjust_scale", scale) == ["scale", "counter", "of 4"]


def test_an_operator_with_the_same_numbers_is_one(kernels, tmp_path):
    library = ctypes.CDLL(str(shutil.copy(kernels.path, tmp_path / "another.so")))

    def slot(*numbers):
        return library.declare(b"gelu", 2, (ctypes.c_double * 2)(*numbers))

    assert slot(3, 0.5) == slot(3, 0.5) != slot(4, 0.5)
    assert library.declare(b"glue", 0, None) < -1
    assert {slot(number, 0.25) for number in range(1000)} >= {-1, 999}
    assert slot(3, 0.5) >= 0


@each_type
@pytest.mark.parametrize(
    ("count", "widths"), [(1, (1,)), (5, (40, 3, 33)), (132, (768, 768, 2304)), (133, (1, 64, 7, 31, 32, 33, 2, 65))]
)
def test_sums_of_several_vectors(kernels, count, widths, dtype):
    each = [random(count, width, seed=seed) for seed, width in enumerate(widths)]
    added = sums(kernels, dtype, *each)
    for found, of in zip(added if len(each) > 1 else [added], each, strict=True):
        assert_close(found, of.astype(np.float64).sum(0))


def test_sums_of_other_shapes_or_too_many_are_refused(kernels, capfd):
    given = empty(1), random(5, 8), random(5, 7)
    for others in [(random(4, 7), empty(8), empty(7)), (given[2], empty(8), empty(8))]:
        assert kernels.status("sums", *given[:2], *others, widths=(8, 7)) != 0
        assert "ms_vireid: operator sums: tensor" in capfd.readouterr().err
    with pytest.raises(TypeError, match="widths has 9 numbers, more than VECTORS"):
        declarations.operators()["sums"].flat({"widths": (1,) * 9})


@pytest.mark.parametrize("shard", [(0, 1), (1, 2)])
@pytest.mark.parametrize(
    ("samples", "tokens", "rates"), [(2, 1, (0.0,)), (6, 5, (0.1, 0.0, 0.9)), (64, 211, (0.1,) * 24)]
)
def test_what_noise_starts_from(kernels, samples, tokens, rates, shard):
    """Hashed in uint32 by hand; limits and scales are tested with the models' `DropPath`."""
    constants = [aligned(each.asnumpy()) for each in noise_constants((samples, tokens, 8), rates, 0.2, shard)[:-1]]
    offsets, of_samples, limits, scales = constants
    for key in (0, 7, -(2**31), 2**31 - 1):
        rows, factors = kernels("draw_starts", aligned(np.array(key, np.int32)), *constants)
        hashes = murmur(offsets.view(np.uint32) + np.uint32(key & 0xFFFFFFFF))
        np.testing.assert_array_equal(rows.view(np.uint32), hashes[: samples * tokens])
        pairs = murmur(hashes[samples * tokens :][:, None] + of_samples.view(np.uint32))
        np.testing.assert_array_equal(factors, np.where(pairs.view(np.int32) >= limits, scales, 0))


def murmur(x):
    x = (x ^ x >> np.uint32(16)) * np.uint32(0x85EBCA6B)
    x = (x ^ x >> np.uint32(13)) * np.uint32(0xC2B2AE35)
    return x ^ x >> np.uint32(16)


NVRTC = "nvidia-cuda-nvrtc-cu11"
ENCODING = locale.getpreferredencoding()


@pytest.fixture(scope="module")
def nvrtc():
    """NVIDIA's own compiler, which needs no GPU."""
    found = next(file for file in metadata.files(NVRTC) if file.name == "libnvrtc.so.11.2")
    return Path(found.locate())


def test_nvidias_compiler_takes_the_kernels(nvrtc):
    """For the oldest GPUs that MindSpore covers, whose instructions the others have; no kernel asks which it is."""
    code, log = build.compiled(nvrtc, declarations.kernel_source(), "sm_60")
    assert code.startswith(b"\x7fELF")
    assert b"gelu_gradient_half_8" in code
    used = re.findall(r"Compiling entry function '(\w+)'.*?(\d+) bytes spill stores.*?Used (\d+) registers", log, re.S)
    print(*(f"{name}: {registers} registers, {spilled} bytes spilled" for name, spilled, registers in used), sep="\n")
    assert len(used) > 100
    assert all(int(spilled) == 0 for _, spilled, _ in used)
    assert locale.getpreferredencoding() == ENCODING


def test_what_does_not_compile_is_one_line(nvrtc):
    with pytest.raises(DeviceError, match=r"^NVRTC cannot compile the CUDA kernels \(.*\"x\" is undefined\)$"):
        build.compiled(nvrtc, "__global__ void kernel() { x; }", "sm_80")
