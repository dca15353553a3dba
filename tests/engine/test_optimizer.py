import mindspore as ms
import numpy as np
import pytest
import torch
from mindspore import Parameter, Tensor

from ms_vireid.config import CONFIG_ROOT, AdamWConfig, SGDConfig, load_config
from ms_vireid.engine.optimizer import SGD, AdamW, ParameterGroup, build_optimizer, parameter_groups
from ms_vireid.models import create_model
from ms_vireid.programs.prepare import PROGRAMS, prepare

BETAS, EPS, DECAY = (0.9, 0.999), 1e-8, 0.1


def small_model():
    return create_model("pmt_vit_tiny", 5, image_size=(32, 16), embed_dim=16, num_heads=2, depth=2, mlp_ratio=2)


def small_agw():
    return create_model("agw_resnet50", 5, layers=(1, 1, 1, 1), width=4, non_local=(0, 1, 1, 0))


def small_mun(**options):
    return create_model("mun_resnet50", 5, layers=(1, 1, 1, 1), width=4, ratios=(2, 3), **options)


@pytest.mark.parametrize(
    "make",
    [small_model, small_agw, small_mun, lambda: small_mun(intermediate="X")],
    ids=["pmt", "agw", "mun", "mun with X"],
)
def test_every_trainable_parameter_is_in_exactly_one_group(make):
    model = make()
    names = [p.name for group in parameter_groups(model, AdamWConfig()) for p in group.parameters]
    assert sorted(names) == sorted(p.name for p in model.trainable_params())


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
    full, backbone = parameter_groups(small_mun(intermediate="syncretic"), AdamWConfig())
    names = {p.name for p in backbone.parameters}
    assert "generator.stage.conv1.weight" in names
    assert "generator.reduce.weight" in {p.name for p in full.parameters}


def updates(optimizer, program):
    """The optimiser as it is called when a program computes."""
    prepare(program, optimizer)
    return ms.jit(optimizer.construct) if program == "graph" else optimizer


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_weights_keep_to_the_limits_of_their_group(kind, program):
    free, limited = (Parameter(Tensor(np.full((2, 3), 0.5, np.float32)), name=name) for name in ("free", "limited"))
    groups = [ParameterGroup("f", 1.0, (free,)), ParameterGroup("l", 1.0, (limited,), limits=(0.45, 0.55))]
    ours = AdamW(groups, BETAS, EPS, 0.0) if kind == "adamw" else SGD(groups, 0.9, True, 0.0)
    update = updates(ours, program)
    gradient = np.array([[1.0, -1.0, 0.01], [2.0, -2.0, 0.0]], np.float32)
    for step in range(1, 4):
        before = limited.asnumpy().copy(), free.asnumpy().copy()
        update((Tensor(gradient), Tensor(gradient)), Tensor(ours.scalars(step, [0.03, 0.03])))
        step_of_free = free.asnumpy() - before[1]  # the moments, which no limit changes, are the same
        expected = np.clip(before[0] + step_of_free, 0.45, 0.55)
        assert np.abs(limited.asnumpy() - expected).max() < 1e-6
    assert limited.asnumpy()[:, :2] == pytest.approx(np.array([[0.45, 0.55]] * 2))
    assert np.abs(free.asnumpy()[:, :2] - 0.5).min() > 0.05


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_a_group_without_decay_is_updated_as_by_torch(kind, program):
    rng = np.random.default_rng(0)
    start = rng.standard_normal((2, 7, 5)).astype(np.float32)
    gradients = rng.standard_normal((4, 2, 7, 5)).astype(np.float32)
    parameters = [Parameter(Tensor(value), name=f"w{i}") for i, value in enumerate(start)]
    groups = [ParameterGroup("a", 1.0, (parameters[0],)), ParameterGroup("b", 1.0, (parameters[1],), decays=False)]
    weights = [torch.nn.Parameter(torch.from_numpy(value.copy())) for value in start]
    options = [{"params": [weights[0]], "weight_decay": 0.5}, {"params": [weights[1]], "weight_decay": 0.0}]
    if kind == "adamw":
        ours, theirs = AdamW(groups, BETAS, EPS, 0.5), torch.optim.AdamW(options, lr=0.01, betas=BETAS, eps=EPS)
    else:
        ours, theirs = SGD(groups, 0.9, True, 0.5), torch.optim.SGD(options, lr=0.01, momentum=0.9, nesterov=True)
    update = updates(ours, program)
    for step, gradient in enumerate(gradients, 1):
        update(tuple(map(Tensor, gradient)), Tensor(ours.scalars(step, [0.01, 0.01])))
        for weight, value in zip(weights, gradient, strict=True):
            weight.grad = torch.from_numpy(value)
        theirs.step()
    for parameter, weight in zip(parameters, weights, strict=True):
        assert np.abs(parameter.asnumpy() - weight.detach().numpy()).max() < 5e-7  # float32 weights of about 1


def test_the_bnneck_bias_is_frozen():
    assert "bottleneck.beta" not in {p.name for p in small_model().trainable_params()}


def written_out_adamw(weight, gradients, lrs):
    """AdamW as Loshchilov & Hutter print it, float64."""
    weight, m, v = weight.astype(np.float64), 0.0, 0.0
    for step, (gradient, lr) in enumerate(zip(gradients, lrs, strict=True), 1):
        gradient = gradient.astype(np.float64)
        m = BETAS[0] * m + (1 - BETAS[0]) * gradient
        v = BETAS[1] * v + (1 - BETAS[1]) * gradient**2
        corrected = m / (1 - BETAS[0] ** step) / (np.sqrt(v / (1 - BETAS[1] ** step)) + EPS)
        weight = weight - lr * DECAY * weight - lr * corrected
    return weight


@pytest.mark.parametrize("program", PROGRAMS)
def test_updates_are_those_of_adamw_with_bias_correction_and_decoupled_decay(program):
    rng = np.random.default_rng(0)
    start = [rng.standard_normal((7, 5)).astype(np.float32) for _ in range(2)]
    gradients = rng.standard_normal((6, 2, 7, 5)).astype(np.float32) * 1e-2
    parameters = [Parameter(Tensor(value), name=f"w{i}") for i, value in enumerate(start)]
    groups = [ParameterGroup("a", 1.0, (parameters[0],)), ParameterGroup("b", 0.5, (parameters[1],))]
    optimizer = AdamW(groups, BETAS, EPS, DECAY)
    update = updates(optimizer, program)
    lrs = [1e-2, 2e-2, 3e-2, 2e-2, 1e-2, 5e-3]
    for step, lr in enumerate(lrs, 1):
        update(tuple(Tensor(g) for g in gradients[step - 1]), Tensor(optimizer.scalars(step, [lr, lr / 2])))
    for i, factor in enumerate((1.0, 0.5)):
        expected = written_out_adamw(start[i], gradients[:, i], [lr * factor for lr in lrs])
        # Weights of about 1 in float32 round by 6e-8 an update.
        assert np.abs(parameters[i].asnumpy() - expected).max() < 5e-7


SGD_CASES = {"nesterov": (0.9, True, 5e-4), "heavy-ball": (0.9, False, 5e-4), "plain": (0.0, False, 0.0)}


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


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize(("momentum", "nesterov", "decay"), SGD_CASES.values(), ids=SGD_CASES)
def test_a_sequence_of_sgd_updates_is_that_of_torch(momentum, nesterov, decay, program):
    rng = np.random.default_rng(0)
    start = [rng.standard_normal((7, 5)).astype(np.float32) for _ in range(3)]  # of one shape: they share flags
    gradients = rng.standard_normal((8, 3, 7, 5)).astype(np.float32)
    lrs = [(lr, lr / 10, lr / 10) for lr in (0.01, 0.02, 0.1, 0.1, 0.1, 0.01, 0.01, 0.001)]
    expected, buffers = sgd_by_torch(start, gradients, lrs, momentum, nesterov, decay)

    parameters = [Parameter(Tensor(value), name=f"w{i}") for i, value in enumerate(start)]
    groups = [ParameterGroup("a", 1.0, (parameters[0],)), ParameterGroup("b", 0.1, tuple(parameters[1:]))]
    optimizer = SGD(groups, momentum, nesterov, decay)
    update = updates(optimizer, program)
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
