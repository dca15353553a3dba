"""Errors planted one at a time in the CUDA kernels: the ladder's gpu column must notice each. Those of kernels that
only trainings run are noticed by test_cuda_update.py and test_cuda_losses.py: a training takes minutes."""

from typing import NamedTuple

import pytest

from ms_vireid.backends.cuda import declarations
from tests.extensive import but

BLOCK = "2 Block with dropout and drop path"
WHOLE = "4 PMT small, gradients with dropout"


class Error(NamedTuple):
    """`wrong` stands for `right` in the kernels' source; a case of the ladder must notice."""

    right: str
    wrong: str
    case: str = BLOCK


PLANTED = {
    "the mask of another row": Error(
        "static_cast<long long>(number) * width", "static_cast<long long>(number / 2) * width"
    ),
    "GELU's gradient without the bias": Error(
        """float x = number(pack.v[j]) + bias[j];
        float slope""",
        """float x = number(pack.v[j]);
        float slope""",
    ),
    "a sum without a barrier": Error(
        "shared[threadIdx.y][threadIdx.x][j] = sums[j];\n  __syncthreads();",
        "shared[threadIdx.y][threadIdx.x][j] = sums[j];",
    ),
    "the gradient of queries without their scale": Error("number(pack.v[j]) * place.scale", "number(pack.v[j])"),
    "another sample's drop path": Error("a.samples + row / a.tokens", "a.samples + (row / a.tokens ^ 1)"),
    "another layer's drop path": Error("a.layer * a.samples + row", "(a.layer ^ 1) * a.samples + row", WHOLE),
    "a drop path of another key": Error(
        "mixed(a.offsets[a.rows + layer] + key)", "mixed(a.offsets[a.rows + layer])", WHOLE
    ),
    "noise of another layer's start": Error(
        "mixed(a.offsets[element] + key)", "mixed(a.offsets[element] ^ key)", WHOLE
    ),
    "a vector's gradient with the sums of another": Error("sum_column<T>(a.parts[k]", "sum_column<T>(a.parts[k & 6]"),
    "softmax's gradient of another row": Error("sum_warp(product);", "sum_warp(product) * 0.99f;"),
    "a softmax to which padded tokens count": Error(
        "Packs::column(i) + j < tokens ? expf", "Packs::column(i) < tokens ? expf", "2 Block, float16"
    ),
    "a LayerNorm's gradient without its second mean": Error("(s - sum - n * product) * scale", "(s - sum) * scale"),
    "noise of another row": Error("row_starts[number]", "row_starts[number / 2]", WHOLE),
    "a depth-wise gradient that is not flipped": Error(
        "a.flipped ? K * K - 1 - place : place", "place", "2 IntraModalityLearner, 7x7 first"
    ),
    "a depth-wise convolution of a row read backwards": Error(
        "of_row + x, stride", "of_row + a.width - 1 - x, stride", "2 IntraModalityLearner, 7x7 first"
    ),
    "a BatchNorm without the last place of a map": Error(
        "(first + (k) * strip.step < places)", "(first + (k) * strip.step < places - 1)", "2 Bottleneck"
    ),
    "a joined map that is read as the first": Error(
        "if (k == map) found", "if (k == 0) found", "2 CrossModalityLearner"
    ),
    "sums of one pack of channels for all": Error("totals[strip.column() + j]", "totals[j]", "2 Bottleneck"),
    "weights in the order of pictures": Error("shared[i % some * places + i / some]", "shared[i]", "2 Bottleneck"),
    "weights' gradients in the order of maps": Error(
        "shared[i % places * some + i / places]", "shared[i]", "2 Bottleneck"
    ),
    "a pooled place of another column": Error(
        "place % a.pooled_width * 2 - 1", "place / a.pooled_width * 2 - 1", "2 ResNet stem"
    ),
    "a line widened without its weight's square": Error(
        "weight * weight * moments.second", "weight * moments.second", "2 NonLocal, width 1"
    ),
    "a line's gradient without the mean of the map's": Error(
        "sum_warp(sum) - of_all.first", "sum_warp(sum)", "2 NonLocal, width 1"
    ),
    "a running variance that is biased": Error("count / (count - 1.0f)", "1.0f", "2 Bottleneck"),
    "an evaluation about variances": Error(
        "mean[j] = a.running_mean[strip.channel + j];",
        "mean[j] = a.running_variance[strip.channel + j];",
        "4 AGW small",
    ),
    "a BatchNorm's gradient that no ReLU stops": Error(
        "if (a.relu && !a.y && !of.passes(x[k].v[j], j)) g = 0;", "", "2 Bottleneck, projected"
    ),
    "a block's input that gets one of its gradients alone": Error(
        "number(gradient[k].v[j]) + number(again[k].v[j])", "number(gradient[k].v[j])", "4 AGW small, gradients"
    ),
    "a block's input that gets one gradient twice": Error(
        "number(gradient[k].v[j]) + number(again[k].v[j])", "2 * number(gradient[k].v[j])", "4 AGW small, gradients"
    ),
    "a non-local block's map that is not attended": Error(
        "rounded<T>(context * at<T>(a.theta, i))", "rounded<T>(at<T>(a.theta, i))", "2 NonLocal, width 1"
    ),
    "another gradient of a non-local block's product": Error(
        "grad_product * at<T>(a.g, i)", "context * at<T>(a.g, i)", "2 NonLocal, width 1"
    ),
    "a tensor joined where the next one begins": Error(
        "blockIdx.x) < a.ends", "blockIdx.x) <= a.ends", "5 AGW, six updates"
    ),
    "maps that are not split where they meet": Error(
        "unsigned rows = (column + offset) / width;", "unsigned rows = 0;", "2 IntraModalityLearner, 9x9 first"
    ),
    "halves of maps by each other's filters": Error(
        "half ? a.second : a.first", "half ? a.first : a.second", "2 IntraModalityLearner, 7x7 first"
    ),
    "filters with the gradient of the other half": Error(
        "static_cast<const T *>(a.grad_out) + first",
        "static_cast<const T *>(a.grad_out)",
        "2 IntraModalityLearner, 7x7 first",
    ),
    "a whole map's gradient with the sums of one channel": Error(
        "EACH(j, W) sums[j] = totals[j];\n  differentiate_by",
        "EACH(j, W) sums[j] = totals[0];\n  differentiate_by",
        "4 AGW small, gradients",
    ),
    "AdamW without the weights' decay": Error("+ decay * w), a)", "), a)", "5 PMT stage 1, six updates"),
    "a momentum that is not Nesterov's": Error("a.nesterov ?", "false ?", "5 AGW, six updates"),
    "distances whose gradient of y is not transposed": Error(
        "of_x ? i * a.m + j : j * a.m + i", "i * a.m + j", "3 hard triplet"
    ),
    "distances with the gradient of their squares": Error(
        "a.out[pair] == 0 ? 0 : a.grad_out[pair] / a.out[pair]", "2 * a.grad_out[pair]", "3 hct"
    ),
    "distances that take an extreme's gradient": Error(
        "a.values[start + c] == (positive ? of.furthest : of.nearest)", "true", "3 hard triplet"
    ),
    "a mean of all negatives for that of the nearer": Error(
        "(!below || values[c] < threshold)", "true", "3 dcl dynamic"
    ),
    "weights of WRT that are taken for constants": Error("(1 + d - of.furthest)", "1", "3 wrt"),
    "negatives of WRT with the weights of positives": Error("1 - d + of.nearest", "1 + d - of.nearest", "3 wrt"),
    "kernels of one width": Error("k++, rate /= 2", "k++", "3 ma"),
    "a layer scale with its gradient from another output": Error(
        "number(gradient.v[j]) * number(weight.v[j])", "number(gradient.v[j])", "2 CrossModalityLearner"
    ),
}

QUICK = {"GELU's gradient without the bias", "a sum without a barrier", "a momentum that is not Nesterov's"}
QUICK |= {"a pooled place of another column", "negatives of WRT with the weights of positives"}


@pytest.mark.parametrize("name", but(PLANTED.keys() - QUICK, PLANTED))
def test_an_error_in_the_kernels_is_noticed(worker, name):
    error = PLANTED[name]
    assert error.right in declarations.kernel_source()
    assert worker.do("run_case_by_kernels", error.case, error.right, error.wrong) != []


def test_the_kernels_are_right_again(worker):
    assert worker.do("run_case", BLOCK, "cuda") == []
