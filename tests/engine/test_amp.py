"""Mixed precision: the loss curve beside float32's, an overflow that costs one step, exact resumption."""

import json

import mindspore as ms
import numpy as np
import pytest
from mindspore.amp import DynamicLossScaler

from ms_vireid.backends.choosing import choose
from ms_vireid.config import CONFIG_ROOT, load_config
from ms_vireid.data.readers import read_data
from ms_vireid.engine.run_folder import RunFolder
from ms_vireid.engine.trainer import Trainer

SMALL = [
    "data={name: synthetic, image_size: [64, 32], workers: 0, synthetic: {train_identities: 8, val_identities: 1, "
    "test_identities: 4, images_per_camera: 2, image_size: [64, 32]}}",
    "train={num_identities: 4, num_instances: 2, iterations: 3, log_steps: 1}",
    "model.num_classes=9",
    "evaluation.trials=1",
]
# Rates at which two float32 runs that differ by rounding stay together: at the recipes' own, small models trained from
# scratch part by more than float16 does.
RECIPES = {
    "pmt": "model.depth=2 model.embed_dim=48 model.num_heads=2 stages.0.epochs=1 stages.1.epochs=1 optimizer.lr=1e-4",
    "agw": "model.layers=[1,2,3,1] model.width=8 stages.0.epochs=2 optimizer.lr=2e-5",
    "mun": "model.layers=[1,1,1,1] model.width=8 model.ratios=[2,3] data.image_size=[48,24] stages.0.epochs=2 "
    "optimizer.lr=1e-4",
}
TOLERANCE = 0.02  # of the loss


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("amp")


def trainer(name, root, folder, *overrides):
    own = RECIPES[name].split()
    config = load_config(CONFIG_ROOT / f"{name}/sysu.yaml", [*SMALL, *own, f"data.root={root / 'tree'}", *overrides])
    data = read_data(config.data)
    config = config.with_num_classes(data.train.num_identities)
    run = RunFolder(folder)
    trainer = Trainer(config, data, run, choose(config.train.backend, config.train.amp))
    run.create(config, data, "CPU", 0)
    return trainer


def losses(trainer):
    lines = trainer.run.metrics.read_text(encoding="utf-8").splitlines()
    return np.array([json.loads(line)["loss"] for line in lines])


@pytest.mark.parametrize("name", RECIPES)
def test_the_loss_curve_is_float32s_weights_stay_float32_and_the_scale_is_resumed(name, root, tmp_path):
    curves = []
    for amp in ("false", "float16"):
        one = trainer(name, root, tmp_path / amp, f"train.amp={amp}")
        if amp == "float16":
            one.scaler.scale_value.set_data(ms.Tensor(512.0, ms.float32))
        one.fit()
        curves.append(losses(one))
    assert len(curves[0]) == 6
    assert not np.array_equal(*curves)  # float16 it is
    np.testing.assert_allclose(curves[1], curves[0], rtol=TOLERANCE)
    assert ms.float16 not in {p.dtype for p in [*one.model.get_parameters(), *one.optimizer.state()]}
    other = trainer(name, root, tmp_path / "other", "train.amp=float16")
    other.resume(one.run.last)
    assert float(other.scaler.scale_value.asnumpy()) == 512.0
    assert int(other.scaler.counter.asnumpy()) == 6


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_the_copies_in_half_are_the_weights_after_a_step(root, tmp_path, mode):
    one = trainer("pmt", root, tmp_path, "train.amp=float16", f"train.backend={mode}", "model.depth=1")
    one.model.set_train()
    before = {p.name: p.asnumpy().copy() for p in one.model.trainable_params()}
    one.queue_step(one.plan(0)._replace(rates=[1e-2, 1e-2]), *one.batches[0])
    copies = one._train_step._half._copies
    assert "base.blocks.0.attn.qkv.weight" in copies
    assert not any(name.startswith(("bottleneck.", "classifier.")) for name in copies)
    for weight in one.model.trainable_params():
        now = weight.asnumpy()
        assert not np.array_equal(now, before[weight.name]), weight.name
        if weight.name in copies:
            np.testing.assert_array_equal(copies[weight.name].asnumpy(), now.astype(np.float16), err_msg=weight.name)


def test_the_norm_is_limited_of_gradients_without_the_scale(root, tmp_path):
    one = trainer("pmt", root, tmp_path, "train.amp=float16", "optimizer.clip_norm=0.25", "model.depth=1")
    one.model.set_train()
    one.queue_step(one.plan(0), *one.batches[0])
    moments = [part.states[0].asnumpy() for part in one.optimizer.parts]  # a tenth of the gradients
    assert np.linalg.norm([np.linalg.norm(moment) for moment in moments]) == pytest.approx(0.025, rel=1e-5)


@pytest.mark.parametrize("clip_norm", ["null", "0.25"])
def test_an_overflow_halves_the_scale_and_updates_nothing(root, tmp_path, monkeypatch, clip_norm):
    monkeypatch.setattr(DynamicLossScaler, "scale", lambda self, loss: loss * float("inf"))
    one = trainer("pmt", root, tmp_path, "train.amp=float16", "stages.0.epochs=1", f"optimizer.clip_norm={clip_norm}")
    before = {p.name: p.asnumpy().copy() for p in one.model.trainable_params()}
    scale = float(one.scaler.scale_value.asnumpy())
    one.model.set_train()
    one.queue_step(one.plan(0), *one.batches[0])
    assert float(one.scaler.scale_value.asnumpy()) == scale / 2
    for weight in one.model.trainable_params():
        np.testing.assert_array_equal(weight.asnumpy(), before[weight.name])
    assert all(not state.asnumpy().any() for state in one.optimizer.state())
