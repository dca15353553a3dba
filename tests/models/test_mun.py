"""MUN: its equations, what only training has, and the variants that the ladder leaves out."""

import re
from collections import Counter
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ms_vireid.checkpoints.weights import COUNTER
from ms_vireid.config import CONFIG_ROOT, MUNConfig, Setting, load_config
from ms_vireid.data.randomness import step_key
from ms_vireid.models import build_model
from ms_vireid.models.base import TrainingOutputs
from ms_vireid.models.mun import MUN
from parity.harness import all_of, compare_evaluation, compare_training, same_weights
from parity.mapping import twins, values
from torch_ref.models import build_model as torch_build_model
from torch_ref.models import mun as torch_mun
from torch_ref.models.resnet import ResNet as TorchResNet

CLASSES, P, K = 5, 3, 2
SMALL = {"layers": (1, 1, 1, 1), "width": 4, "ratios": (2, 3)}
EMBED, SIZE = 128, (24, 24)  # maps of 6 x 6 after layer1
LABELS = np.tile(np.repeat([3, 1, 0], K), 2).astype(np.int32)
KEY = step_key(0, 3)
EVERY = pytest.mark.parametrize(
    "options", [{}, {"memory": "none", "terms": frozenset({"id_a"})}, {"intermediate": "X"}, {"intermediate": "none"}]
)


def arguments(**options):
    """Of a network; some options are those of its setting."""
    around = {name: options.pop(name) for name in Setting.model_fields if name in options}
    return MUNConfig(**SMALL | options), CLASSES, Setting(**{"batch": (P, K)} | around)


def build(**options):
    # Of all draws some have a pre-activation so near 0 that rounding decides whether a ReLU is open, which moves
    # gradients by 1e-4 to 1e-1; in this one no variant has, and the largest error of a gradient is 4e-5.
    ms.set_seed(57)
    return MUN(*arguments(**options))


def batch():
    """Noise on a colour of each picture's own, so that features are not nearly alike."""
    rng = np.random.default_rng(1)
    colour = rng.normal(size=(2 * P * K, 3, 1, 1))
    return (colour + rng.normal(size=(2 * P * K, 3, *SIZE))).astype(np.float32)


def outputs_of(model, progress=0.0, images=None):
    """As arrays."""
    model.set_train()
    images = batch() if images is None else images
    outputs = model(ms.Tensor(images), None, ms.Tensor(KEY), ms.Tensor(LABELS), progress)
    return TrainingOutputs(*(output.asnumpy() for output in outputs))


@pytest.mark.parametrize(
    "options",
    [
        {"memory": "none", "terms": frozenset({"id_a"})},
        {"kernel_order": (7, 5)},
        {"specific": "stem"},
        {"intermediate": "mixed", "mixing": "pixel"},
    ],
)
def test_both_frameworks_agree(options):
    pair = build(**options), torch_mun.MUN(*arguments(**options))
    same_weights(*pair)
    by = all_of(compare_training(pair, (batch(), None, KEY, LABELS)), compare_evaluation(pair, (batch(), "infrared")))
    assert [str(comparison) for comparison in by("eager") if not comparison.passed] == []


def test_classifiers_and_slots_are_those_of_the_equations():
    model = build(terms=frozenset({"ma", "id_a"}))
    normalised = []
    model.bottleneck.register_forward_hook(lambda _cell, _inputs, output: normalised.append(output.asnumpy()))
    outputs = outputs_of(model)
    v, r, a = normalised[0].reshape(3, P * K, EMBED)
    c_v, c_r, c_a = (
        getattr(model, f"{name}_classifier").weight.asnumpy().T for name in ("visible", "infrared", "auxiliary")
    )
    expected = [np.concatenate([v @ c_v, r @ c_r]), a @ c_v, a @ c_r, a @ c_a]
    found = outputs.logits, outputs.visible_logits, outputs.infrared_logits, outputs.auxiliary_logits
    for actual, value in zip(found, expected, strict=True):
        np.testing.assert_allclose(actual, value, rtol=0, atol=1e-6)  # float32 rounding
    np.testing.assert_array_equal(outputs.bnneck, np.concatenate([v, r]))
    # In the 0-th iteration the prototypes are the features, as W_p is the identity.
    assert_prototypes_are_features(outputs)


def assert_prototypes_are_features(outputs):
    for modality in ("visible", "infrared", "auxiliary"):
        np.testing.assert_array_equal(getattr(outputs, f"{modality}_prototypes"), getattr(outputs, modality))
    np.testing.assert_array_equal(np.concatenate([outputs.visible, outputs.infrared]), outputs.pooled)


def test_without_memory_the_prototypes_are_the_pooled_features():
    assert_prototypes_are_features(outputs_of(build(memory="none")))


def test_beta_rises_linearly_and_weighs_the_prototypes():
    for beta in (0.25, 1.0):
        model = build()
        first = outputs_of(model)
        second = outputs_of(model, beta, batch()[:, :, ::-1])  # from 1e-8 to 1; of other pictures
        for modality in ("visible", "infrared", "auxiliary"):
            before, after = (getattr(outputs, f"{modality}_prototypes") for outputs in (first, second))
            expected = beta * getattr(second, modality) + (1 - beta) * before
            assert np.abs(getattr(second, modality) - before).max() > 0.01
            np.testing.assert_allclose(after, expected, rtol=0, atol=1e-6)


@EVERY
def test_an_inference_model_is_the_same_without_the_training_only_parts(options):
    model = build(**options).set_train(False)
    inference = build(**options, inference=True).set_train(False)
    held = {p.name: p for p in model.get_parameters() if not p.name.startswith(MUN.TRAINING_ONLY)}
    assert [p.name for p in inference.get_parameters()] == list(held)
    torch_names = torch_mun.MUN(*arguments(**options, inference=True)).state_dict().keys()
    assert {t.torch_name for t in twins(inference)} == {n for n in torch_names if not n.endswith(COUNTER)}
    for parameter in inference.get_parameters():
        parameter.set_data(ms.Tensor(held[parameter.name].asnumpy()))
    for modality in ("visible", "infrared"):
        images = ms.Tensor(batch())
        features = inference(images, modality).asnumpy()
        np.testing.assert_array_equal(features, model(images, modality).asnumpy())
        np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, rtol=1e-6)
    with pytest.raises(ValueError, match="an inference model has no auxiliary modality"):
        inference.set_train()(images)


@pytest.mark.parametrize("modality", ["visible", "infrared"])
def test_a_modalitys_path_and_classifier_are_its_own(modality):
    model = build()
    stage, classifier = (getattr(model, f"{modality}_{part}") for part in ("stage", "classifier"))
    assert model.path(modality) == (stage, model.shared, model.pool, model.bottleneck)
    pooled = ms.Tensor(np.ones((2, model.embed_dim), np.float32))
    cell, to_logits = model.set_train(False).logits_of(modality)
    assert cell is model.pool
    assert np.array_equal(to_logits(pooled).asnumpy(), classifier(model.bottleneck(pooled)).asnumpy())


@pytest.mark.parametrize("classified", ["bnneck", "pooled"])
@pytest.mark.parametrize("tested", ["bnneck", "pooled"])
def test_classifiers_and_retrieval_take_the_features_that_are_named(classified, tested):
    model, seen = build(classified=classified, tested=tested), {}
    for name in ("pool", "bottleneck"):
        hook = lambda _cell, _inputs, output, name=name: seen.__setitem__(name, output.asnumpy())  # noqa: E731
        getattr(model, name).register_forward_hook(hook)
    outputs = outputs_of(model)
    given = seen["bottleneck" if classified == "bnneck" else "pool"]
    weight = model.visible_classifier.weight.asnumpy()
    np.testing.assert_allclose(outputs.visible_logits, given[2 * P * K :] @ weight.T, rtol=0, atol=1e-6)
    model.set_train(False)
    features = model(ms.Tensor(batch()[:2]), "visible").asnumpy()
    expected = seen["bottleneck" if tested == "bnneck" else "pool"]
    np.testing.assert_allclose(features, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-6)
    *_, last = model.path("visible")
    assert last is (model.bottleneck if tested == "bnneck" else model.pool)
    # Grad-CAM's logits, of what evaluation has gone through.
    cell, to_logits = model.logits_of("visible")
    assert cell in model.path("visible")
    pooled = ms.Tensor(seen["pool"])
    logits = to_logits(pooled).asnumpy()
    taken = pooled if classified == "pooled" else model.bottleneck(pooled)
    np.testing.assert_allclose(logits, taken.asnumpy() @ weight.T, rtol=0, atol=1e-6)


def test_what_does_not_fit_is_refused():
    training, images = build().set_train(), ms.Tensor(batch())
    for message, wrong in (
        ("as many visible as infrared images, not 11", lambda: training(images[:11])),
        ("do not divide the feature maps of 5x6", lambda: training(images[:, :, :20])),
        ("the mixed modality needs the step's key", lambda: build(intermediate="mixed").set_train()(images)),
        ("needs the labels", lambda: build(memory="identity").set_train()(images)),
        ("modality must be visible or infrared, not None", lambda: build().set_train(False)(images)),
    ):
        with pytest.raises(ValueError, match=message):
            wrong()


def test_parameters_by_part_at_full_size_are_as_documented():
    counts = Counter()
    for twin in twins(MUN(MUNConfig(), 395)):
        if twin.parameter.requires_grad:
            words = twin.torch_name.split(".")
            counts[".".join(words[:2]) if words[0] == "generator" else words[0]] += twin.parameter.size
    page = (Path(__file__).parents[2] / "docs/training.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([\w.]+)` \|.*\| ([\d,]+) \|$", page, re.MULTILINE))
    assert {name: int(count.replace(",", "")) for name, count in rows.items()} == counts
    assert f"**{sum(counts.values()):,}**" in page


@pytest.mark.parametrize(
    ("row", "stages"),
    [
        ("mun-table-2/auxiliary", ["visible_stage.", "infrared_stage."]),
        ("mun-table-2/x", ["visible_stage.", "infrared_stage.", "generator.stage."]),
    ],
)
def test_imagenet_weights_initialise_every_first_stage(tmp_path, row, stages):
    options = {"layers": (1, 1, 1, 1), "width": 4}
    torch.manual_seed(0)
    source = TorchResNet(**options).state_dict()
    save_file(source, tmp_path / "resnet.safetensors")
    overrides = [
        *("model.layers=[1,1,1,1]", "model.width=4", "model.ratios=[2,3]", "data.image_size=[24,24]"),
        *("model.num_classes=5", f"model.pretrained={tmp_path / 'resnet.safetensors'}"),
    ]
    config = load_config(CONFIG_ROOT / f"ablations/{row}.yaml", overrides)
    for weights in (
        values(build_model(config)),
        {name: value.numpy() for name, value in torch_build_model(config).state_dict().items()},
    ):
        for name, value in source.items():
            if name.endswith(COUNTER):
                continue
            own = name.startswith(("conv1.", "bn1.", "layer1."))
            for prefix in stages if own else ["shared."]:
                np.testing.assert_array_equal(weights[prefix + name], value.numpy())
