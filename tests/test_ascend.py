"""What replaces MindSpore's operators on an Ascend, here on a CPU with operators that compute the same."""

from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

from ms_vireid.models.auxiliary_generator import depthwise, transposed
from ms_vireid.models.layers import bn_neck, identity_classifier, pointwise
from ms_vireid.models.resnet import ResNet, batch_norm, convolution
from ms_vireid.models.vit import dense, layer_norm
from ms_vireid.programs import ascend


def normalised(x, shape, weight, bias, eps):
    return ops.LayerNorm(-1, -1, eps)(x, weight, bias)[0]


def conv2d(x, weight, bias, stride, padding, dilation, groups):
    return ops.conv2d(x, weight, bias, stride, "pad", padding, dilation, groups)


def conv_transpose2d(x, weight, bias, stride, padding, output_padding, groups):
    assert (bias, padding, output_padding, groups) == (None, 0, 0, 1)
    size = x.shape[0], weight.shape[1], stride[0] * x.shape[2], stride[1] * x.shape[3]
    return ops.Conv2DTranspose(weight.shape[1], weight.shape[2:], pad_mode="valid", stride=stride)(x, weight, size)


def max_pool2d(x, kernel_size, stride, padding):
    return ops.MaxPool3DWithArgmax((1, kernel_size, kernel_size), (1, stride, stride), (0, *padding))(
        ops.expand_dims(x, 2)
    )[0].squeeze(2)


def of_batch(x, mean, variance, weight, bias, training, momentum, eps):
    return ops.BatchNorm(training, eps, momentum)(x, weight, bias, mean, variance)[0]


# `mindspore.mint.nn.functional`, of which a CPU has little.
FUNCTIONAL = SimpleNamespace(
    layer_norm=normalised,
    linear=ops.dense,
    conv2d=conv2d,
    conv_transpose2d=conv_transpose2d,
    max_pool2d=max_pool2d,
    avg_pool2d=lambda x, kernel_size, stride: ops.AvgPool(kernel_size, stride)(x),
    batch_norm=of_batch,
)
CELLS = {
    "LayerNorm": (lambda: layer_norm(6), (4, 6)),
    "Dense": (lambda: dense(6, 5), (2, 3, 6)),
    "classifier": (lambda: identity_classifier(6, 5), (4, 6)),
    "convolution with a stride": (lambda: convolution(4, 6, 3, 2), (2, 4, 8, 6)),
    "convolution with a bias": (lambda: pointwise(4, 6), (2, 4, 8, 6)),
    "depth-wise convolution": (lambda: depthwise(4, 5), (2, 4, 8, 6)),
    "transposed convolution": (lambda: transposed(4, 2), (2, 4, 3, 2)),
    "MaxPool": (lambda: ResNet(width=4, stages=()).maxpool, (2, 4, 8, 6)),
    "AvgPool": (lambda: ascend.ready(nn.AvgPool2d(2, stride=2, pad_mode="valid")), (2, 4, 8, 6)),
    "BatchNorm": (lambda: batch_norm(4), (2, 4, 8, 6)),
    "BNNeck": (lambda: bn_neck(6), (4, 6)),
}


def outputs(cell, x):
    """The outputs in training and then in evaluation, and the running statistics in between."""
    found = [cell.set_train()(ms.Tensor(x)).asnumpy()]
    found += [parameter.asnumpy().copy() for parameter in cell.get_parameters()]
    return [*found, cell.set_train(False)(ms.Tensor(x)).asnumpy()]


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_that_is_ready_for_an_ascend_computes_the_same_with_its_own_weights(name, monkeypatch):
    build, shape = CELLS[name]
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    plain = build()
    monkeypatch.setattr(ascend, "functional", FUNCTIONAL)
    with monkeypatch.context() as on_ascend:
        on_ascend.setattr(ms, "get_context", {"device_target": "Ascend"}.get)
        ready = build()
    own, given = list(ready.get_parameters()), list(plain.get_parameters())
    assert [parameter.name for parameter in own] == [parameter.name for parameter in given]
    for parameter, value in zip(own, given, strict=True):
        parameter.set_data(ms.Tensor(value.asnumpy().copy()))
    assert type(ready).construct is not type(plain).construct or isinstance(ready, nn.BatchNorm1d | nn.BatchNorm2d)
    for actual, expected in zip(outputs(ready, x), outputs(plain, x), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", CELLS)
def test_elsewhere_a_cell_stays_as_it_is(name):
    cell = CELLS[name][0]()
    assert type(cell) not in ascend.READY.values()
    if isinstance(cell, nn.BatchNorm1d | nn.BatchNorm2d):
        assert isinstance(cell.bn_train, ops.BatchNorm)
