"""The models of both papers."""

from ms_vireid.config import list_models
from torch_ref.models.agw import AGW
from torch_ref.models.build import build_model, create_model
from torch_ref.models.mun import MUN
from torch_ref.models.pmt import PMT
from torch_ref.models.resnet import ResNet
from torch_ref.models.vit import VisionTransformer
