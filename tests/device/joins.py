"""Calls of functions that join and split tensors, of a [2, 3] and b [4, 3]; the backend `cuda` computes them otherwise.

Functions of a module: MindSpore's compiler does not tell lambdas of one expression apart. Of 150 tensors a launch takes
140.
"""

import mindspore as ms
from mindspore import ops

from ms_vireid.models import base, mun


def a_tuple(a, b):
    return ops.cat((a, b))


def a_list(a, b):
    return ops.cat([a, b])


def axis_minus_2(a, b):
    return ops.cat((a, b), -2)


def keyword_axis_minus_2(a, b):
    return ops.cat((a, b), axis=-2)


def axis_2(a, b):
    return ops.cat((a, b), 2)


def axis_minus_3(a, b):
    return ops.cat((a, b), -3)


def one(a, b):
    return ops.cat((a,))


def one_axis_minus_1(a, b):
    return ops.cat([b], axis=-1)


def other_lengths(a, b):
    return ops.cat((a, b), 1)


def other_ranks(a, b):
    return ops.cat((a, b[0]))


def an_empty_one(a, b):
    return ops.cat((ops.stop_gradient(a[:0]), b))


def only_empty_ones(a, b):
    return ops.cat((a[:0], b[:0]))


def many(a, b):
    return ops.cat((a, b) * 75)


def many_axis_1(a, b):
    return ops.cat([a] * 150, 1)


def integers(a, b):
    return ops.cat((a.astype(ms.int32), b.astype(ms.int32)))


def booleans(a, b):
    return ops.cat((a > 0, b > 0))


def mixed_types(a, b):
    return ops.cat((a, b.astype(ms.float16)))


def mixed_with_integers(a, b):
    return ops.cat((a.astype(ms.int32), b))


def scalars(a, b):
    return ops.cat((a[0, 0], b[0, 0]))


def a_selection(a, b):
    return ops.cat((a[a > 0], b[0]))


def stack(a, b):
    return ops.stack((a, b[:2]))


def stack_of_a_list(a, b):
    return ops.stack([a, b[:2]], axis=1)


def stack_axis_minus_1(a, b):
    return ops.stack((a, b[:2]), -1)


def stack_keyword_axis_minus_3(a, b):
    return ops.stack((a, b[:2]), axis=-3)


def stack_axis_3(a, b):
    return ops.stack((a, b[:2]), 3)


def stack_axis_minus_4(a, b):
    return ops.stack((a, b[:2]), -4)


def stack_of_one(a, b):
    return ops.stack((a,), 1)


def stack_of_scalars(a, b):
    return ops.stack((a[0, 0], b[0, 0]))


def stack_of_other_shapes(a, b):
    return ops.stack((a, b))


def stack_of_empty_ones(a, b):
    return ops.stack((a[:0], b[:0]))


def stack_of_integers(a, b):
    return ops.stack((a.astype(ms.int32), b[:2].astype(ms.int32)))


def stack_of_mixed_types(a, b):
    return ops.stack((a, b[:2].astype(ms.float16)))


def stack_of_many(a, b):
    return ops.stack([a] * 150, 1)


def parts(a, b):
    return ops.cat(mun.in_parts(b, 2)[::-1])


def unequal_parts(a, b):
    return ops.cat(mun.in_parts(b, 3)[::-1])


def one_part(a, b):
    return mun.in_parts(b, 4)[0]


def less_than_a_part(a, b):
    return mun.in_parts(a, 3)[0]


def parts_of_integers(a, b):
    return mun.in_parts(b.astype(ms.int32), 2)[1]


def modalities(a, b):
    return ops.cat(base.by_modality(b, 2)[::-1])


def modalities_three_parts(a, b):
    return ops.cat(base.by_modality(b[:3], 3)[::-1])


def modalities_of_integers(a, b):
    return base.by_modality(b.astype(ms.int32), 2)[1]


def unequal_modalities(a, b):
    return base.by_modality(b[:3], 2)[1]
