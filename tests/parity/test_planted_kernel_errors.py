"""Errors planted one at a time in a CPU kernel: the kernel's case of the ladder must fail, in the kernels' column
alone, and the trace of a model names the first layer that has it."""

import numpy as np
import pytest

from ms_vireid.backends.numba import feature_maps, generator, normalisation, optimizer, pooling, products, transformer
from ms_vireid.backends.numba.base import Compiled, memory
from parity.cases import LADDER, run
from parity.harness import trace
from parity.rungs.models import MODELS


def planted(module, name):
    """What it decorates gets a kernel and then what the kernel is called with."""

    def decorate(wrong):
        def plant(patch):
            original = getattr(module, name)
            patch.setattr(module, name, lambda *arguments: wrong(original, *arguments))

        plant.__name__ = wrong.__name__
        return plant

    return decorate


@planted(transformer, "_layer_norm")
def layer_norm_eps(original, rows, x, gamma, beta, eps, y):
    original(rows, x, gamma, beta, np.float32(0.1) * eps, y)


@planted(transformer, "_softmax")
def softmax_without_its_maximum(_original, _rows, x, scale):
    with np.errstate(over="ignore", invalid="ignore"):
        np.exp(x * scale, out=x)
        x /= x.sum(axis=1, keepdims=True)


@planted(transformer, "_gelu")
def tanh_gelu(_original, _size, x, y):
    y[:] = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


@planted(transformer, "_dropout")
def unscaled_dropout(original, rows, x, noise, multipliers, limit, _scale, y):
    original(rows, x, noise, multipliers, limit, np.float32(1), y)


@planted(transformer, "_times")
def path_of_another_sample(original, samples, x, factors, y):
    original(samples, x, np.roll(factors, 1), y)


@planted(pooling, "_max_pool_gradient")
def gradient_to_the_upper_left(_original, _planes, x, y, gradient, grad_x):
    grad_x[:] = 0
    grad_x[:, ::2, ::2] = gradient


@planted(transformer, "_column_sums")
def gradient_of_too_few_rows(original, blocks, x, sums):
    original(blocks, x[:-1], sums)


@planted(products, "_multiply_tiles")
def last_tile_not_cut_off(original, *given):
    original(*given)
    y = given[-1]
    y[:, :, -1] = y[:, :, -2]


@planted(products, "_multiply")
def shortcut_forgotten(original, *given):
    *others, finish, y = given
    original(*others, finish._replace(adds=False), y)


@planted(products, "_multiply")
def border_repeated(original, *given):
    original(*given)
    *_, windows, _finish, y = given
    if windows.border:  # the first row of windows sees zeros above the picture
        maps = y.reshape(len(y), -1, windows.rows, windows.columns)
        maps[:, :, 0] = maps[:, :, 1]


@planted(generator, "_add_pooled")
def average_not_divided(original, planes, grad_pooled, ratio, grad_x):
    original(planes, ratio * ratio * grad_pooled, ratio, grad_x)


@planted(optimizer, "_sgd")
def momentum_not_nesterovs(original, *given):
    original(*given[:-1], False)


@planted(optimizer, "_adamw")
def adamw_without_decay(original, *given):
    original(*given[:-1], np.float32(0))


@planted(Compiled, "backward")
def half_the_losss_gradient(original, context, gradient, *others):
    return original(context, 0.5 * gradient, *others)


def fork_forgets_a_branch(patch):
    forgetful = staticmethod(lambda _ctx, first, *_others: (first, None))
    patch.setattr(feature_maps.Fork, "backward", forgetful)


def biased_running_variance(patch):
    original = normalisation.BatchNorm.forward

    def biased(ctx, x, gamma, beta, shortcut, moving, eps, momentum, training, relu):
        variance = memory(moving[1])
        before, count = variance.copy(), x.size // x.shape[1]
        y = original(ctx, x, gamma, beta, shortcut, moving, eps, momentum, training, relu)
        if training:
            unbiased = before + (variance - before) / momentum
            variance[:] = before + momentum * (unbiased * (count - 1) / count - before)
        return y

    patch.setattr(normalisation.BatchNorm, "forward", staticmethod(biased))


PLANTED = [
    (layer_norm_eps, "2 LayerNorm", "output 0"),
    (softmax_without_its_maximum, "2 Attention with large scores", "output 0"),
    (tanh_gelu, "2 GELU", "output 0"),
    (unscaled_dropout, "2 Dropout", "output 0"),
    (path_of_another_sample, "2 DropPath", "output 0"),
    (gradient_to_the_upper_left, "2 ResNet stem", "gradient of input 0"),
    (gradient_of_too_few_rows, "2 Linear", "gradient of bias"),
    (last_tile_not_cut_off, "2 3x3 convolution, 64 channels", "output 0"),
    (border_repeated, "2 Bottleneck", "output 0"),
    (fork_forgets_a_branch, "2 Bottleneck", "gradient of input 0"),
    (biased_running_variance, "2 BatchNorm", "buffer running_var"),
    (shortcut_forgotten, "4 AGW small", "output 0"),
    (average_not_divided, "2 CrossModalityLearner", "gradient of input 0"),
    (adamw_without_decay, "5 PMT stage 1, six updates", "after update 1 base.cls_token"),
    (half_the_losss_gradient, "3 terms on their features", "gradient of logits"),
    (momentum_not_nesterovs, "5 AGW, six updates", "after update 1 visible_stem.conv1.weight"),
]


@pytest.mark.parametrize(
    ("plant", "named", "tensor"), PLANTED, ids=lambda value: value.__name__ if callable(value) else ""
)
def test_the_kernels_case_fails_in_their_column_alone(monkeypatch, plant, named, tensor):
    plant(monkeypatch)
    outcome = run(next(case for case in LADDER if str(case) == named), ["numba", "eager", "graph"])
    assert outcome.over == ("numba",)
    assert outcome.decisive("numba").tensor == tensor


def first_layer(pair, inputs, training, backend):
    """The first layer over the limit."""
    return next((c.tensor for c in trace(pair, inputs, training)(backend) if not c.passed), None)


@pytest.mark.parametrize(
    ("plant", "model", "layer"),
    [
        (layer_norm_eps, "PMT small", "base.blocks.0.norm1"),
        (tanh_gelu, "PMT small", "base.blocks.0.mlp.act"),
        (last_tile_not_cut_off, "AGW small", "base.layer4.0.conv2"),
    ],
    ids=["layer_norm_eps", "tanh_gelu", "last_tile_not_cut_off"],
)
def test_the_trace_names_the_first_layer_with_it(monkeypatch, plant, model, layer):
    plant(monkeypatch)
    inputs = MODELS[model].images(), "visible"
    pair = MODELS[model].pair()
    assert first_layer(pair, inputs, False, "eager") is None
    assert first_layer(pair, inputs, False, "numba") == f"output of {layer}"


def test_the_trace_of_training_names_the_first_dropout(monkeypatch):
    unscaled_dropout(monkeypatch)
    model = MODELS["PMT small"]
    pair = model.pair(stochastic=True)
    assert first_layer(pair, model.training_inputs(), True, "eager") is None
    assert first_layer(pair, model.training_inputs(), True, "numba") == "output of base.pos_drop"


def test_a_models_gradients_name_the_first_weight_whose_gradient_misses_rows(monkeypatch):
    gradient_of_too_few_rows(monkeypatch)
    case = next(case for case in LADDER if str(case) == "4 PMT small, gradients")
    outcome = run(case, ["eager", "numba"])
    assert outcome.over == ("numba",)
    assert outcome.decisive("numba").tensor == "gradient of base.blocks.0.attn.qkv.bias"
