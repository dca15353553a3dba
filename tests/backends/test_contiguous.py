import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, ops

from ms_vireid.backends.contiguous import Contiguous


def parameters():
    random = np.random.default_rng(0)
    shapes = {"a": (3, 5), "b": (128,), "c": (2, 70)}
    return [Parameter(Tensor(random.normal(size=s).astype(np.float32)), name=name) for name, s in shapes.items()]


def test_parameters_lie_one_behind_the_other_with_zeros_between():
    held = parameters()
    given = [p.asnumpy().copy() for p in held]
    whole = Contiguous("whole", held).buffer.asnumpy()
    assert whole.shape == (128 + 128 + 256,)
    for start, p, value in zip((0, 128, 256), held, given, strict=True):
        assert np.array_equal(p.asnumpy(), value)
        assert np.array_equal(whole[start : start + value.size], value.ravel())
    assert not whole[15:128].any()
    assert not whole[256 + 140 :].any()


def test_what_is_written_to_one_is_seen_in_the_other():
    held = parameters()
    flat = Contiguous("whole", held)
    ops.assign(flat.buffer, Tensor(np.ones(512, np.float32)))
    assert all((p.asnumpy() == 1.0).all() for p in held)
    ops.assign(held[1], Tensor(np.full(128, 2.0, np.float32)))
    assert (flat.buffer.asnumpy()[128:256] == 2.0).all()
    assert (flat.buffer.asnumpy()[:128] == 1.0).all()


def test_gradients_are_joined_as_the_parameters_lie():
    held = parameters()
    gradients = tuple(Tensor(np.full(p.shape, i + 1, np.float16)) for i, p in enumerate(held))
    joined = Contiguous("whole", held).joined(gradients, ms.float32).asnumpy()
    assert joined.dtype == np.float32
    assert [int(joined[i]) for i in (0, 14, 15, 128, 255, 256, 395, 396)] == [1, 1, 0, 2, 2, 3, 3, 0]
