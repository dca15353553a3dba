"""ResNet-50 (He et al. 2016) in torchvision's v1.5 layout, whole or in parts, which modalities may share or not."""

from mindspore import Tensor, nn, ops
from mindspore.common.initializer import HeNormal

from ms_vireid.replaceable import replaceable

EXPANSION = 4  # a block's output channels over its inner ones
STAGES = (1, 2, 3, 4)


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """Without bias, "same" padding; Kaiming-normal by the outputs."""
    init = HeNormal(mode="fan_out", nonlinearity="relu")
    return nn.Conv2d(inputs, outputs, kernel, stride, pad_mode="pad", padding=kernel // 2, weight_init=init)


def batch_norm(channels: int, gamma: str = "ones") -> nn.BatchNorm2d:
    # MindSpore's momentum weighs the old statistics: 0.9 here is PyTorch's 0.1.
    return nn.BatchNorm2d(channels, eps=1e-5, momentum=0.9, gamma_init=gamma, beta_init="zeros")


class Bottleneck(nn.Cell):
    """1x1, 3x3 (with the stride: v1.5), 1x1; the shortcut is projected where the shape changes."""

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

    @replaceable("numba", "cuda")
    def construct(self, x: Tensor) -> Tensor:
        """[N, inputs, H, W] -> [N, 4 * width, H / stride, W / stride]."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = ops.relu(self.bn1(self.conv1(x)))
        x = ops.relu(self.bn2(self.conv2(x)))
        return ops.relu(self.bn3(self.conv3(x)) + shortcut)


class ResNet(nn.Cell):
    """ResNet-50 without its pooling and classifier, or some of its stages; cells have torchvision's names.

    A part takes the output of the part before it: a modality begins with `ResNet(stages=())` (conv1, bn1, ReLU and
    pooling) or `ResNet(stages=(1,))`, and both share `ResNet(stem=False)` or `ResNet(stem=False, stages=(2, 3, 4))`.

    Args:
        layers: blocks of each of the four stages.
        width: channels of the stem, and inner channels of the first stage; each further stage doubles the latter.
        last_stride: stride of stage 4: 2 as published; in re-identification 1, for a larger feature map.
        stem: whether this part has the stem. stages: the stages that it has, in order, each called `layerN`.
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
            self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, pad_mode="pad", padding=1)
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

    @replaceable("numba", "cuda")
    def construct(self, x: Tensor) -> Tensor:
        """float32 [N, 3, H, W], or the previous part's feature map -> [N, C, h, w], not negative.

        288x144 pixels give 72x36 after the stem and stage 1, 36x18, 18x9, and 18x9 after stage 4 with stride 1, with
        256, 512, 1024 and 2048 channels.
        """
        if self.has_stem:
            x = self.maxpool(ops.relu(self.bn1(self.conv1(x))))
        for block in self.blocks:
            x = block(x)
        return x

    @staticmethod
    def convolutions(*parts: nn.Cell) -> tuple[nn.Conv2d, ...]:
        """All convolutions of some cells. The input of a BatchNorm can be recomputed in the backward pass; a BatchNorm
        itself must run once in a step, as it changes its running averages."""
        return tuple(cell for part in parts for _, cell in part.cells_and_names() if isinstance(cell, nn.Conv2d))
