"""The CUDA kernels that join tensors and split one, launched as by MindSpore, against NumPy: bit by bit."""

import numpy as np
import pytest

from tests.device.cuda_kernels import aligned, each_type, empty, random

ALIGNED = 128
# Shapes of the tensors, and the axis along which they are joined.
PIECES = {
    "one": ([(7, 211)], 1),
    "elements": ([(1,), (7,), (211,)], 0),
    "rows of packs": ([(3, 8), (3, 264), (3, 16)], 1),
    "odd rows": ([(5, 7), (5, 1), (5, 211)], 1),
    "narrow": ([(700, 1), (700, 2)], 1),
    "class token": ([(2, 1, 24), (2, 21, 24)], 1),
    "halves of maps": ([(3, 4, 6, 5), (3, 4, 6, 5)], 1),
    "modalities": ([(2, 3, 4, 4), (1, 3, 4, 4), (2, 3, 4, 4)], 0),
    "several blocks": ([(2, 9000), (2, 5001)], 1),
    "a long and a short": ([(40001,), (3,)], 0),
    "nothing": ([(3, 0), (3, 5), (3, 0)], 1),
    "more than a launch takes": ([(1 + i % 5,) for i in range(300)], 0),
}
each_case = pytest.mark.parametrize("case", PIECES)


def numbered(shapes, dtype):
    return [random(*shape, dtype=dtype, seed=i) for i, shape in enumerate(shapes)]


@each_type
@each_case
def test_joined_and_split_again(kernels, case, dtype):
    shapes, axis = PIECES[case]
    pieces = numbered(shapes, dtype)
    expected = np.concatenate(pieces, axis)
    joined = empty(*expected.shape, dtype=dtype)
    kernels.run("join", *pieces, joined, axis=axis)
    np.testing.assert_array_equal(joined, expected)
    again = [empty(*shape, dtype=dtype) for shape in shapes]
    kernels.run("split", joined, *again, axis=axis)
    for found, piece in zip(again, pieces, strict=True):
        np.testing.assert_array_equal(found, piece)


@pytest.mark.parametrize(("dtype", "joined_type"), [("float32",) * 2, ("float16",) * 2, ("float16", "float32")])
def test_aligned_with_zeros_between(kernels, dtype, joined_type):
    shapes = [(1,), (7, 3), (ALIGNED,), (), (5, 4, 3, 3), (0,), (9001,), *[(2 + i % 7,) for i in range(300)]]
    pieces = numbered(shapes, dtype)
    rows = [np.pad(piece.reshape(-1), (0, -piece.size % ALIGNED)) for piece in pieces]
    joined = empty(sum(map(len, rows)), dtype=joined_type)
    kernels.run("join_aligned" if dtype == joined_type else "join_aligned_as_float", *pieces, joined)
    np.testing.assert_array_equal(joined, np.concatenate(rows).astype(joined_type))


@each_type
def test_addresses_between_packs(kernels, dtype):
    """Tensors that do not begin at a multiple of 16 bytes, on either side."""
    pieces = [random(41, dtype=dtype)[1:], random(40, dtype=dtype, seed=1)]
    for joined in (empty(80, dtype=dtype), empty(81, dtype=dtype)[1:]):
        kernels.run("join", *pieces, joined, axis=0)
        np.testing.assert_array_equal(joined, np.concatenate(pieces))


@each_type
def test_nothing_beside_a_piece_is_written(kernels, dtype):
    memory, pieces = empty(1 + 3 * 11 + 9, dtype=dtype), numbered([(3, 7), (3, 4)], dtype)
    joined = memory[1:34].reshape(3, 11)
    kernels.run("join", *pieces, joined, axis=1)
    np.testing.assert_array_equal(joined, np.concatenate(pieces, 1))
    assert np.isnan(memory[[0, *range(34, 43)]]).all()


@each_type
def test_offsets_beyond_two_gib(kernels, dtype):
    """Rows of a whole that far apart, of which the tensors have the first columns alone."""
    columns = 2**31 // np.dtype(dtype).itemsize + 24
    whole = np.empty((3, columns), dtype)  # the host has memory for what is written
    pieces = numbered([(3, 16), (3, 5)], dtype)
    kernels.run("join", *pieces, whole, axis=1)
    np.testing.assert_array_equal(whole[:, :21], np.concatenate(pieces, 1))
    again = [empty(*piece.shape, dtype=dtype) for piece in pieces]
    kernels.run("split", whole, *again, axis=1)
    for found, piece in zip(again, pieces, strict=True):
        np.testing.assert_array_equal(found, piece)


def test_bits_stay(kernels):
    """Of what is no number, too, and of integers."""
    bits = aligned(np.array([0x7FC12345, 0xFF800001, 0x80000000, 1, 0x7F800000], np.uint32))
    joined = empty(10)
    kernels.run("join", bits.view(np.float32), bits.view(np.float32), joined, axis=0)
    np.testing.assert_array_equal(joined.view(np.uint32), np.tile(bits, 2))
