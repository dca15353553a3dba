"""What the backend `cuda` replaces has the contract of what is replaced: the order of axes, training flags, arguments.

On the stand-in, beside MindSpore's operators in PyNative mode; networks whose numbers any order of axes changes.
"""

import pytest

LIMIT = 3e-5  # float32, of outputs, gradients and running averages, relative to the largest of each
DEEP_LIMIT = 2e-4  # of a ResNet and GeM, which magnify rounding; another order of axes shows from 0.1 on


@pytest.mark.parametrize("network", ["layer of one's own", "convolution", "AGW"])
def test_a_layer_of_ones_own_between_resnet_and_gem_gets_channels_first(worker, network):
    assert worker.do("kernels_differ_by", network, []) < DEEP_LIMIT


@pytest.mark.parametrize(
    ("network", "parts"),
    [
        ("Bottleneck", ["bn3", "downsample.1"]),
        ("ResNet", ["bn1", "layer2.0.bn1", "layer4.0.bn3"]),
        ("NonLocal, width 1", ["W.1"]),
        ("NonLocal, width 2", ["W.1"]),
        ("IntraModalityLearner", ["bn1"]),
        ("IntraModalityLearner", ["bn2"]),
        ("CrossModalityLearner", ["bn"]),
        ("Block", [""]),
        ("Block", ["block.mlp.drop1", "block.drop_path2"]),
        ("Block", ["block.mlp.drop2", "block.drop_path1", "block.attn.proj_drop"]),
    ],
    ids=str,
)
def test_a_part_in_evaluation_mode_within_a_training(worker, network, parts):
    assert worker.do("kernels_differ_by", network, parts) < LIMIT


def test_tensors_are_joined_and_split_as_by_mindspore(worker):
    found = worker.do("joins_differ")
    assert found["differ"] == []
    assert len(found["computed"]) > len(found["refused"]) > 0
