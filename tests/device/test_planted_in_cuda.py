"""Errors planted one at a time in the CUDA kernels: the ladder's gpu column must notice each. Those of kernels that
only trainings run are noticed by test_cuda_update.py and test_cuda_losses.py: a training takes minutes."""

import re

import pytest

from ms_vireid.backends.cuda import declarations

BLOCK = "2 Block with dropout and drop path"
WHOLE = "4 PMT small, gradients with dropout"
# What a kernel's source says, with @right=>wrong@ in it, by the case of the ladder that must notice.
ERRORS = {
    BLOCK: {
        "the mask of another row": "static_cast<long long>(number@=> / 2@) * width",
        "GELU's gradient without the bias": "float x = number(pack.v[j])@ + bias[j]=>@;\n        float slope",
        "a sum without a barrier": "shared[threadIdx.y][threadIdx.x][j] = sums[j];@\n  __syncthreads();=>@",
        "the gradient of queries without their scale": "number(pack.v[j])@ * place.scale=>@",
        "another sample's drop path": "a.samples + @row / a.tokens=>(row / a.tokens ^ 1)@",
        "a vector's gradient with the sums of another": "sum_column<T>(a.parts[k@=> & 6@]",
        "softmax's gradient of another row": "sum_warp(product)@=> * 0.99f@;",
        "a LayerNorm's gradient without its second mean": "(s - sum@ - n * product=>@) * scale",
    },
    WHOLE: {
        "another layer's drop path": "@a.layer=>(a.layer ^ 1)@ * a.samples + row",
        "a drop path of another key": "mixed(a.offsets[a.rows + layer]@ + key=>@)",
        "noise of another layer's start": "mixed(a.offsets[element] @+=>^@ key)",
        "noise of another row": "row_starts[number@=> / 2@]",
    },
    "2 Block, float16": {"a softmax to which padded tokens count": "Packs::column(i) @+ j =>@< tokens ? expf"},
    "2 IntraModalityLearner, 7x7 first": {
        "a depth-wise gradient that is not flipped": "@a.flipped ? K * K - 1 - place : =>@place",
        "a depth-wise convolution of a row read backwards": "of_row + @=>a.width - 1 - @x, stride",
        "halves of maps by each other's filters": "half ? a.@second : a.first=>first : a.second@",
        "filters with the gradient of the other half": "static_cast<const T *>(a.grad_out)@ + first=>@",
    },
    "2 Bottleneck": {
        "a BatchNorm without the last place of a map": "(first + (k) * strip.step < places@=> - 1@)",
        "sums of one pack of channels for all": "totals[@strip.column() + =>@j]",
        "weights in the order of pictures": "shared[i@ % some * places + i / some=>@]",
        "weights' gradients in the order of maps": "shared[i@ % places * some + i / places=>@]",
        "a running variance that is biased": "@count / (count - 1.0f)=>1.0f@",
    },
    "2 CrossModalityLearner": {
        "a joined map that is read as the first": "if (k == @map=>0@) found",
        "a layer scale with its gradient from another output": "number(gradient.v[j])@ * number(weight.v[j])=>@",
    },
    "2 ResNet stem": {"a pooled place of another column": "place @%=>/@ a.pooled_width * 2 - 1"},
    "2 NonLocal, width 1": {
        "a line widened without its weight's square": "weight * @weight * =>@moments.second",
        "a line's gradient without the mean of the map's": "sum_warp(sum)@ - of_all.first=>@",
        "a non-local block's map that is not attended": "rounded<T>(@context * =>@at<T>(a.theta, i))",
        "another gradient of a non-local block's product": "@grad_produc=>contex@t * at<T>(a.g, i)",
    },
    "4 AGW small": {"an evaluation about variances": "mean[j] = a.running_@mean=>variance@[strip.channel + j];"},
    "2 Bottleneck, projected": {
        "a BatchNorm's gradient that no ReLU stops": "@if (a.relu && !a.y && !of.passes(x[k].v[j], j)) g = 0;=>@"
    },
    "4 AGW small, gradients": {
        "a block's input that gets one of its gradients alone": "number(gradient[k].v[j])@ + number(again[k].v[j])=>@",
        "a block's input that gets one gradient twice": (
            "@number(gradient[k].v[j]) + number(again[k].v[j])=>2 * number(gradient[k].v[j])@"
        ),
        "a whole map's gradient with one channel's sums": "EACH(j, W) sums[j] = totals[@j=>0@];\n  differentiate_by",
    },
    "5 AGW, six updates": {
        "a tensor joined where the next one begins": "blockIdx.x) <@=>=@ a.ends",
        "a momentum that is not Nesterov's": "@a.nesterov=>false@ ?",
    },
    "2 IntraModalityLearner, 9x9 first": {
        "maps that are not split where they meet": "unsigned rows = @(column + offset) / width=>0@;"
    },
    "5 PMT stage 1, six updates": {"AdamW without the weights' decay": "@+ decay * w=>@), a)"},
    "3 hard triplet": {
        "distances whose gradient of y is not transposed": "@of_x ? i * a.m + j : j * a.m + i=>i * a.m + j@",
        "an extreme's gradient for all": "@a.values[start + c] == (positive ? of.furthest : of.nearest)=>true@",
    },
    "3 hct": {
        "distances with the gradient of squares": "@a.out[pair] == 0 ? 0 : a.grad_out[pair] / a.=>2 * a.grad_@out[pair]"
    },
    "3 dcl dynamic": {"a mean of all negatives for that of the nearer": "@(!below || values[c] < threshold)=>true@"},
    "3 wrt": {
        "weights of WRT that are taken for constants": "@(1 + d - of.furthest)=>1@",
        "negatives of WRT with the weights of positives": "1 @- d +=>+ d -@ of.nearest",
    },
    "3 ma": {"kernels of one width": "k++@, rate /= 2=>@"},
}
PLANTED = {name: (case, text) for case, errors in ERRORS.items() for name, text in errors.items()}


@pytest.mark.parametrize("name", PLANTED)
def test_an_error_in_the_kernels_is_noticed(worker, name):
    case, text = PLANTED[name]
    right, wrong = (re.sub("@(.*?)=>(.*?)@", rf"\{number}", text, flags=re.DOTALL) for number in (1, 2))
    assert right in declarations.kernel_source()
    assert worker.do("run_case_by_kernels", case, right, wrong) != []


def test_the_kernels_are_right_again(worker):
    assert worker.do("run_case", BLOCK, "cuda") == []
