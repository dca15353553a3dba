"""Twin of `ms_vireid.models.resnet`, whose docstrings hold here; modules are named as torchvision names them."""

from torch import Tensor, nn
from torch.nn import functional

EXPANSION = 4  # a block's output channels over its inner ones
STAGES = (1, 2, 3, 4)


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    layer = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


def batch_norm(channels: int, weight: float = 1.0) -> nn.BatchNorm2d:
    # PyTorch's momentum weighs the new statistics: 0.1 here is MindSpore's 0.9.
    layer = nn.BatchNorm2d(channels, eps=1e-5, momentum=0.1)
    nn.init.constant_(layer.weight, weight)
    nn.init.zeros_(layer.bias)
    return layer


class Bottleneck(nn.Module):
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
            self.downsample = nn.Sequential(convolution(inputs, outputs, 1, stride), batch_norm(outputs))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = functional.relu(self.bn1(self.conv1(x)))
        x = functional.relu(self.bn2(self.conv2(x)))
        return functional.relu(self.bn3(self.conv3(x)) + shortcut)


class ResNet(nn.Module):
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
            self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        strides = (1, 2, 2, last_stride)
        for stage in stages:
            inner = width * 2 ** (stage - 1)
            inputs = width if stage == 1 else EXPANSION * inner // 2
            blocks = [
                Bottleneck(EXPANSION * inner if i else inputs, inner, 1 if i else strides[stage - 1])
                for i in range(layers[stage - 1])
            ]
            setattr(self, f"layer{stage}", nn.ModuleList(blocks))
        self.blocks = tuple(block for stage in stages for block in getattr(self, f"layer{stage}"))

    def forward(self, x: Tensor) -> Tensor:
        if self.has_stem:
            x = self.maxpool(functional.relu(self.bn1(self.conv1(x))))
        for block in self.blocks:
            x = block(x)
        return x
