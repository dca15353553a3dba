"""The small computations of `called.py`. Import it after `runtime.set_up`."""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from ms_vireid.backends.choosing import backend_named
from ms_vireid.config import CONFIG_ROOT, Config, load_config
from ms_vireid.engine.train_step import build_step, loss_scaler
from ms_vireid.losses.stage import StageLoss
from ms_vireid.models import build_model
from ms_vireid.optimizers.build import build_optimizer
from ms_vireid.search.features import FeatureExtractor
from parity.cases import LADDER, run

SIZE = (48, 24)  # of the pictures, (H, W) in pixels
LABELS = np.array([0, 0, 1, 1] * 2, np.int32)
_RESNET = ["model.layers=[1,1,1,1]", "model.width=4"]
_VIT = ["model.patch_size=8", "model.stride=6", "model.embed_dim=16", "model.num_heads=2", "model.depth=2"]
METHODS = {
    "PMT": ("pmt/sysu.yaml", _VIT),
    "AGW": ("agw/sysu.yaml", [*_RESNET, "model.non_local=[0,1,0,0]"]),
    "MUN": ("mun/sysu.yaml", [*_RESNET, "model.ratios=[2]"]),
}
LOSSES = "losses"


def small_config(method: str, *options: str) -> Config:
    recipe, model = METHODS[method]
    common = ["model.num_classes=3", "train.num_identities=2", "train.num_instances=2", "augmentation.crop_padding=0"]
    return load_config(CONFIG_ROOT / recipe, [f"data.image_size={list(SIZE)}", *model, *common, *options])


def computations() -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield each computation with its owner."""
    for method in METHODS:
        yield method, partial(_train, small_config(method))
        yield method, partial(_train, small_config(method, "train.amp=float16"))
        yield method, partial(_evaluate, small_config(method))
    for case in LADDER:
        if case.rung == 3:
            yield LOSSES, partial(run, case, ["graph"])


def _train(config: Config) -> None:
    model = build_model(config).set_train()
    optimizer = build_optimizer(model, config)
    loss = StageLoss(config.stages[-1].losses, config.train.num_instances)
    amp = config.train.amp
    step = build_step(model, loss, optimizer, backend_named("graph", amp), scaler=loss_scaler(amp))
    rates = [config.optimizer.lr] * len(optimizer.groups)
    for number in (1, 2):
        step(_images(), LABELS, number, 0.0, optimizer.scalars(number, rates)).asnumpy()


def _evaluate(config: Config) -> None:
    model = build_model(config, inference=True).set_train(False)
    graph = backend_named("graph")
    graph.accelerate(model)
    FeatureExtractor(model, graph, SIZE, len(LABELS)).queue(_images(), "visible").read()


def _images() -> np.ndarray:
    return np.random.default_rng(0).random((len(LABELS), 3, *SIZE)).astype(np.float32)
