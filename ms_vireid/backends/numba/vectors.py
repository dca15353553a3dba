"""Loops over a few vectors that stay in registers, written for LLVM: what Numba makes of them in Python goes through
memory, number by number."""

from collections.abc import Callable
from functools import wraps

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_HAS = llvm.get_host_cpu_features()
LANES = 16 if _HAS.get("avx512f") else 8 if _HAS.get("avx") else 4  # numbers of a register
_VECTORS = 3
ROWS = 4 if _HAS.get("sse2") and LANES < 16 else 8  # 16 registers of x86 without AVX-512, else 32
COLUMNS = _VECTORS * LANES  # ROWS and COLUMNS of a tile, which with its operands takes all registers

_number, _lane = ir.IntType(64), ir.IntType(32)


class _Code:
    """What an intrinsic computes, instruction by instruction."""

    def __init__(self, context, builder, signature, arguments):
        self.builder, self._context = builder, context
        self._types = {id(value): of for value, of in zip(arguments, signature.args, strict=True)}

    def place(self, array: ir.Value, at: ir.Value) -> ir.Value:
        """The address of an element of an argument."""
        of = self._context.make_array(self._types[id(array)])
        return self.builder.gep(of(self._context, self.builder, array).data, [at])

    def offset(self, at: ir.Value, step: ir.Value | int, times: int) -> ir.Value:
        step = _number(step) if isinstance(step, int) else step
        return self.builder.add(at, self.builder.mul(step, _number(times)))

    def load(self, place: ir.Value, at: ir.Value | int = 0, lanes: int = LANES) -> ir.Value:
        return self.builder.load(self._vector(place, at, lanes), align=4)

    def store(self, value: ir.Value, place: ir.Value, at: ir.Value | int = 0) -> None:
        self.builder.store(value, self._vector(place, at, value.type.count), align=4)

    def _vector(self, place, at, lanes):
        at = _number(at) if isinstance(at, int) else at
        return self.builder.bitcast(self.builder.gep(place, [at]), ir.VectorType(ir.FloatType(), lanes).as_pointer())

    def spread(self, value: ir.Value) -> ir.Value:
        one = self.builder.insert_element(ir.Constant(ir.VectorType(value.type, LANES), ir.Undefined), value, _lane(0))
        return self.shuffle(one, one, [0] * LANES)

    def spread_at(self, place: ir.Value, m: int) -> ir.Value:
        return self.spread(self.builder.load(self.builder.gep(place, [_number(m)])))

    def shuffle(self, one: ir.Value, other: ir.Value, lanes: list[int]) -> ir.Value:
        return self.builder.shuffle_vector(one, other, ir.Constant(ir.VectorType(_lane, len(lanes)), lanes))

    def fused(self, one: ir.Value, other: ir.Value, total: ir.Value) -> ir.Value:
        """one * other + total, rounded once where the processor can."""
        of = ir.FunctionType(total.type, [total.type] * 3)
        function = cgutils.get_or_insert_function(self.builder.module, of, f"llvm.fmuladd.v{LANES}f32")
        return self.builder.call(function, [one, other, total])

    def raised(self, value: ir.Value, floor: ir.Value) -> ir.Value:
        """At least the floor; NaN stays."""
        floor = self.spread(floor)
        return self.builder.select(self.builder.fcmp_ordered("<", value, floor), floor, value)

    def load_inside(self, place: ir.Value, at: ir.Value, size: ir.Value, valid: ir.Value) -> ir.Value:
        """What a vector holds of `size` numbers, from the one at `at` on, 0 for others; 0 throughout unless `valid`."""
        builder, lanes = self.builder, ir.Constant(ir.VectorType(_lane, LANES), list(range(LANES)))
        start, end = (self.spread(builder.trunc(one, _lane)) for one in (at, size))
        inside = builder.icmp_unsigned("<", builder.add(start, lanes), end)
        inside = builder.and_(inside, self.spread(valid))
        address, zero = self._vector(place, at, LANES), ir.Constant(ir.VectorType(ir.FloatType(), LANES), [0.0] * LANES)
        of = ir.FunctionType(zero.type, [address.type, _lane, inside.type, zero.type])
        function = cgutils.get_or_insert_function(builder.module, of, f"llvm.masked.load.v{LANES}f32.p0v{LANES}f32")
        return builder.call(function, [address, _lane(4), inside, zero])


def _vectorised(function: Callable) -> Callable:
    """Make function(code, *values) a function of the values that compiled code calls."""

    def generate(context, builder, signature, arguments):
        function(_Code(context, builder, signature, arguments), *arguments)
        return context.get_dummy_value()

    @intrinsic
    @wraps(function)
    def typed(_context, *values):
        return types.void(*values), generate

    return typed


@_vectorised
def copy(code, source, at, target, to):
    """target[to + i] = source[at + i] for i < LANES."""
    code.store(code.load(code.place(source, at)), code.place(target, to))


@_vectorised
def pixels(code, flat, at, size, start, twice, valid, out, to):
    """out[to + i] for i < LANES: of the `size` numbers from flat[at] on that of place start + i, or start + 2 * i if
    `twice`; 0 for a place outside, and throughout unless `valid`."""
    place, to = code.place(flat, at), code.place(out, to)
    first = code.load_inside(place, start, size, valid)
    with code.builder.if_else(twice) as (then, otherwise):
        with then:
            second = code.load_inside(place, code.builder.add(start, _number(LANES)), size, valid)
            code.store(code.shuffle(first, second, list(range(0, 2 * LANES, 2))), to)
        with otherwise:
            code.store(first, to)


@_vectorised
def tile(code, left, down, along, last, right, start, count, slope, offset, row, added, adds, floor, y, at, step):
    """y[at + m * step + n] for all m < ROWS and n < COLUMNS: the sum of left[(row + m) * down + k * along] *
    right[start + k * COLUMNS + n] over k < count, times slope[row + m], plus offset[row + m], plus
    added[at + m * step + n] if `adds`, raised to the floor. Rows of `left` after the last one are that one."""
    builder = code.builder
    rows = [builder.add(row, _number(m)) for m in range(ROWS)]
    rows = [builder.select(builder.icmp_signed("<", one, last), one, last) for one in rows]
    left = [code.place(left, builder.mul(one, down)) for one in rows]
    right, slope, offset = code.place(right, start), code.place(slope, row), code.place(offset, row)
    added, y = code.place(added, at), code.place(y, at)
    zero = ir.Constant(ir.VectorType(ir.FloatType(), LANES), [0.0] * LANES)
    sums = [[cgutils.alloca_once_value(builder, zero) for _ in range(_VECTORS)] for _ in range(ROWS)]
    with cgutils.for_range(builder, count) as loop:
        place = builder.mul(loop.index, along)
        from_right = builder.gep(right, [builder.mul(loop.index, _number(COLUMNS))])
        numbers = [code.load(from_right, v * LANES) for v in range(_VECTORS)]
        for m in range(ROWS):
            factor = code.spread(builder.load(builder.gep(left[m], [place])))
            for v in range(_VECTORS):
                builder.store(code.fused(factor, numbers[v], builder.load(sums[m][v])), sums[m][v])
    for m in range(ROWS):
        factor, plus = code.spread_at(slope, m), code.spread_at(offset, m)
        for v in range(_VECTORS):
            place = code.offset(_number(v * LANES), step, m)
            total = code.fused(builder.load(sums[m][v]), factor, plus)
            builder.store(total, sums[m][v])
            with builder.if_then(adds):
                builder.store(builder.fadd(total, code.load(added, place)), sums[m][v])
            code.store(code.raised(builder.load(sums[m][v]), floor), y, place)


# Winograd's minimal filtering F(2x2, 3x3) (Lavin & Gray 2016): y = A' [(G w G') * (B' x B)] A for each tile of 2x2
# outputs, where * is, over all tiles and channels, 16 matrix products: 2.25 times fewer multiplications.


@_vectorised
def filters(code, weight, at, along, step, last, out, to, apart):
    """G w G' of ROWS filters of 3 x 3 numbers, weight[at + m * step + i * along], that from `last` on are the same one:
    into out[to + number * apart + m]."""
    builder = code.builder
    half = ir.Constant(ir.VectorType(ir.FloatType(), ROWS), [0.5] * ROWS)
    rows = [builder.select(builder.icmp_signed("<", _number(m), last), _number(m), last) for m in range(ROWS)]
    starts = [code.place(weight, builder.add(at, builder.mul(row, step))) for row in rows]

    def number(i, j):
        value = ir.Constant(half.type, ir.Undefined)
        for m, start in enumerate(starts):
            one = builder.load(builder.gep(start, [builder.mul(along, _number(3 * i + j))]))
            value = builder.insert_element(value, one, _lane(m))
        return value

    def transform(first, second, third):
        both = builder.fadd(first, third)
        ends = builder.fadd(both, second), builder.fsub(both, second)
        return first, *(builder.fmul(half, end) for end in ends), third

    columns = [transform(*(number(i, j) for i in range(3))) for j in range(3)]
    for k in range(4):
        for place, value in enumerate(transform(*(columns[j][k] for j in range(3)))):
            code.store(value, code.place(out, code.offset(to, apart, 4 * k + place)))


@_vectorised
def tiles(code, flat, at, lines, length, line, column, out, to, apart):
    """B' x B of LANES tiles, two columns apart, from a line and a column on, of a plane of `lines` x `length` numbers
    that begins at flat[at] and has zeros around it: into out[to + number * apart]."""
    builder = code.builder
    even, odd = list(range(0, 2 * LANES, 2)), list(range(1, 2 * LANES, 2))

    def transform(first, second, third, fourth):
        of = builder.fsub, builder.fadd, builder.fsub, builder.fsub
        pairs = (first, third), (second, third), (third, second), (second, fourth)
        return [compute(*pair) for compute, pair in zip(of, pairs, strict=True)]

    rows = []
    for i in range(4):
        row = builder.add(line, _number(i))
        place = code.place(flat, builder.add(at, builder.mul(row, length)))
        valid = builder.icmp_unsigned("<", row, lines)
        starts = ((builder.add(column, _number(j + part)) for part in (0, LANES)) for j in (0, 2))
        pairs = [[code.load_inside(place, start, length, valid) for start in pair] for pair in starts]
        rows.append([code.shuffle(*pairs[j // 2], odd if j % 2 else even) for j in range(4)])
    columns = [transform(*(rows[i][j] for i in range(4))) for j in range(4)]
    for k in range(4):
        for place, value in enumerate(transform(*(columns[j][k] for j in range(4)))):
            code.store(value, code.place(out, code.offset(to, apart, 4 * k + place)))


@_vectorised
def untile(code, products, at, apart, slope, offset, row, floor, out, to, down):
    """A' m A of LANES tiles, their numbers products[at + number * apart], times slope[row], plus offset[row], raised to
    the floor: two rows of 2 * LANES numbers, `down` apart, into out[to:]."""
    builder = code.builder
    factor, plus = (code.spread(builder.load(code.place(one, row))) for one in (slope, offset))

    def transform(first, second, third, fourth):
        return (builder.fadd(builder.fadd(first, second), third), builder.fsub(builder.fsub(second, third), fourth))

    numbers = [code.load(code.place(products, code.offset(at, apart, number))) for number in range(16)]
    columns = [transform(*numbers[k::4]) for k in range(4)]
    for i in range(2):
        values = transform(*(columns[k][i] for k in range(4)))
        pair = [code.raised(code.fused(value, factor, plus), floor) for value in values]
        place = code.place(out, code.offset(to, down, i))
        for part in (0, LANES // 2):
            order = [lane + other for lane in range(part, part + LANES // 2) for other in (0, LANES)]
            code.store(code.shuffle(*pair, order), place, 2 * part)
