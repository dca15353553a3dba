"""Parameter groups and AdamW as PyTorch defines it."""

from collections.abc import Sequence
from dataclasses import dataclass

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from ms_vireid.config import OptimizerConfig


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a learning rate: `lr_factor` times the schedule's base."""

    name: str
    lr_factor: float
    parameters: tuple[Parameter, ...]


def pmt_groups(model: nn.Cell, config: OptimizerConfig) -> list[ParameterGroup]:
    """The paper's two groups: the patch projection and all blocks at `backbone_factor`, everything else at 1."""
    backbone = lambda name: "patch_embed.proj." in name or ".blocks." in name  # noqa: E731
    parameters = model.trainable_params()
    return [
        ParameterGroup("full", 1.0, tuple(p for p in parameters if not backbone(p.name))),
        ParameterGroup("backbone", config.backbone_factor, tuple(p for p in parameters if backbone(p.name))),
    ]


class AdamW(nn.Cell):
    """AdamW with bias correction and decoupled decay (Loshchilov & Hutter 2019), the update of `torch.optim.AdamW`.

    MindSpore's fused operator has no bias correction:  w -= lr (m / (sqrt(v) + eps) + decay w). With c1 = 1 - beta1^t
    and c2 = 1 - beta2^t it computes the corrected update exactly when it is given
    lr sqrt(c2) / c1,  eps sqrt(c2)  and  decay c1 / sqrt(c2)  in place of lr, eps and decay (see `scalars`).

    Args:
        groups: each parameter in exactly one.
        betas, eps, weight_decay: as in the paper of AdamW; the decay applies to every parameter.
    """

    def __init__(self, groups: Sequence[ParameterGroup], betas: tuple[float, float], eps: float, weight_decay: float):
        super().__init__(auto_prefix=False)
        self.groups = tuple(groups)
        self.betas = betas
        self.eps = eps
        self.weight_decay = weight_decay
        self.group_of = tuple(index for index, group in enumerate(groups) for _ in group.parameters)
        self.weights = ParameterTuple([p for group in groups for p in group.parameters])
        self.exp_avg = self._zeros("exp_avg")
        self.exp_avg_sq = self._zeros("exp_avg_sq")
        self.update = ops.AdamWeightDecay()
        self.beta1, self.beta2 = (Tensor(beta, ms.float32) for beta in betas)

    def _zeros(self, prefix: str) -> ParameterTuple:
        return ParameterTuple(
            [Parameter(ops.zeros_like(p), name=f"{prefix}.{p.name}", requires_grad=False) for p in self.weights]
        )

    def state(self) -> list[Parameter]:
        """Everything a checkpoint needs besides the weights and the number of steps."""
        return [*self.exp_avg, *self.exp_avg_sq]

    def scalars(self, step: int, base_lrs: Sequence[float]) -> Tensor:
        """What `construct` needs for update number `step` (from 1): float32 [groups, 3] of lr, eps and decay."""
        # The operator takes 1 - beta in float32; its moments are that much off, and the corrections undo it.
        rounding1, rounding2 = (float(np.float32(1) - np.float32(beta)) / (1.0 - beta) for beta in self.betas)
        correction1 = rounding1 * (1.0 - self.betas[0] ** step)
        root2 = np.sqrt(rounding2 * (1.0 - self.betas[1] ** step))
        decay = self.weight_decay * correction1 / root2
        return Tensor(np.array([(lr * root2 / correction1, self.eps * root2, decay) for lr in base_lrs], np.float32))

    def construct(self, gradients: tuple[Tensor, ...], scalars: Tensor) -> bool:
        """Update all weights in place; gradients in the order of `weights`."""
        for i, gradient in enumerate(gradients):
            lr, eps, decay = scalars[self.group_of[i]]
            self.update(
                self.weights[i], self.exp_avg[i], self.exp_avg_sq[i], lr, self.beta1, self.beta2, eps, decay, gradient
            )
        return True
