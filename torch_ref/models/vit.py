"""Twin of `ms_vireid.models.vit`, whose docstrings hold here."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from ms_vireid.command.arguments import require
from torch_ref.models.layers import Dropout, DropPath, LayerNorm
from torch_ref.models.noise import Noise, draw_noise

LAYER_NORM_EPS = 1e-5


class PatchEmbed(nn.Module):
    def __init__(self, image_size: tuple[int, int], patch_size: int, stride: int, embed_dim: int):
        super().__init__()
        self.image_size = image_size
        self.grid_size = patch_grid(image_size, patch_size, stride)
        self.proj = nn.Conv2d(3, embed_dim, patch_size, stride)
        nn.init.normal_(self.proj.weight, std=math.sqrt(2.0 / (patch_size * patch_size * embed_dim)))

    def forward(self, images: Tensor) -> Tensor:
        if tuple(images.shape[2:]) != self.image_size:
            raise ValueError(f"expected images of {self.image_size} (H, W), got {tuple(images.shape[2:])}")
        return self.proj(images).flatten(2).transpose(1, 2)  # [N, L, D]


def patch_grid(image_size: tuple[int, int], patch_size: int, stride: int) -> tuple[int, int]:
    height, width = image_size
    require(min(height, width) >= patch_size, "image_size", image_size, f"of at least one patch of {patch_size} pixels")
    return (height - patch_size) // stride + 1, (width - patch_size) // stride + 1


def dense(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, std=0.02)
    nn.init.zeros_(layer.bias)
    return layer


def layer_norm(width: int) -> LayerNorm:
    return LayerNorm(width, eps=LAYER_NORM_EPS)


class Attention(nn.Module):
    def __init__(self, embed_dim: int, num_heads: int, dropout: float, index: int):
        super().__init__()
        require(embed_dim % num_heads == 0, "embed_dim", embed_dim, f"a multiple of num_heads {num_heads}")
        self.num_heads = num_heads
        self.head_dim = embed_dim // num_heads
        self.qkv = dense(embed_dim, 3 * embed_dim)
        self.proj = dense(embed_dim, embed_dim)
        self.proj_drop = Dropout(dropout, 1 + 2 * index, scaled=False)

    def forward(self, x: Tensor, noise: Noise | None) -> Tensor:
        batch, tokens, width = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)  # [N, heads, T, head_dim]
        scores = (query * self.head_dim**-0.5) @ key.permute(0, 1, 3, 2)  # [N, heads, T, T]
        x = scores.softmax(dim=-1) @ value  # [N, heads, T, head_dim]
        x = x.permute(0, 2, 1, 3).reshape(batch, tokens, width)
        return self.proj_drop(self.proj(x), noise)


class Mlp(nn.Module):
    def __init__(self, embed_dim: int, mlp_ratio: int, dropout: float, index: int):
        super().__init__()
        self.fc1 = dense(embed_dim, mlp_ratio * embed_dim)
        self.act = nn.GELU(approximate="none")
        self.drop1 = Dropout(dropout, index, parts=mlp_ratio)
        self.fc2 = dense(mlp_ratio * embed_dim, embed_dim)
        self.drop2 = Dropout(dropout, 2 + 2 * index, scaled=False)

    def forward(self, x: Tensor, noise: Noise | None) -> Tensor:
        x = self.act(self.fc1(x))  # [N, T, mlp_ratio * D]
        x = self.drop1(x, noise)
        return self.drop2(self.fc2(x), noise)


class Block(nn.Module):
    def __init__(self, embed_dim: int, num_heads: int, mlp_ratio: int, dropout: float, drop_path: float, index: int):
        super().__init__()
        self.norm1 = layer_norm(embed_dim)
        self.attn = Attention(embed_dim, num_heads, dropout, index)
        self.norm2 = layer_norm(embed_dim)
        self.mlp = Mlp(embed_dim, mlp_ratio, dropout, index)
        self.drop_path1 = DropPath(drop_path, 2 * index, dropout)
        self.drop_path2 = DropPath(drop_path, 2 * index + 1, dropout)

    def forward(self, x: Tensor, noise: Noise | None = None) -> Tensor:
        x = x + self.drop_path1(self.attn(self.norm1(x), noise), noise)
        return x + self.drop_path2(self.mlp(self.norm2(x), noise), noise)


class VisionTransformer(nn.Module):
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
        self.path_rates = tuple(drop_path * (i // 2) / max(depth - 1, 1) for i in range(2 * depth))
        self.patch_embed = PatchEmbed(self.image_size, patch_size, stride, embed_dim)
        rows, columns = self.patch_embed.grid_size
        self.tokens = 1 + rows * columns
        self.cls_token = nn.Parameter(nn.init.normal_(torch.empty(1, 1, embed_dim), std=0.02))
        self.pos_embed = nn.Parameter(nn.init.normal_(torch.empty(1, self.tokens, embed_dim), std=0.02))
        self.pos_drop = Dropout(dropout, layer=0)
        rates = self.path_rates[::2]  # of each block's two branches
        blocks = [Block(embed_dim, num_heads, mlp_ratio, dropout, rates[i], index=i) for i in range(depth)]
        self.blocks = nn.ModuleList(blocks)
        self.norm = layer_norm(embed_dim)

    def forward(self, images: Tensor, key: Tensor | None = None) -> Tensor:
        x = self.patch_embed(images)  # [N, L, D]
        batch = x.shape[0]
        x = torch.cat((self.cls_token.expand(batch, -1, -1), x), dim=1)  # [N, T = 1 + L, D]
        if self.training and self.stochastic and key is None:
            raise ValueError("training with dropout or drop path needs the step's key")
        return self.norm(self.encoded(x + self.pos_embed, key))[:, 0]  # [N, D]

    def encoded(self, x: Tensor, key: Tensor | None) -> Tensor:
        noise = None
        if self.training and self.stochastic:
            noise = draw_noise(key, x.shape, self.path_rates, self.pos_drop.rate)
        x = self.pos_drop(x, noise)
        for block in self.blocks:
            if self.training and self.recompute_blocks:
                x = checkpoint(block, x, noise, use_reentrant=False, preserve_rng_state=False)
            else:
                x = block(x, noise)
        return x


def resize_position_embedding(
    embedding: Tensor, grid: tuple[int, int], source: tuple[int, int] | None = None
) -> Tensor:
    height, width = source or (math.isqrt(embedding.shape[1] - 1),) * 2
    shape = f"{height} * {width}" if source else "a square"
    require(height * width + 1 == embedding.shape[1], "positions", embedding.shape[1], f"1 + {shape}")
    embedding = embedding.to(torch.float32)
    positions = embedding[:, 1:].transpose(1, 2).unflatten(2, (height, width))  # [1, D, h, w]
    resized = functional.interpolate(positions, size=grid, mode="bilinear", align_corners=False, antialias=False)
    return torch.cat((embedding[:, :1], resized.flatten(2).transpose(1, 2)), dim=1)
