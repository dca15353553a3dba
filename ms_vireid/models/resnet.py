"""ResNet-50 (He et al. 2016) in torchvision's v1.5 layout, whole or in the parts that the modalities share or not."""

from mindspore import Tensor, nn, ops
from mindspore.common.initializer import HeNormal

from ms_vireid.programs.ascend import ready

EXPANSION = 4  # a block's output channels over its inner ones
STAGES = (1, 2, 3, 4)


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """Without bias, "same" padding; Kaiming-normal by the outputs."""
    cell = nn.Conv2d(
        inputs,
        outputs,
        kernel,
        stride=stride,
        pad_mode="pad",
        padding=kernel // 2,
        weight_init=HeNormal(mode="fan_out", nonlinearity="relu"),
        has_bias=False,
    )
    return ready(cell)


class BatchNormAct2d(nn.BatchNorm2d):
    """BatchNorm with what follows it in a residual network."""

    def construct(self, x: Tensor, shortcut: Tensor | None = None, relu: bool = False) -> Tensor:
        """BatchNorm of x, plus a shortcut, and a ReLU, where asked for: [N, C, H, W] -> [N, C, H, W]."""
        x = super().construct(x)
        if shortcut is not None:
            x = ops.add(x, shortcut)
        return ops.relu(x) if relu else x


def batch_norm(channels: int, gamma: str = "ones") -> BatchNormAct2d:
    # MindSpore's momentum weighs the old statistics: 0.9 here is PyTorch's 0.1.
    return ready(BatchNormAct2d(channels, eps=1e-5, momentum=0.9, gamma_init=gamma, beta_init="zeros"))


class Bottleneck(nn.Cell):
    """1x1, 3x3 (which has the stride: v1.5), 1x1; the shortcut is projected where the shape changes."""

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        outputs = EXPANSION * width
        self.conv1 = convolution(inputs, width, 1)
        self.bn1 = batch_norm(width)
        self.conv2 = convolution(width, width, 3, stride)
        self.bn2 = batch_norm(width)
        self.conv3 = convolution(width, outputs, 1)
        self.bn3 = batch_norm(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.SequentialCell([convolution(inputs, outputs, 1, stride), batch_norm(outputs)])

    def construct(self, x: Tensor) -> Tensor:
        return self.added(x, x)

    def added(self, x: Tensor, shortcut: Tensor) -> Tensor:
        """What the block makes of its input x, and its shortcut of the same."""
        if self.downsample is not None:
            shortcut = self.downsample(shortcut)
        x = self.bn1(self.conv1(x), None, True)
        x = self.bn2(self.conv2(x), None, True)
        return self.bn3(self.conv3(x), shortcut, True)


class ResNet(nn.Cell):
    """ResNet-50 without its pooling and classifier, or some of its parts; cells are named as torchvision names them.

    A part takes what the part before it gives: a modality's own beginning is `ResNet(stages=())` (conv1, bn1, ReLU
    and pooling) or `ResNet(stages=(1,))`, and what both share `ResNet(stem=False)` or
    `ResNet(stem=False, stages=(2, 3, 4))`.

    Args:
        layers: blocks of each of the four stages.
        width: channels of the stem, and inner channels of the first stage; each further stage doubles the latter.
        last_stride: stride of stage 4, 2 as published, 1 where the field keeps a larger feature map.
        stem: whether this part has the stem. stages: which stages it has, in order, `layerN` each.
    """

    def __init__(
        self,
        layers: tuple[int, int, int, int] = (3, 4, 6, 3),
        width: int = 64,
        last_stride: int = 1,
        stem: bool = True,
        stages: tuple[int, ...] = STAGES,
    ):
        super().__init__()
        self.has_stem = stem
        if stem:
            self.conv1 = convolution(3, width, 7, stride=2)
            self.bn1 = batch_norm(width)
            self.maxpool = ready(nn.MaxPool2d(kernel_size=3, stride=2, pad_mode="pad", padding=1))
        strides = (1, 2, 2, last_stride)
        for stage in stages:
            inner = width * 2 ** (stage - 1)
            inputs = width if stage == 1 else EXPANSION * inner // 2
            blocks = [
                Bottleneck(EXPANSION * inner if i else inputs, inner, 1 if i else strides[stage - 1])
                for i in range(layers[stage - 1])
            ]
            setattr(self, f"layer{stage}", nn.CellList(blocks))
        self.blocks = tuple(block for stage in stages for block in getattr(self, f"layer{stage}"))

    def construct(self, x: Tensor) -> Tensor:
        """float32 [N, 3, H, W], or the feature map of the part before -> [N, C, h, w], not negative.

        288x144 pixels give 72x36 after the stem and stage 1, 36x18, 18x9, and 18x9 after stage 4 with stride 1, with
        256, 512, 1024 and 2048 channels.
        """
        if self.has_stem:
            x = self.maxpool(self.bn1(self.conv1(x), None, True))
        for block in self.blocks:
            x = block(x)
        return x
