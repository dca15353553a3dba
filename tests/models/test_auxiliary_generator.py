"""The auxiliary generator: its equations against slow loops, and what it refuses."""

import re

import mindspore as ms
import numpy as np
import pytest
import torch

from ms_vireid.models import auxiliary_generator as mindspore_generator
from ms_vireid.models.auxiliary_generator import AuxiliaryGenerator, CrossModalityLearner, IntraModalityLearner
from parity.mapping import twins
from torch_ref.models import auxiliary_generator as torch_generator

from . import generator_loops

CHANNELS, RATIOS, SIZE = 4, (2, 3), (12, 6)


def values(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def shaken(cell, seed=0):
    """The cell in training mode with weights of its size but none special, and these in float64 by PyTorch's names."""
    rng = np.random.default_rng(seed)
    weights = {}
    for twin in twins(cell):
        value = twin.parameter.asnumpy()
        if twin.parameter.requires_grad:
            value = (value + (0.3 * value.std() or 0.2) * rng.normal(size=value.shape)).astype(np.float32)
            twin.parameter.set_data(ms.Tensor(value))
        weights[twin.torch_name] = value.astype(np.float64)
    cell.set_train()
    return weights


def assert_close(actual, expected, tolerance=1e-5):
    assert actual.shape == expected.shape
    assert np.isfinite(actual).all()
    error = np.abs(actual - expected).max() / np.abs(expected).max()
    assert error <= tolerance, f"error {error:.1e}"


@pytest.mark.parametrize("kernel_order", [(5, 7), (7, 5)])
@pytest.mark.parametrize("layer_scale", ["channel", "scalar"])
def test_the_intra_modality_learner_is_equations_1_to_5(kernel_order, layer_scale):
    cell = IntraModalityLearner(CHANNELS, 4, kernel_order, layer_scale)
    weights = shaken(cell)
    x = values(3, CHANNELS, *SIZE)
    assert_close(cell(ms.Tensor(x)).asnumpy(), generator_loops.intra(x.astype(np.float64), weights))
    assert cell.first.weight.shape[2:] == (kernel_order[0],) * 2
    assert cell.expand.weight.shape[:2] == (4 * CHANNELS, CHANNELS)
    assert cell.scale.shape == (1, CHANNELS if layer_scale == "channel" else 1, 1, 1)


def test_the_generator_is_both_learners_and_then_the_cross_modality_one():
    cell = AuxiliaryGenerator(2, 2, (5, 7), RATIOS)
    weights = shaken(cell)
    both = values(2, 2, 2, 6, 6)
    expected = generator_loops.generator(*both.astype(np.float64), RATIOS, weights)
    assert_close(cell(*map(ms.Tensor, both)).asnumpy(), expected)


def test_the_cross_modality_learner_is_equations_6_to_9():
    cell = CrossModalityLearner(CHANNELS, RATIOS)
    weights = shaken(cell)
    visible, infrared = values(2, 3, CHANNELS, *SIZE)
    result = cell(ms.Tensor(visible), ms.Tensor(infrared)).asnumpy()
    expected = generator_loops.cross(visible.astype(np.float64), infrared.astype(np.float64), RATIOS, weights)
    assert_close(result, expected)


@pytest.mark.parametrize(("size", "fitting"), [((32, 16), [144, 48]), ((72, 35), [288, 144]), ((6, 12), [48, 48])])
def test_sizes_that_the_ratios_do_not_divide_are_refused(size, fitting):
    maps = np.zeros((1, 2, *size), np.float32)
    message = f"feature maps of {size[0]}x{size[1]}; .* multiples of 48, as {re.escape(str(fitting))}"
    for learners, tensor in ((mindspore_generator, ms.Tensor), (torch_generator, torch.from_numpy)):
        with pytest.raises(ValueError, match=message):
            learners.CrossModalityLearner(2, (2, 4, 6, 12))(tensor(maps), tensor(maps))
