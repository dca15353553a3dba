"""The CUDA kernels know the settings that they compute: a cell with others keeps its own code."""

import mindspore as ms
import pytest
from mindspore import Parameter, nn, ops

from ms_vireid.backends.cuda import feature_maps, transformer
from ms_vireid.engine.distributed import batch_norms
from ms_vireid.models import create_model
from ms_vireid.models.agw import NonLocal
from ms_vireid.models.auxiliary_generator import CrossModalityLearner, IntraModalityLearner
from ms_vireid.models.layers import pointwise
from ms_vireid.models.resnet import Bottleneck, ResNet, convolution
from ms_vireid.models.vit import Block, VisionTransformer
from tests.backends.test_kernels import changed

SMALL = {"width": 4, "layers": (1, 1, 1, 1), "pretrained": "none"}
CELLS = {
    "Bottleneck": (lambda: Bottleneck(8, 4, 2), feature_maps.knows_bottleneck),
    "ResNet": (lambda: ResNet((1, 1, 1, 1), 4), feature_maps.knows_resnet),
    "NonLocal": (lambda: NonLocal(8, 1), feature_maps.knows_non_local),
    "NonLocal, wide": (lambda: NonLocal(8, 4), feature_maps.knows_non_local),
    "IntraModalityLearner": (lambda: IntraModalityLearner(8), feature_maps.knows_intra_modality),
    "CrossModalityLearner": (lambda: CrossModalityLearner(8, (2, 3)), feature_maps.knows_cross_modality),
    "Block": (lambda: Block(8, 2, 4, 0.1, 0.1, 0), transformer.knows_block),
    "VisionTransformer": (
        lambda: VisionTransformer((8, 8), 4, 4, 8, 2, 2, dropout=0.1, drop_path=0.1),
        transformer.knows_encoded,
    ),
}


@pytest.mark.parametrize("name", CELLS)
def test_cells_as_they_are_built(name):
    build, knows = CELLS[name]
    assert knows(build())


# Settings that the kernels heed.
@pytest.mark.parametrize(
    ("name", "attribute", "value"),
    [
        ("Bottleneck", "bn1", lambda: nn.BatchNorm2d(4, eps=1e-3, momentum=0.5)),
        ("Bottleneck", "conv2", lambda: nn.Conv2d(4, 4, 5, 2, "pad", 2, has_bias=True)),
        ("Bottleneck", "conv2", lambda: nn.Conv2d(4, 4, 3, 2, "pad", 2, dilation=2)),
        ("Bottleneck", "bn1.bn_train", ops.ReLU),  # statistics of several processes
        ("IntraModalityLearner", "first", lambda: nn.Conv2d(4, 4, 9, 1, "pad", 4, group=4)),
        ("Block", "norm1.epsilon", lambda: 1e-3),
        ("Block", "attn.proj_drop.scale", lambda: 2.0),
    ],
)
def test_other_settings_that_are_computed(name, attribute, value):
    build, knows = CELLS[name]
    assert knows(changed(build(), attribute, value()))


@pytest.mark.parametrize(
    ("name", "attribute", "value"),
    [
        ("Bottleneck", "bn1.use_batch_statistics", lambda: True),
        ("Bottleneck", "bn1.format", lambda: "NHWC"),
        ("Bottleneck", "bn1.eps", lambda: 1e-3),  # the operator has the eps of before
        ("Bottleneck", "bn1.momentum", lambda: 0.5),
        ("Bottleneck", "bn2", lambda: nn.GroupNorm(2, 4)),
        ("Bottleneck", "conv2.stride", lambda: (1, 1)),
        ("Bottleneck", "conv2.conv2d", lambda: ops.Conv2D(4, 3, pad_mode="pad", pad=1, stride=1)),
        ("Bottleneck", "conv2", lambda: nn.Conv2d(4, 4, 3, 2, "pad", 1, group=2)),
        ("Bottleneck", "conv2", lambda: nn.Conv2d(4, 4, (3, 1), 2)),
        ("Bottleneck", "downsample", lambda: nn.SequentialCell(convolution(8, 16, 1, 2))),
        ("Bottleneck", "downsample", lambda: nn.SequentialCell(nn.AvgPool2d(2, 2), convolution(8, 16, 1))),
        ("ResNet", "maxpool", lambda: nn.MaxPool2d(2, 2)),
        ("ResNet", "maxpool", lambda: nn.MaxPool2d(3, 2, "pad", 1, ceil_mode=True)),
        ("NonLocal", "theta", lambda: pointwise(8, 1, bias=False)),
        ("NonLocal", "g", lambda: nn.Conv2d(8, 1, 1, 2, has_bias=True)),
        ("NonLocal", "W", lambda: nn.SequentialCell(pointwise(1, 8))),
        ("NonLocal, wide", "phi", lambda: nn.Conv2d(8, 4, 3, has_bias=True)),
        ("NonLocal, wide", "width", lambda: 2),
        ("IntraModalityLearner", "reduce", lambda: nn.Conv2d(32, 8, 3)),
        ("IntraModalityLearner", "reduce", lambda: pointwise(32, 8)),
        ("IntraModalityLearner", "scale", lambda: Parameter(ops.ones((3, 1, 1, 1), ms.float32))),
        ("CrossModalityLearner", "pools.0", lambda: nn.AvgPool2d(2, 1)),
        ("CrossModalityLearner", "ratios", lambda: (2, 3, 6)),
        ("CrossModalityLearner", "transposed.0", lambda: nn.Conv2dTranspose(8, 8, 2, 2, "valid", has_bias=True)),
        ("CrossModalityLearner", "transposed.1", lambda: nn.Conv2dTranspose(8, 8, 3, 3, "same")),
        ("Block", "attn.head_dim", lambda: 2),
        ("Block", "attn.num_heads", lambda: 4),
        ("Block", "attn.qkv", lambda: nn.Dense(8, 24, has_bias=False)),
        ("Block", "mlp.fc1", lambda: nn.Dense(8, 32, activation="relu")),
        ("Block", "mlp.fc2", lambda: nn.Dense(32, 4)),
        ("Block", "mlp.act", lambda: nn.GELU(approximate=True)),
        ("Block", "mlp.act", nn.ReLU),
        ("Block", "mlp.drop1.parts", lambda: 1),
        ("VisionTransformer", "blocks.1.mlp.act", nn.ReLU),
    ],
)
def test_settings_that_are_not(name, attribute, value):
    build, knows = CELLS[name]
    assert not knows(changed(build(), attribute, value()))


def test_more_ratios_than_a_launch_takes():
    assert not feature_maps.knows_cross_modality(CrossModalityLearner(8, (2, 3) * 5))


@pytest.mark.parametrize("intermediate", ["auxiliary", "X", "syncretic", "mixed", "none"])
def test_whole_muns(intermediate):
    model = create_model("mun_resnet50", 5, (48, 24), **SMALL, intermediate=intermediate, ratios=(2, 3))
    assert feature_maps.knows_muns_training(model)
    assert feature_maps.knows_muns_evaluation(model)
    model.shared.blocks[0].bn2.use_batch_statistics = False
    assert not feature_maps.knows_muns_training(model)
    assert not feature_maps.knows_muns_evaluation(model)


def test_a_whole_agw():
    model = create_model("agw_resnet50", 5, (48, 24), **SMALL, non_local=(0, 1, 0, 0))
    assert feature_maps.knows_agw(model)
    for norm in batch_norms(model):
        norm.bn_train = ops.ReLU()  # as with statistics of several processes
    assert feature_maps.knows_agw(model)
    model.non_local_2[0].W[1].bn_infer = ops.ReLU()
    assert feature_maps.knows_agw(model)
    model.infrared_stem.maxpool = nn.MaxPool2d(3, 2)
    assert not feature_maps.knows_agw(model)
