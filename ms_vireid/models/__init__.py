"""The models of both papers."""

from ms_vireid.config import list_models
from ms_vireid.models.agw import AGW
from ms_vireid.models.build import build_model, create_model
from ms_vireid.models.mun import MUN
from ms_vireid.models.pmt import PMT
from ms_vireid.models.resnet import ResNet
from ms_vireid.models.vit import VisionTransformer
