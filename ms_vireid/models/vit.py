"""Vision Transformer with overlapping patches (PMT, section "Experimental Setting"; Dosovitskiy et al. 2020)."""

import math

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore.common.initializer import Normal, Uniform, initializer

from ms_vireid.command.arguments import require
from ms_vireid.models.layers import Dropout, DropPath, LayerNorm
from ms_vireid.models.noise import Noise, draw_noise
from ms_vireid.replaceable import replaceable

LAYER_NORM_EPS = 1e-5


class PatchEmbed(nn.Cell):
    """Patches by a convolution, whose bias starts as PyTorch initialises it by default, as released."""

    def __init__(self, image_size: tuple[int, int], patch_size: int, stride: int, embed_dim: int):
        super().__init__()
        self.image_size = image_size
        self.grid_size = patch_grid(image_size, patch_size, stride)
        spread = Normal(math.sqrt(2.0 / (patch_size * patch_size * embed_dim)))
        bias = Uniform(1.0 / math.sqrt(3 * patch_size * patch_size))
        self.proj = nn.Conv2d(
            3, embed_dim, patch_size, stride, pad_mode="valid", has_bias=True, weight_init=spread, bias_init=bias
        )

    def construct(self, images: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, L, D], patches row by row."""
        if images.shape[2:] != self.image_size:
            raise ValueError(f"expected images of {self.image_size} (H, W), got {images.shape[2:]}")
        return self.proj(images).flatten(start_dim=2).swapaxes(1, 2)  # [N, L, D]


def patch_grid(image_size: tuple[int, int], patch_size: int, stride: int) -> tuple[int, int]:
    """Rows and columns of patches: 256x128, patch 16, stride 12 gives 21x10."""
    height, width = image_size
    require(min(height, width) >= patch_size, "image_size", image_size, f"of at least one patch of {patch_size} pixels")
    return (height - patch_size) // stride + 1, (width - patch_size) // stride + 1


def dense(inputs: int, outputs: int) -> nn.Dense:
    return nn.Dense(inputs, outputs, weight_init=Normal(0.02), bias_init="zeros")


def layer_norm(width: int) -> LayerNorm:
    return LayerNorm([width], epsilon=LAYER_NORM_EPS)


class Attention(nn.Cell):
    """Multi-head self-attention with a fused projection and no dropout on the attention map. `proj_drop` does not
    rescale: DropPath applies the factor."""

    def __init__(self, embed_dim: int, num_heads: int, dropout: float, index: int):
        super().__init__()
        require(embed_dim % num_heads == 0, "embed_dim", embed_dim, f"a multiple of num_heads {num_heads}")
        self.num_heads = num_heads
        self.head_dim = embed_dim // num_heads
        self.qkv = dense(embed_dim, 3 * embed_dim)
        self.proj = dense(embed_dim, embed_dim)
        self.proj_drop = Dropout(dropout, 1 + 2 * index, scaled=False)

    @replaceable("numba", "graph")
    def construct(self, x: Tensor, noise: Noise | None) -> Tensor:
        """[N, T, D] -> [N, T, D]."""
        batch, tokens, width = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)  # [N, heads, T, head_dim]
        scores = (query * self.head_dim**-0.5) @ key.permute(0, 1, 3, 2)  # [N, heads, T, T]
        x = ops.softmax(scores, -1) @ value  # [N, heads, T, head_dim]
        x = x.permute(0, 2, 1, 3).reshape(batch, tokens, width)
        return self.proj_drop(self.proj(x), noise)


class Mlp(nn.Cell):
    """Two layers with GELU and dropout. `drop2` does not rescale: DropPath applies the factor."""

    def __init__(self, embed_dim: int, mlp_ratio: int, dropout: float, index: int):
        super().__init__()
        self.fc1 = dense(embed_dim, mlp_ratio * embed_dim)
        self.act = nn.GELU(approximate=False)
        self.drop1 = Dropout(dropout, index, parts=mlp_ratio)
        self.fc2 = dense(mlp_ratio * embed_dim, embed_dim)
        self.drop2 = Dropout(dropout, 2 + 2 * index, scaled=False)

    def construct(self, x: Tensor, noise: Noise | None) -> Tensor:
        """[N, T, D] -> [N, T, D]."""
        x = self.act(self.fc1(x))  # [N, T, mlp_ratio * D]
        x = self.drop1(x, noise)
        return self.drop2(self.fc2(x), noise)


class Block(nn.Cell):
    """Pre-norm transformer block: x + attention(norm(x)), then x + MLP(norm(x)), each with drop path. This also
    rescales the dropout of its branch."""

    def __init__(self, embed_dim: int, num_heads: int, mlp_ratio: int, dropout: float, drop_path: float, index: int):
        super().__init__()
        self.norm1 = layer_norm(embed_dim)
        self.attn = Attention(embed_dim, num_heads, dropout, index)
        self.norm2 = layer_norm(embed_dim)
        self.mlp = Mlp(embed_dim, mlp_ratio, dropout, index)
        self.drop_path1 = DropPath(drop_path, 2 * index, dropout)
        self.drop_path2 = DropPath(drop_path, 2 * index + 1, dropout)

    @replaceable("graph", "cuda")
    def construct(self, x: Tensor, noise: Noise | None = None) -> Tensor:
        """[N, T, D] -> [N, T, D]."""
        x = x + self.drop_path1(self.attn(self.norm1(x), noise), noise)
        return x + self.drop_path2(self.mlp(self.norm2(x), noise), noise)


class VisionTransformer(nn.Cell):
    """ViT whose patches may overlap; parameters have timm's names.

    Args:
        image_size: (H, W) in pixels. patch_size, stride: pixels; a stride below patch_size overlaps patches.
        embed_dim, depth, num_heads, mlp_ratio: width D, number of blocks, heads, hidden width of the MLP over D.
        dropout: after the position embedding, the attention projection and both MLP layers.
        drop_path: stochastic depth of the last block, rising linearly from 0 at the first.
        recompute: keep only each block's input in training and recompute the block in the backward pass.

    Raises:
        InputError: for sizes that do not fit together.
    """

    def __init__(
        self,
        image_size: tuple[int, int] = (256, 128),
        patch_size: int = 16,
        stride: int = 12,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: int = 4,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        recompute: bool = False,
    ):
        super().__init__()
        self.image_size = tuple(image_size)
        self.embed_dim = embed_dim
        self.recompute_blocks = recompute
        self.stochastic = dropout > 0.0 or drop_path > 0.0
        self.shard = (0, 1)  # this device's rank and the number of devices
        self.path_rates = tuple(drop_path * (i // 2) / max(depth - 1, 1) for i in range(2 * depth))
        self.patch_embed = PatchEmbed(self.image_size, patch_size, stride, embed_dim)
        rows, columns = self.patch_embed.grid_size
        self.tokens = 1 + rows * columns
        self.cls_token = Parameter(initializer(Normal(0.02), (1, 1, embed_dim), ms.float32), name="cls_token")
        self.pos_embed = Parameter(initializer(Normal(0.02), (1, self.tokens, embed_dim), ms.float32), name="pos_embed")
        self.pos_drop = Dropout(dropout, layer=0)
        rates = self.path_rates[::2]  # of each block's two branches
        blocks = [Block(embed_dim, num_heads, mlp_ratio, dropout, rates[i], index=i) for i in range(depth)]
        self.blocks = nn.CellList(blocks)
        self.norm = layer_norm(embed_dim)

    def construct(self, images: Tensor, key: Tensor | None = None) -> Tensor:
        """CLS features after the last LayerNorm.

        Args:
            images: float32 [N, 3, H, W].
            key: int32 scalar, this step's key for dropout and drop path (`ms_vireid.data.randomness.step_key`);
                needed in training if either rate is above 0.

        Returns:
            float32 [N, embed_dim], not normalised.

        Raises:
            ValueError: images of another size; no key where one is needed.
        """
        x = self.patch_embed(images)  # [N, L, D]
        batch = x.shape[0]
        x = ops.cat((self.cls_token.broadcast_to((batch, -1, -1)), x), 1)  # [N, T = 1 + L, D]
        if self.training and self.stochastic and key is None:
            raise ValueError("training with dropout or drop path needs the step's key")
        return self.norm(self.encoded(x + self.pos_embed, key))[:, 0]  # [N, D]

    @replaceable("graph", "cuda")
    def encoded(self, x: Tensor, key: Tensor | None) -> Tensor:
        """Embedded tokens through all blocks: [N, T, D] -> [N, T, D]."""
        noise = None
        if self.training and self.stochastic:
            positions, factors = draw_noise(key, x.shape, self.path_rates, self.pos_drop.rate, self.shard)
            noise = positions, factors.astype(x.dtype)
        x = self.pos_drop(x, noise)
        for block in self.blocks:
            x = ms.recompute(block, x, noise) if self.training and self.recompute_blocks else block(x, noise)
        return x


def resize_position_embedding(
    embedding: np.ndarray, grid: tuple[int, int], source: tuple[int, int] | None = None
) -> np.ndarray:
    """Resize the position embedding [1, 1 + h * w, D] of the grid `source` (h, w) to `grid` (rows, columns).

    Bilinear with half-pixel centres (align_corners=False), without antialiasing. The CLS position stays. Without
    `source`, the grid is a square.

    Returns:
        float32 [1, 1 + rows * columns, D].

    Raises:
        InputError: if the number of positions is not 1 + h * w, or 1 + a square.
    """
    height, width = source or (math.isqrt(embedding.shape[1] - 1),) * 2
    shape = f"{height} * {width}" if source else "a square"
    require(height * width + 1 == embedding.shape[1], "positions", embedding.shape[1], f"1 + {shape}")
    positions = embedding[0, 1:].reshape(height, width, -1)
    sizes = (height, grid[0]), (width, grid[1])
    rows, columns = (_bilinear_matrix(*of) for of in sizes)
    resized = np.einsum("rh,cw,hwd->rcd", rows, columns, positions, optimize=True).reshape(1, grid[0] * grid[1], -1)
    return np.concatenate([embedding[:, :1], resized], axis=1).astype(np.float32)


def _bilinear_matrix(source: int, target: int) -> np.ndarray:
    """Interpolation weights float64 [target, source], half-pixel centres, edges clamped."""
    position = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
    low = np.floor(position).astype(int)
    high = np.minimum(low + 1, source - 1)
    weights = np.zeros((target, source))
    np.add.at(weights, (np.arange(target), low), 1 - (position - low))
    np.add.at(weights, (np.arange(target), high), position - low)
    return weights
