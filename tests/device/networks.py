"""Networks of this project's parts, by the backend `cuda` and by MindSpore's operators one by one."""

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from ms_vireid.backends.choosing import backend_named
from ms_vireid.engine.distributed import batch_norms
from ms_vireid.models import create_model
from ms_vireid.models.agw import NonLocal
from ms_vireid.models.auxiliary_generator import CrossModalityLearner, IntraModalityLearner
from ms_vireid.models.layers import GeM
from ms_vireid.models.noise import draw_noise
from ms_vireid.models.resnet import Bottleneck, ResNet
from ms_vireid.models.vit import Block, VisionTransformer


class Stripes(nn.Cell):
    """Weighs the upper half of the maps twice."""

    def construct(self, x):
        rows = x.shape[2] // 2
        return ops.cat((2 * x[:, :, :rows], x[:, :, rows:]), 2)


class OwnWay(nn.Cell):
    """AGW from pictures to pooled features, with a layer on the way."""

    def __init__(self):
        super().__init__()
        small = {"width": 2, "layers": (1, 1, 1, 1), "non_local": (0, 1, 1, 0), "pretrained": "none"}
        self.agw = create_model("agw_resnet50", 5, (48, 32), **small)
        self.layer = Stripes()

    def construct(self, x):
        x = self.layer(self.agw.visible_stem(x))
        return self.agw.pool(self.layer(self.agw.shared_blocks(x)))


class Noisy(nn.Cell):
    """A ViT's block that is given noise, whatever mode it is in."""

    def __init__(self):
        super().__init__()
        self.block = Block(16, 2, 4, 0.3, 0.4, 1)
        noise = draw_noise(Tensor(3, ms.int32), (3, 5, 16), (0.0, 0.0, 0.4, 0.4), 0.3)
        self.positions, self.factors = (Tensor(part.asnumpy()) for part in noise)

    def construct(self, x):
        return self.block(x, (self.positions, self.factors))


class Doubled(nn.Cell):
    """Around the operator of a BatchNorm in training."""

    def __init__(self, operator):
        super().__init__()
        self.operator = operator

    def construct(self, *inputs):
        return (2 * self.operator(*inputs)[0],)


def between(*layers):
    return nn.SequentialCell(ResNet((1, 1, 1, 1), 2), *layers, GeM(3.0, 1e-6))


def doubled(network):
    for cell in batch_norms(network):
        cell.bn_train = Doubled(cell.bn_train)
    return network


def vit(embed_dim, side):
    sizes = {"patch_size": 4, "stride": 4, "embed_dim": embed_dim, "depth": 1, "num_heads": 2, "mlp_ratio": 1}
    return nn.SequentialCell(VisionTransformer((side, side), **sizes))


NETWORKS = {  # how it is built, and the shapes of its inputs
    "Bottleneck": (lambda: Bottleneck(8, 4, 2), (3, 8, 6, 5)),
    "ResNet": (lambda: ResNet((1, 1, 1, 1), 2), (2, 3, 32, 16)),
    "NonLocal, width 1": (lambda: NonLocal(6, 1), (3, 6, 4, 5)),
    "NonLocal, width 2": (lambda: NonLocal(6, 2), (3, 6, 4, 5)),
    "IntraModalityLearner": (lambda: IntraModalityLearner(4), (3, 4, 6, 5)),
    "CrossModalityLearner": (lambda: CrossModalityLearner(4, (2, 3)), (3, 4, 6, 12), (3, 4, 6, 12)),
    "Block": (Noisy, (3, 5, 16)),
    "layer of one's own": (lambda: between(Stripes()), (2, 3, 48, 32)),
    "convolution": (lambda: between(nn.Conv2d(64, 64, 3), nn.BatchNorm2d(64), nn.ReLU()), (2, 3, 48, 32)),
    "AGW": (OwnWay, (2, 3, 48, 32)),
    "other statistics, Bottleneck": (lambda: doubled(Bottleneck(4, 2, 1)), (3, 4, 6, 5)),
    "other statistics, NonLocal": (lambda: doubled(NonLocal(4, 1)), (3, 4, 6, 5)),
    "ViT, 1028 columns": (lambda: vit(1028, 8), (1, 3, 8, 8)),
    "ViT, 530 tokens": (lambda: vit(8, 92), (1, 3, 92, 92)),
}


def difference(name: str, evaluated: list[str]) -> float:
    """The largest difference of a network's output, gradients and running averages, in training, by the backend `cuda`
    from those that it has as it is written, relative to the largest number of each, or to 1.

    evaluated: names of parts in evaluation mode.
    """
    rng, (build, *shapes) = np.random.default_rng(0), NETWORKS[name]
    networks = [build().set_train() for _ in range(2)]
    for first, second in zip(*(network.get_parameters() for network in networks), strict=True):
        value = (0.5 * rng.normal(size=first.shape)).astype(np.float32)
        value = np.abs(value) + 0.5 if first.name.endswith("moving_variance") else value
        first.set_data(Tensor(value)), second.set_data(Tensor(value.copy()))
    inputs = [Tensor(rng.normal(size=shape).astype(np.float32)) for shape in shapes]
    for network in networks:
        for part, cell in network.cells_and_names():
            if part in evaluated:
                cell.set_train(False)

    def results(network, compiled):
        def weighted(*inputs):
            y = network(*inputs)
            return (y * Tensor(np.cos(np.arange(y.size)).reshape(y.shape).astype(np.float32))).sum(), y

        compute = ms.value_and_grad(weighted, tuple(range(len(inputs))), network.trainable_params(), has_aux=True)
        prepared = backend_named("cuda").accelerate(network) if compiled else None
        (_, y), (of_inputs, of_weights) = (prepared.compile(compute) if compiled else compute)(*inputs)
        buffers = [parameter for parameter in network.get_parameters() if not parameter.requires_grad]
        of_inputs = of_inputs if isinstance(of_inputs, tuple) else (of_inputs,)
        return [tensor.asnumpy() for tensor in (y, *of_inputs, *of_weights, *buffers)]

    found = results(networks[0], False), results(networks[1], True)
    return max(float(np.abs(a - b).max() / max(np.abs(a).max(), 1.0)) for a, b in zip(*found, strict=True))
