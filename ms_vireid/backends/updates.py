"""Optimiser updates by MindSpore's fused operators."""

import mindspore as ms
from mindspore import Tensor, mint, ops

from ms_vireid.optimizers.adamw import AdamW, Scalars
from ms_vireid.optimizers.groups import GroupOptimizer, Part
from ms_vireid.optimizers.sgd import SGD
from ms_vireid.replaceable import Replacement

_adamw = ops.AdamWeightDecay()
_along_buffer, _along_buffer_nesterov = ops.ApplyMomentum(), ops.ApplyMomentum(use_nesterov=True)
_along_gradient = ops.ApplyGradientDescent()
_ZERO, _ONE = Tensor(0.0, ms.float32), Tensor(1.0, ms.float32)
_NUMBERS = len(Scalars._fields)
_LR, _DECAY, _EPS, _BETA1, _BETA2 = range(_NUMBERS)
# With a gradient of 0, these change nothing.
_ADAMW_UNCHANGED = Tensor(Scalars(lr=0.0, decay=0.0, eps=1.0, beta1=1.0, beta2=1.0), ms.float32)
_SGD_UNCHANGED = Tensor([0.0, 0.0, 1.0], ms.float32)


def adamw(self: AdamW, part: Part, gradient: Tensor, scalars: Tensor, applies: Tensor | None) -> None:
    _update_adamw(self, part, *_if_applies(gradient, scalars, applies, _ADAMW_UNCHANGED))


def ascend_adamw(self: AdamW, part: Part, gradient: Tensor, scalars: Tensor, applies: Tensor | None) -> None:
    """Takes all scalars from one operator."""
    gradient, numbers = _if_applies(gradient, scalars, applies, _ADAMW_UNCHANGED)
    _update_adamw(self, part, gradient, ops.unstack(numbers))


def _update_adamw(self: AdamW, part: Part, gradient: Tensor, numbers: Tensor | tuple[Tensor, ...]) -> None:
    """numbers: `Scalars` of all groups."""
    eps, beta1, beta2 = numbers[_EPS], numbers[_BETA1], numbers[_BETA2]  # the same for all groups: each is a launch
    decaying = self.decays.index(max(self.decays))  # a group that decays: all that do, decay alike
    decay = numbers[_NUMBERS * decaying + _DECAY] if self.decays[part.group] > 0.0 else _ZERO
    lr = numbers[_NUMBERS * part.group + _LR]
    _adamw(part.weight, *part.states, lr, beta1, beta2, eps, decay, gradient)
    _clamp(self, part)


def sgd(self: SGD, part: Part, gradient: Tensor, scalars: Tensor, applies: Tensor | None) -> None:
    """`ops.SGD` copies every weight on a GPU. `ops.ApplyMomentum` computes the Nesterov step wrongly on a CPU, and on a
    GPU, where MindSpore fuses several: a second operator steps along the gradient."""
    gradient, lr, momentum = _decayed(self, part, gradient, scalars, applies)
    _along_buffer(part.weight, part.states[0], lr * momentum if self.nesterov else lr, gradient, momentum)
    if self.nesterov:
        _along_gradient(part.weight, lr, gradient)
    _clamp(self, part)


def gpu_sgd(self: SGD, part: Part, gradient: Tensor, scalars: Tensor, applies: Tensor | None) -> None:
    """A graph on a GPU fuses several `ops.ApplyMomentum` into one operator, which is a cycle where a part is read after
    another's has run."""
    gradient, lr, momentum = _decayed(self, part, gradient, scalars, applies)
    (buffer,) = part.states
    value = momentum * buffer + gradient
    ops.assign(buffer, value)
    _along_gradient(part.weight, lr, gradient + momentum * value if self.nesterov else value)
    _clamp(self, part)


def ascend_sgd(self: SGD, part: Part, gradient: Tensor, scalars: Tensor, applies: Tensor | None) -> None:
    gradient, numbers = _if_applies(gradient, scalars, applies, _SGD_UNCHANGED)
    lr, decay, momentum = numbers[3 * part.group], numbers[3 * part.group + 1], numbers[2]
    if self.decays[part.group] > 0.0:  # the older addcmul is compiled for each shape
        gradient = mint.addcmul(gradient, part.weight, decay)
    along_buffer = _along_buffer_nesterov if self.nesterov else _along_buffer
    along_buffer(part.weight, part.states[0], lr, gradient, momentum)
    _clamp(self, part)


def _decayed(
    self: SGD, part: Part, gradient: Tensor, scalars: Tensor, applies: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient with the weight's decay, the learning rate and the momentum."""
    gradient, numbers = _if_applies(gradient, scalars, applies, _SGD_UNCHANGED)
    lr, decay, momentum = numbers[3 * part.group], numbers[3 * part.group + 1], numbers[2]
    if self.decays[part.group] > 0.0:
        gradient = ops.addcmul(gradient, part.weight, decay, _ONE)
    return gradient, lr, momentum


def _if_applies(gradient: Tensor, scalars: Tensor, applies: Tensor | None, unchanged: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient and all scalars, float32 [groups * scalars], or what changes nothing: a branch would wait."""
    if applies is not None:
        gradient, scalars = ops.where(applies, gradient, 0.0), ops.where(applies, scalars, unchanged)
    return gradient, scalars.reshape(-1)


def _clamp(self: GroupOptimizer, part: Part) -> None:
    """Clamp a weight to its group's limits, by subtracting the difference: `ops.assign` copies twice on a GPU. Reads
    the weight itself, since an update's operator returns something else on a CPU."""
    limits = self.limits[part.group]
    if limits is not None:
        ops.assign_sub(part.weight, part.weight - ops.clamp(part.weight, *limits))


# The optimiser's own update, operator by operator as in its equation, is the reference for the fused ones.
TABLE = {AdamW.update: Replacement(adamw), SGD.update: Replacement(sgd)}
GPU_GRAPH = {AdamW.update: Replacement(adamw), SGD.update: Replacement(gpu_sgd)}
ASCEND = {AdamW.update: Replacement(ascend_adamw, "PMT: 976 launches for 971"), SGD.update: Replacement(ascend_sgd)}
