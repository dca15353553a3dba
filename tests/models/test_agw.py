import mindspore as ms
import numpy as np
import pytest
import torch
from mindspore import Tensor

from ms_vireid.models import AGW, create_model
from ms_vireid.models.agw import NonLocal
from ms_vireid.models.pretrained import torchvision_name
from torch_ref.models import create_model as torch_create_model
from torch_ref.models.agw import NonLocal as TorchNonLocal

SMALL = {"layers": (1, 2, 2, 1), "width": 8, "non_local": (0, 1, 2, 0)}

# Shifts that the next normalisation takes back, in its stage or at the beginning of the next one: their gradients are
# rounding alone.
UNDONE = ("W.0.bias", "non_local_2.0.W.1.beta", "non_local_3.1.W.1.beta")


def images(count, size=(64, 32), seed=0):
    return np.random.default_rng(seed).standard_normal((count, 3, *size)).astype(np.float32)


def small(**changes):
    ms.set_seed(0)
    return create_model("agw_resnet50", 5, **SMALL | changes)


def test_parameters_are_named_by_stem_shared_network_attention_and_head():
    names = {name for name in small().parameters_dict() if not name.startswith("base.")}
    norm = {"gamma", "beta", "moving_mean", "moving_variance"}
    expected = {f"bottleneck.{n}" for n in norm} | {"classifier.weight"}
    for stem in ("visible_stem", "infrared_stem"):
        expected |= {f"{stem}.conv1.weight"} | {f"{stem}.bn1.{n}" for n in norm}
    for block in ("non_local_2.0", "non_local_3.0", "non_local_3.1"):
        expected |= {f"{block}.{c}.{n}" for c in ("g", "theta", "phi", "W.0") for n in ("weight", "bias")}
        expected |= {f"{block}.W.1.{n}" for n in norm}
    assert names == expected


def test_the_shared_network_has_torchvisions_names_without_a_stem():
    names = [name for name in small().parameters_dict() if name.startswith("base.")]
    assert names[0] == "base.layer1.0.conv1.weight"
    assert {"base.layer4.0.downsample.0.weight", "base.layer3.1.bn2.gamma"} <= set(names)


def test_attention_follows_the_last_two_blocks_of_layer2_and_the_last_three_of_layer3():
    shared = AGW(5, width=4).shared
    places = [i for i, cell in enumerate(shared) if isinstance(cell, NonLocal)]
    # After 3 blocks of layer1: 2, then block 3, attention, block 4, attention; of layer3 3, then three such pairs.
    assert places == [3 + 3, 3 + 5, 9 + 4, 9 + 6, 9 + 8]
    assert len(shared) == 3 + 4 + 6 + 3 + 5


def test_more_attention_than_blocks_is_refused():
    with pytest.raises(ValueError, match="non_local"):
        AGW(5, layers=(1, 1, 1, 1))


def non_local_by_loop(cell, x):
    """z_i = W(sum_j theta(x_i) . phi(x_j) g(x_j) / L) + x_i, position by position, float64."""

    def apply(convolution, vector):
        weight = convolution.weight.asnumpy()[:, :, 0, 0].astype(np.float64)
        return weight @ vector + convolution.bias.asnumpy()

    norm = cell.W[1]
    scale = norm.gamma.asnumpy() / np.sqrt(norm.moving_variance.asnumpy().astype(np.float64) + 1e-5)
    z = np.empty(x.shape)
    rows, columns = x.shape[2:]
    positions = [(r, c) for r in range(rows) for c in range(columns)]
    for n in range(len(x)):
        for i in positions:
            y = 0.0
            for j in positions:
                f = apply(cell.theta, x[(n, slice(None), *i)]) @ apply(cell.phi, x[(n, slice(None), *j)])
                y = y + f / len(positions) * apply(cell.g, x[(n, slice(None), *j)])
            out = apply(cell.W[0], y)
            out = (out - norm.moving_mean.asnumpy()) * scale + norm.beta.asnumpy()
            z[(n, slice(None), *i)] = out + x[(n, slice(None), *i)]
    return z


@pytest.mark.parametrize("width", [1, 3])
def test_attention_is_the_loop_over_positions(width):
    cell = NonLocal(6, width)
    rng = np.random.default_rng(0)
    for parameter in cell.get_parameters():
        parameter.set_data(Tensor(rng.uniform(0.1, 1.0, parameter.shape).astype(np.float32)))
    x = rng.standard_normal((2, 6, 3, 2)).astype(np.float32)
    # Values of about 50 in float32.
    assert cell(Tensor(x)).asnumpy() == pytest.approx(non_local_by_loop(cell, x), rel=1e-5, abs=1e-4)


@pytest.mark.parametrize("training", [False, True])
def test_attention_starts_as_the_identity(training):
    x = Tensor(np.random.default_rng(0).standard_normal((2, 6, 3, 2)).astype(np.float32))
    assert np.array_equal(NonLocal(6, 2).set_train(training)(x).asnumpy(), x.asnumpy())


@pytest.mark.parametrize("attention", [NonLocal, TorchNonLocal])
def test_the_convolutions_of_attention_start_uniform_within_the_root_of_their_inputs(attention):
    cell = attention(1024, 16)
    for convolution, bound in ((cell.g, 1 / 32), (cell.theta, 1 / 32), (cell.phi, 1 / 32), (cell.W[0], 1 / 4)):
        for parameter in (convolution.weight, convolution.bias):
            value = parameter.asnumpy() if attention is NonLocal else parameter.detach().numpy()
            assert np.abs(value).max() <= bound
            if value.ndim == 4:  # 16,384 draws
                assert value.std() == pytest.approx(bound / np.sqrt(3), rel=0.03)
                assert np.abs(value).max() == pytest.approx(bound, rel=0.01)


@pytest.mark.parametrize(("width", "inner"), [(1, 1), (None, 32)])
def test_the_inner_width_is_as_asked_or_half_of_the_channels(width, inner):
    assert small(non_local_width=width).non_local_2[0].g.weight.shape == (inner, 64, 1, 1)


def test_training_gives_logits_and_raw_features():
    logits, features, _ = small().set_train()(Tensor(images(4)))
    assert (logits.shape, features.shape) == ((4, 5), (4, 256))


def test_a_288x144_picture_gives_2048_features_of_unit_length():
    model = create_model("agw_resnet50", 5, layers=(1, 1, 1, 1), non_local=(0, 1, 1, 0))
    features = model(Tensor(images(1, (288, 144))), "visible").asnumpy()
    assert features.shape == (1, 2048)
    assert np.linalg.norm(features) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("modality", ["visible", "infrared"])
def test_evaluation_takes_the_stem_of_the_modality(modality):
    model = small()
    pixels = Tensor(images(2))
    before = {m: model(pixels, m).asnumpy() for m in ("visible", "infrared")}
    stem = getattr(model, f"{modality}_stem")
    stem.conv1.weight.set_data(-stem.conv1.weight.value())
    changed = {m: not np.array_equal(model(pixels, m).asnumpy(), before[m]) for m in before}
    assert changed == {m: m == modality for m in before}


@pytest.mark.parametrize("modality", [None, "thermal"])
def test_evaluation_without_a_known_modality_is_refused(modality):
    with pytest.raises(ValueError, match=f"visible or infrared, not {modality!r}"):
        small()(Tensor(images(2)), modality)


def test_in_training_the_visible_stem_sees_the_first_half_and_the_infrared_stem_the_second():
    model = small().set_train()
    model.infrared_stem.conv1.weight.set_data(ms.ops.zeros_like(model.infrared_stem.conv1.weight))
    _, features, _ = model(Tensor(images(4)))
    spread = np.ptp(features.asnumpy().reshape(2, 2, -1), axis=1).max(axis=1)  # between the two images of a half
    assert spread[0] > 0.01
    assert spread[1] == 0


def test_a_training_batch_that_cannot_be_halved_is_refused():
    with pytest.raises(ValueError, match="3"):
        small().set_train()(Tensor(images(3)))


def test_a_compiled_training_step_computes_what_pynative_does():
    model = small(layers=(1, 1, 1, 1), non_local=(0, 0, 1, 0), width=2).set_train()
    model.non_local_3[0].W[1].gamma.set_data(ms.ops.ones_like(model.non_local_3[0].W[1].gamma))
    pixels = Tensor(images(4, (32, 16)))

    def loss(x):
        logits, features, _ = model(x)
        return (logits * logits).sum() + features.sum()

    step = ms.value_and_grad(loss, None, model.trainable_params())
    (value, gradients), (compiled_value, compiled) = step(pixels), ms.jit(step)(pixels)
    assert compiled_value.asnumpy() == pytest.approx(value.asnumpy(), rel=1e-6)
    for parameter, one, other in zip(model.trainable_params(), gradients, compiled, strict=True):
        # The same operators, fused or not.
        scale = np.abs(one.asnumpy()).max()
        assert np.abs(one.asnumpy() - other.asnumpy()).max() <= 1e-4 * scale + 1e-5, parameter.name


def test_the_mirror_computes_the_same_features_and_gradients():
    torch.manual_seed(0)
    model, mirror = small().set_train(), torch_create_model("agw_resnet50", 5, **SMALL).train()
    held = mirror.state_dict()
    for name, value in held.items():
        if name.endswith("W.1.weight"):  # so that attention is not the identity
            value.normal_()
    for parameter in model.get_parameters():
        parameter.set_data(Tensor(held[torchvision_name(parameter.name)].numpy()))
    assert len(held) == len(list(model.get_parameters())) + sum("num_batches" in name for name in held)

    pixels = images(8)
    scale = np.random.default_rng(1).standard_normal((8, 256)).astype(np.float32)

    def loss(x):
        logits, features, _ = model(x)
        return (features * Tensor(scale)).sum() + (logits * logits).sum(), logits, features

    (value, logits, features), gradients = ms.value_and_grad(loss, None, model.trainable_params(), has_aux=True)(
        Tensor(pixels)
    )
    torch_logits, torch_features, *_ = mirror(torch.from_numpy(pixels))
    ((torch_features * torch.from_numpy(scale)).sum() + (torch_logits * torch_logits).sum()).backward()
    for ours, theirs in ((logits, torch_logits), (features, torch_features)):
        theirs = theirs.detach().numpy()
        # Normalisation over 8 images of 4x2 positions magnifies the rounding of float32.
        assert np.abs(ours.asnumpy() - theirs).max() <= 3e-5 * np.abs(theirs).max()
    expected = {name: p.grad.numpy() for name, p in mirror.named_parameters() if p.grad is not None}
    assert len(expected) == len(gradients)
    for parameter, gradient in zip(model.trainable_params(), gradients, strict=True):
        theirs = expected[torchvision_name(parameter.name)]
        if not parameter.name.endswith(UNDONE):
            assert np.abs(gradient.asnumpy() - theirs).max() <= 1e-3 * np.abs(theirs).max(), parameter.name
    for modality in ("visible", "infrared"):
        theirs = mirror.eval()(torch.from_numpy(pixels), modality).detach().numpy()
        assert np.abs(model.set_train(False)(Tensor(pixels), modality).asnumpy() - theirs).max() < 1e-4
