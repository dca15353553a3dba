import numpy as np
import pytest
import torch
from mindspore import Parameter, Tensor, nn

from ms_vireid.backends.choosing import OF_DEVICE, backend_named
from ms_vireid.config import CONFIG_ROOT, AdamWConfig, SGDConfig, load_config
from ms_vireid.models import create_model
from ms_vireid.optimizers.adamw import AdamW
from ms_vireid.optimizers.build import build_optimizer
from ms_vireid.optimizers.groups import ParameterGroup, parameter_groups
from ms_vireid.optimizers.sgd import SGD

BACKENDS = OF_DEVICE["CPU"]

BETAS, EPS = (0.9, 0.999), 1e-8


def small_model():
    return create_model("pmt_vit_tiny", 5, image_size=(32, 16), embed_dim=16, num_heads=2, depth=2, mlp_ratio=2)


def small_agw():
    return create_model("agw_resnet50", 5, layers=(1, 1, 1, 1), width=4, non_local=(0, 1, 1, 0))


def small_mun(**options):
    return create_model("mun_resnet50", 5, layers=(1, 1, 1, 1), width=4, ratios=(2, 3), **options)


def test_the_half_rate_group_is_the_patch_projection_and_the_blocks():
    full, backbone = parameter_groups(small_model(), AdamWConfig())
    assert (full.lr_factor, backbone.lr_factor) == (1.0, 0.5)
    embeddings = {"base.cls_token", "base.pos_embed"}
    head = {"base.norm.gamma", "base.norm.beta", "bottleneck.gamma", "classifier.weight"}
    assert {p.name for p in full.parameters} == embeddings | head


def test_of_agw_only_the_bnneck_and_the_classifier_have_the_full_rate():
    full, backbone = parameter_groups(small_agw(), SGDConfig())
    assert (full.lr_factor, backbone.lr_factor) == (1.0, 0.1)
    assert {p.name for p in full.parameters} == {"bottleneck.gamma", "classifier.weight"}


def test_of_mun_the_layer_scales_do_not_decay_and_the_pretrained_layers_are_slow():
    full, backbone, scales = parameter_groups(small_mun(), AdamWConfig(backbone_factor=0.1))
    assert [group.lr_factor for group in (full, backbone, scales)] == [1.0, 0.1, 1.0]
    assert [group.decays for group in (full, backbone, scales)] == [True, True, False]
    assert [p.name for p in scales.parameters] == [
        f"generator.{learner}_learner.scale" for learner in ("visible", "infrared", "cross")
    ]
    assert {p.name.partition(".")[0] for p in backbone.parameters} == {"visible_stage", "infrared_stage", "shared"}
    assert {p.name.partition(".")[0] for p in full.parameters} == {
        "generator",
        "prototypes",
        "bottleneck",
        "visible_classifier",
        "infrared_classifier",
    }


def test_a_first_stage_of_pixels_is_as_slow_as_the_others_and_there_are_no_scales():
    model = small_mun(intermediate="syncretic")
    full, backbone = parameter_groups(model, AdamWConfig())
    names = {p.name for p in backbone.parameters}
    grouped = [p.name for group in (full, backbone) for p in group.parameters]
    assert sorted(grouped) == sorted(p.name for p in model.trainable_params())
    assert "generator.stage.conv1.weight" in names
    assert "generator.reduce.weight" in {p.name for p in full.parameters}


def updates(optimizer, name):
    """The optimiser as it is called when a backend computes."""
    computation = backend_named(name).accelerate(nn.Cell(), None, optimizer)
    layout = computation.layout(optimizer)

    def update(gradients, scalars):
        return optimizer(layout.parts, layout.joined(gradients), scalars)

    return computation.compile(update)


@pytest.mark.parametrize("name", BACKENDS)
def test_sgd_keeps_weights_to_the_limits_of_their_group(name):
    """AdamW's are on the ladder."""
    free, limited = (Parameter(Tensor(np.full((2, 3), 0.5, np.float32)), name=name) for name in ("free", "limited"))
    groups = [ParameterGroup("f", 1.0, (free,)), ParameterGroup("l", 1.0, (limited,), limits=(0.45, 0.55))]
    ours = SGD(groups, 0.9, True, 0.0)
    update = updates(ours, name)
    gradient = np.array([[1.0, -1.0, 0.01], [2.0, -2.0, 0.0]], np.float32)
    for step in range(1, 4):
        before = limited.asnumpy().copy(), free.asnumpy().copy()
        update((Tensor(gradient), Tensor(gradient)), Tensor(ours.scalars(step, [0.03, 0.03])))
        step_of_free = free.asnumpy() - before[1]  # the moments, which no limit changes, are the same
        assert np.abs(limited.asnumpy() - np.clip(before[0] + step_of_free, 0.45, 0.55)).max() < 1e-6
    assert limited.asnumpy()[:, :2] == pytest.approx(np.array([[0.45, 0.55]] * 2))
    assert np.abs(free.asnumpy()[:, :2] - 0.5).min() > 0.05


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("value", [3.0, 30.0, 1e30, np.inf])
def test_gradients_are_clipped_as_in_torch(name, value):
    gradients = np.array([[value, 1.0], [0.5, 2.0]], np.float32)
    weights = [torch.nn.Parameter(torch.zeros(2)) for _ in gradients]
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.grad = torch.from_numpy(gradient.copy())
    torch.nn.utils.clip_grad_norm_(weights, 5.0)
    parameters = tuple(Parameter(Tensor(np.zeros(2, np.float32)), name=f"w{i}") for i in range(2))
    optimizer = SGD([ParameterGroup("a", 1.0, parameters)], 0.0, False, 0.0)
    computation = backend_named(name).accelerate(nn.Cell(), None, optimizer)

    def clip(*tensors):
        return optimizer.clip(tensors, 5.0)

    for ours, weight in zip(computation.compile(clip)(*map(Tensor, gradients)), weights, strict=True):
        np.testing.assert_allclose(ours.asnumpy(), weight.grad.numpy(), rtol=1e-6)


SGD_CASES = {"heavy-ball": (0.9, False, 5e-4), "plain": (0.0, False, 0.0)}  # Nesterov's, AGW's, is on the ladder


def sgd_by_torch(start, gradients, lrs, momentum, nesterov, decay):
    """Weights after every step and the last momentum buffers, of `torch.optim.SGD`."""
    weights = [torch.nn.Parameter(torch.from_numpy(value.copy())) for value in start]
    optimizer = torch.optim.SGD([{"params": [w]} for w in weights], 1.0, momentum, 0.0, decay, nesterov)
    course = []
    for gradient, rates in zip(gradients, lrs, strict=True):
        for group, weight, value, lr in zip(optimizer.param_groups, weights, gradient, rates, strict=True):
            group["lr"] = lr
            weight.grad = torch.from_numpy(value)
        optimizer.step()
        course.append([w.detach().numpy().copy() for w in weights])
    return course, [optimizer.state[w].get("momentum_buffer") for w in weights]


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize(("momentum", "nesterov", "decay"), SGD_CASES.values(), ids=SGD_CASES)
def test_a_sequence_of_sgd_updates_is_that_of_torch(momentum, nesterov, decay, name):
    rng = np.random.default_rng(0)
    start = [rng.standard_normal((7, 5)).astype(np.float32) for _ in range(3)]  # of one shape: they share flags
    gradients = rng.standard_normal((8, 3, 7, 5)).astype(np.float32)
    lrs = [(lr, lr / 10, lr / 10) for lr in (0.01, 0.02, 0.1, 0.1, 0.1, 0.01, 0.01, 0.001)]
    expected, buffers = sgd_by_torch(start, gradients, lrs, momentum, nesterov, decay)

    parameters = [Parameter(Tensor(value), name=f"w{i}") for i, value in enumerate(start)]
    groups = [ParameterGroup("a", 1.0, (parameters[0],)), ParameterGroup("b", 0.1, tuple(parameters[1:]))]
    optimizer = SGD(groups, momentum, nesterov, decay)
    update = updates(optimizer, name)
    for step, (gradient, rates) in enumerate(zip(gradients, lrs, strict=True), 1):
        update(tuple(map(Tensor, gradient)), Tensor(optimizer.scalars(step, rates[:2])))
        for ours, theirs in zip(parameters, expected[step - 1], strict=True):
            # Weights of about 1 in float32: one rounding of 6e-8 an update.
            assert np.abs(ours.asnumpy() - theirs).max() < 5e-7, step
    assert [p.name for p in optimizer.state()] == ["momentum_buffer.w0", "momentum_buffer.w1", "momentum_buffer.w2"]
    for ours, theirs in zip(optimizer.state(), buffers, strict=True):
        assert momentum == 0 or np.abs(ours.asnumpy() - theirs.numpy()).max() < 1e-6


@pytest.mark.parametrize(("path", "kind"), [("pmt/sysu.yaml", AdamW), ("agw/sysu.yaml", SGD), ("mun/sysu.yaml", AdamW)])
def test_the_configured_optimizer_is_built_on_the_models_groups(path, kind):
    config = load_config(CONFIG_ROOT / path)
    model = {"pmt": small_model, "agw": small_agw, "mun": small_mun}[config.model.name]()
    optimizer = build_optimizer(model, config)
    assert type(optimizer) is kind
    assert [group.lr_factor for group in optimizer.groups][:2] == [1.0, config.optimizer.backbone_factor]
