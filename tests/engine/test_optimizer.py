import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor

from ms_vireid.config import OptimizerConfig
from ms_vireid.engine.optimizer import AdamW, ParameterGroup, pmt_groups
from ms_vireid.models import create_model

BETAS, EPS, DECAY = (0.9, 0.999), 1e-8, 0.1


def small_model():
    return create_model("pmt_vit_tiny", 5, image_size=(32, 16), embed_dim=16, num_heads=2, depth=2, mlp_ratio=2)


def test_every_trainable_parameter_is_in_exactly_one_group():
    model = small_model()
    names = [p.name for group in pmt_groups(model, OptimizerConfig()) for p in group.parameters]
    assert sorted(names) == sorted(p.name for p in model.trainable_params())


def test_the_half_rate_group_is_the_patch_projection_and_the_blocks():
    full, backbone = pmt_groups(small_model(), OptimizerConfig())
    assert (full.lr_factor, backbone.lr_factor) == (1.0, 0.5)
    embeddings = {"base.cls_token", "base.pos_embed"}
    head = {"base.norm.gamma", "base.norm.beta", "bottleneck.gamma", "classifier.weight"}
    assert {p.name for p in full.parameters} == embeddings | head


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


@pytest.mark.parametrize("jit", [False, True])
def test_updates_are_those_of_adamw_with_bias_correction_and_decoupled_decay(jit):
    rng = np.random.default_rng(0)
    start = [rng.standard_normal((7, 5)).astype(np.float32) for _ in range(2)]
    gradients = rng.standard_normal((6, 2, 7, 5)).astype(np.float32) * 1e-2
    parameters = [Parameter(Tensor(value), name=f"w{i}") for i, value in enumerate(start)]
    groups = [ParameterGroup("a", 1.0, (parameters[0],)), ParameterGroup("b", 0.5, (parameters[1],))]
    optimizer = AdamW(groups, BETAS, EPS, DECAY)
    update = ms.jit(optimizer.construct) if jit else optimizer
    lrs = [1e-2, 2e-2, 3e-2, 2e-2, 1e-2, 5e-3]
    for step, lr in enumerate(lrs, 1):
        update(tuple(Tensor(g) for g in gradients[step - 1]), optimizer.scalars(step, [lr, lr / 2]))
    for i, factor in enumerate((1.0, 0.5)):
        expected = written_out_adamw(start[i], gradients[:, i], [lr * factor for lr in lrs])
        # Weights of about 1 in float32 round by 6e-8 an update.
        assert np.abs(parameters[i].asnumpy() - expected).max() < 5e-7
