"""Parameter groups, and AdamW and SGD as PyTorch defines them."""

from ms_vireid.optimizers.adamw import AdamW
from ms_vireid.optimizers.build import build_optimizer
from ms_vireid.optimizers.groups import ParameterGroup, parameter_groups
from ms_vireid.optimizers.sgd import SGD
