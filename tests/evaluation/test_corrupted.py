"""The evaluation of corrupted sets: what is corrupted, how often, and what is averaged."""

import numpy as np
import pytest
from mindspore import nn, ops
from PIL import Image

from ms_vireid.backends.choosing import backend_named
from ms_vireid.command.errors import InputError
from ms_vireid.config import check_config
from ms_vireid.data.corruptions import CorruptedVersion
from ms_vireid.data.readers import read_folder, read_sysu_mm01
from ms_vireid.evaluation.evaluating import evaluate_corrupted, evaluate_model
from ms_vireid.evaluation.protocol import evaluate_trials, sysu_mm01_trials, trials_checksum
from ms_vireid.search.features import FeatureExtractor

from ..data import tree


class Pixels(nn.Cell):
    """Features are what can be seen: the means of an image's quarters, normalised."""

    BY_MODALITY = True

    def construct(self, images, modality):
        means = images.reshape(len(images), 3, 4, 4, 2, 4).mean(axis=(3, 5)).reshape(len(images), -1)
        return means / ops.sqrt((means * means).sum(axis=1, keepdims=True))


@pytest.fixture
def extractor():
    return FeatureExtractor(Pixels(), backend_named("eager"), (16, 8), 4)


def configuration(**evaluation):
    stage = {"epochs": 1, "losses": {"id": {}}}
    data = {"name": "sysu_mm01", "image_size": [16, 8], "workers": 0}
    model = {"name": "pmt", "patch_size": 4, "stride": 4}
    values = {"data": data, "model": model, "stages": [stage], "evaluation": evaluation}
    return check_config(values, "test").evaluation


@pytest.fixture(scope="module")
def sysu(tmp_path_factory):
    return read_sysu_mm01(tree.write_sysu_mm01(tmp_path_factory.mktemp("sysu")))


def test_ten_evaluations_of_the_first_trial_each_of_another_version(extractor, sysu):
    """Written plainly: for every evaluation all pictures are extracted anew."""
    result = evaluate_corrupted(extractor, sysu, configuration())
    expected, trial = [], sysu_mm01_trials(sysu.test)[0]
    for t in range(10):
        version = CorruptedVersion(t, np.arange(len(sysu.test)))
        features = extractor.extract(sysu.test, version)
        expected += [evaluate_trials(features, sysu.test, [trial], "sysu_mm01").trials[0].metrics()]
    assert [trial.metrics() for trial in result.trials] == expected
    assert result.mean["map"] == pytest.approx(np.mean([metrics["map"] for metrics in expected]), abs=1e-15)
    assert result.std["map"] > 0
    assert result.checksum == trials_checksum(sysu.test, [trial] * 10)


def test_flipped_pictures_add_their_features(extractor, sysu):
    plain, both = (extractor.extract(sysu.test, flip=flip) for flip in (False, True))
    # The features are means of 4x2 places by channel: a turned picture has the two columns exchanged.
    turned = plain.reshape(-1, 3, 4, 2)[..., ::-1].reshape(plain.shape)
    np.testing.assert_allclose(both, (plain + turned) / 2, atol=1e-6)
    sums = evaluate_trials(plain + turned, sysu.test, sysu_mm01_trials(sysu.test), "sysu_mm01")  # as released
    found = evaluate_model(extractor, sysu, configuration(flip=True))
    assert found.mean == pytest.approx(sums.mean)
    assert found.mean != evaluate_model(extractor, sysu, configuration()).mean
    again = evaluate_model(extractor, sysu, configuration(flip=True, renormalise=True))
    unit = both / np.linalg.norm(both, axis=1, keepdims=True)
    expected = evaluate_trials(unit, sysu.test, sysu_mm01_trials(sysu.test), "sysu_mm01")
    assert again.mean == pytest.approx(expected.mean)
    assert again.mean != found.mean


def test_frost_can_be_a_users_photographs(extractor, sysu, tmp_path):
    Image.fromarray(np.full((300, 200, 3), 255, np.uint8)).save(tmp_path / "white.png")
    versions, extract = [], extractor.extract

    def recording(images, version=None, **more):
        versions.append(version)
        return extract(images, version, **more)

    extractor.extract = recording
    evaluate_corrupted(extractor, sysu, configuration(frost=str(tmp_path)))
    assert [photograph.min() for version in versions[1:] for photograph in version.photographs] == 10 * [255]
    with pytest.raises(InputError, match="nowhere"):
        evaluate_corrupted(extractor, sysu, configuration(frost=str(tmp_path / "nowhere")))


@pytest.mark.parametrize("direction", ["infrared-to-visible", "visible-to-infrared"])
def test_a_protocol_of_one_trial_is_evaluated_ten_times_and_visible_is_corrupted_on_either_side(
    extractor, tmp_path, direction
):
    data = read_folder(tree.write_folder(tmp_path), 0.5)
    config = configuration(direction=direction)
    result = evaluate_corrupted(extractor, data, config)
    assert len(result.trials) == 10
    assert len({trial.mean_ap for trial in result.trials}) > 1
    assert evaluate_corrupted(extractor, data, config).mean == result.mean


def test_infrared_pictures_are_extracted_once(extractor, sysu):
    extracted, extract = [], extractor.extract

    def counting(images, *options, **more):
        extracted.append(np.count_nonzero(images.infrared))
        return extract(images, *options, **more)

    extractor.extract = counting
    evaluate_corrupted(extractor, sysu, configuration())
    assert extracted == [len(sysu_mm01_trials(sysu.test)[0].query)] + 10 * [0]
