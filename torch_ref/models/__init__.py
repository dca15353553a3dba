"""The models of both papers."""

from torch_ref.models.agw import AGW
from torch_ref.models.build import build_model, create_model, list_models
from torch_ref.models.mun import MUN
from torch_ref.models.pmt import PMT
from torch_ref.models.resnet import ResNet
from torch_ref.models.vit import VisionTransformer

__all__ = ["AGW", "MUN", "PMT", "ResNet", "VisionTransformer", "build_model", "create_model", "list_models"]
