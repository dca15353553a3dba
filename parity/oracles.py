"""Outside implementations that the project is compared with, and what it takes to import them."""

from functools import partial
from importlib.metadata import version

import torch

from ms_vireid.command.errors import InputError
from ms_vireid.command.running import install_command

try:
    import torchvision
except RuntimeError:  # torchvision's CUDA build beside a CPU build of PyTorch: its own operators are not loaded, and it
    # fails where it describes two of them. Nothing here calls them; once declared, everything else works.
    _operators = torch.library.Library("torchvision", "DEF")
    for _name in ("nms", "qnms"):
        _operators.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    try:
        import torchvision
    except (RuntimeError, ImportError, AttributeError) as error:
        fault = f"torchvision {version('torchvision')} is not PyTorch {torch.__version__}'s ({error})"
        raise InputError(f"{fault}; install the two that belong together: {install_command('parity')}") from None

import timm
from timm.models.vision_transformer import VisionTransformer as TimmVisionTransformer
from timm.scheduler import CosineLRScheduler
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as torchvision_transforms

__all__ = ["CosineLRScheduler", "InterpolationMode", "timm", "timm_vit", "torchvision", "torchvision_transforms"]


def timm_vit(
    image_size: tuple[int, int], patch_size: int, stride: int, embed_dim: int, depth: int, num_heads: int
) -> TimmVisionTransformer:
    """timm's ViT without a head, whose output is the CLS token after the last LayerNorm, of PMT's LayerNorm eps.

    timm's patches do not overlap: with another stride its projection gets that stride, and its position embedding the
    size that follows.
    """
    vit = TimmVisionTransformer(
        img_size=image_size,
        patch_size=patch_size,
        embed_dim=embed_dim,
        depth=depth,
        num_heads=num_heads,
        num_classes=0,
        global_pool="token",
        norm_layer=partial(torch.nn.LayerNorm, eps=1e-5),
    )
    if stride != patch_size:
        rows, columns = ((size - patch_size) // stride + 1 for size in image_size)
        vit.patch_embed.proj.stride = (stride, stride)
        vit.patch_embed.strict_img_size = False
        vit.pos_embed = torch.nn.Parameter(torch.zeros(1, 1 + rows * columns, embed_dim))
    return vit
