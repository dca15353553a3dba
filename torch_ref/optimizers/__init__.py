"""The optimisers, as in `ms_vireid.optimizers`."""

from torch_ref.optimizers.adamw import AdamW
from torch_ref.optimizers.build import build_optimizer
from torch_ref.optimizers.groups import ParameterGroup, parameter_groups
from torch_ref.optimizers.sgd import SGD
