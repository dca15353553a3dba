"""Models of somebody's own around this project's parts, with MindSpore's layers between."""

from mindspore import Parameter, nn, ops

from ms_vireid.models import ResNet, VisionTransformer
from ms_vireid.models.base import ReIDModel
from ms_vireid.models.layers import Dropout, DropPath, GeM, bn_neck, identity_classifier, l2_normalise
from ms_vireid.models.resnet import Bottleneck
from ms_vireid.models.vit import Attention, Block, Mlp, layer_norm

WIDTH, CLASSES = 8, 3
CHANNELS = 32 * WIDTH
LAYERS = (1, 2, 1, 1)


class Own(ReIDModel):
    """Pictures -> `features_of` -> BNNeck."""

    def __init__(self, features: int):
        super().__init__()
        self.bottleneck = bn_neck(features)
        self.classifier = identity_classifier(features, CLASSES)

    def construct(self, images, modality=None, key=None, labels=None, progress=0.0):
        features = self.features_of(images, key)
        normalised = self.bottleneck(features)
        if self.training:
            return self.classifier(normalised), features, normalised
        return l2_normalise(normalised)

    def in_backbone(self, name):
        return not name.startswith(("bottleneck.", "classifier."))


class OnMaps(Own):
    """On the maps of this project's ResNet, pooled by its GeM."""

    def __init__(self, features: int = CHANNELS):
        super().__init__(features)
        self.base = ResNet(LAYERS, WIDTH)
        self.pool = GeM()


class Stripes(OnMaps):
    """PCB's stripes (Sun et al. 2018): each of three parts of the height is pooled by itself."""

    def __init__(self):
        super().__init__(3 * CHANNELS)

    def features_of(self, images, key):
        maps = self.base(images)
        height = maps.shape[2] // 3
        parts = ()
        for i in range(3):
            parts += (self.pool(maps[:, :, i * height : (i + 1) * height]),)
        return ops.cat(parts, 1)


class UpperHalf(OnMaps):
    """The upper half of the maps counts twice."""

    def features_of(self, images, key):
        maps = self.base(images)
        half = maps.shape[2] // 2
        return self.pool(ops.concat((2.0 * maps[:, :, :half], maps[:, :, half:]), 2))


class ChannelMean(OnMaps):
    """Maps less their mean over the channels."""

    def features_of(self, images, key):
        maps = self.base(images)
        return self.pool(ops.relu(maps - maps.mean(axis=1, keep_dims=True)))


class SqueezeAndExcitation(nn.Cell):
    """Hu et al. 2018."""

    def __init__(self, channels):
        super().__init__()
        self.reduce = nn.Dense(channels, channels // 4, activation="relu")
        self.expand = nn.Dense(channels // 4, channels)

    def construct(self, x):
        weights = ops.sigmoid(self.expand(self.reduce(x.mean((2, 3)))))
        return x * weights.reshape(x.shape[0], x.shape[1], 1, 1)


class Excited(OnMaps):
    """A squeeze-and-excitation block, and a convolution with BatchNorm, before pooling."""

    def __init__(self):
        super().__init__()
        self.excite = SqueezeAndExcitation(CHANNELS)
        self.convolution = nn.Conv2d(CHANNELS, CHANNELS, 3)
        self.norm = nn.BatchNorm2d(CHANNELS)

    def features_of(self, images, key):
        x = self.excite(self.base(images))
        return self.pool(ops.relu(self.norm(self.convolution(x))))


class Attended(Own):
    """CBAM (Woo et al. 2018) between stages: attention over channels, then over places."""

    def __init__(self):
        super().__init__(CHANNELS)
        self.early = ResNet(LAYERS, WIDTH, stages=(1, 2))
        self.late = ResNet(LAYERS, WIDTH, stem=False, stages=(3, 4))
        channels = 8 * WIDTH
        self.dense = nn.SequentialCell(nn.Dense(channels, 8), nn.ReLU(), nn.Dense(8, channels))
        self.places = nn.Conv2d(2, 1, 7, pad_mode="pad", padding=3)
        self.pool = GeM()

    def features_of(self, images, key):
        x = self.early(images)
        weights = ops.sigmoid(self.dense(x.mean((2, 3))) + self.dense(x.amax((2, 3))))
        x = x * weights.reshape(x.shape[0], x.shape[1], 1, 1)
        both = ops.cat((x.mean(1, keep_dims=True), x.amax(1).unsqueeze(1)), 1)
        return self.pool(self.late(x * ops.sigmoid(self.places(both))))


class TwoBranches(Own):
    """A second branch from stage 3, of blocks that are called one by one."""

    def __init__(self):
        super().__init__(CHANNELS + 16 * WIDTH)
        self.base = ResNet(LAYERS, WIDTH, stages=(1, 2, 3))
        self.last = nn.CellList([Bottleneck(16 * WIDTH, 8 * WIDTH, 1), Bottleneck(CHANNELS, 8 * WIDTH, 1)])
        self.pool = GeM()

    def features_of(self, images, key):
        maps = self.base(images)
        x = maps
        for block in self.last:
            x = block(x)
        return ops.cat((self.pool(x), maps.mean((2, 3))), -1)


class Plain(Own):
    """A plain network of MindSpore's layers, with settings that no model of this project has."""

    def __init__(self):
        super().__init__(32)
        self.layers = nn.SequentialCell(
            nn.Conv2d(3, 16, 3, 2, pad_mode="pad", padding=1, has_bias=True),
            nn.BatchNorm2d(16),
            nn.LeakyReLU(),
            nn.Conv2d(16, 16, 3, pad_mode="pad", padding=2, dilation=2, group=4),
            nn.BatchNorm2d(16, use_batch_statistics=True),
            nn.GELU(approximate=False),
            nn.MaxPool2d(2, 2),
            nn.Conv2d(16, 32, (3, 1), pad_mode="valid"),
            nn.AvgPool2d(3, 2),
        )

    def features_of(self, images, key):
        return self.layers(images).mean((2, 3))


class GatedBlock(nn.Cell):
    """Another block of a ViT: scaled branches, an MLP with a gate, noise of this project."""

    def __init__(self, width, index):
        super().__init__()
        self.norm1 = layer_norm(width)
        self.attention = Attention(width, 2, 0.1, index)
        self.norm2 = nn.LayerNorm([width])
        self.gate = nn.Dense(width, width)
        self.mlp = Mlp(width, 4, 0.1, index)
        self.path = DropPath(0.1, 2 * index, 0.1)
        self.scale = Parameter(0.5 * ops.ones((width,)))

    def construct(self, x, noise=None):
        x = x + self.path(self.scale * self.attention(self.norm1(x), noise), noise)
        normalised = self.norm2(x)
        return x + ops.sigmoid(self.gate(normalised)) * self.mlp(normalised, noise)


class Gated(Own):
    """A ViT with one block of another kind, and dropout between."""

    def __init__(self):
        super().__init__(16)
        self.base = VisionTransformer((48, 24), 8, 6, 16, 3, 2, dropout=0.1, drop_path=0.2)
        self.base.blocks[1] = GatedBlock(16, 1)
        self.dropout = nn.Dropout(p=0.0)

    def features_of(self, images, key):
        return self.dropout(self.base(images, key))


class TwoTransformers(Own):
    """Blocks of this project in a network that is not its ViT, called with and without noise."""

    def __init__(self):
        super().__init__(16)
        self.embed = nn.Conv2d(3, 16, 8, 8, pad_mode="valid", has_bias=True)
        self.first = Block(16, 2, 4, 0.0, 0.0, 0)
        self.second = Block(16, 4, 2, 0.0, 0.0, 1)
        self.drop = Dropout(0.0, 0)
        self.norm = layer_norm(16)

    def features_of(self, images, key):
        x = self.embed(images).flatten(start_dim=2).swapaxes(1, 2)
        x = self.drop(self.second(self.first(x)), None)
        return self.norm(x).mean(1)


KINDS = Stripes, UpperHalf, ChannelMean, Excited, Attended, TwoBranches, Plain, Gated, TwoTransformers
MODELS = {of.__name__: of for of in KINDS}
