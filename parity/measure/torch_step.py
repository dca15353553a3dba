"""Count what PyTorch's eager step launches, computes and keeps, on tensors without values: full size in seconds."""

import weakref
from functools import cache

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from ms_vireid.config import CONFIG_ROOT, load_config
from torch_ref.engine.train_step import build_step
from torch_ref.losses.stage import StageLoss
from torch_ref.models import build_model
from torch_ref.optimizers.build import build_optimizer

aten = torch.ops.aten
# Besides the views that PyTorch itself calls so.
NO_KERNEL = {aten.empty, aten.empty_like, aten.empty_strided, aten.new_empty, aten.new_empty_strided, aten._unsafe_view}
# What CUDA's autocast computes in float16 and in float32, of all that the models call; the rest keeps its type.
AUTOCAST = dict.fromkeys(("conv2d", "conv_transpose2d", "linear", "matmul", "bmm"), torch.float16)
AUTOCAST |= dict.fromkeys(("softmax", "layer_norm", "pow"), torch.float32)


class Step(TorchDispatchMode):
    """Counts launches, operators that are dispatched, without views and allocations; and follows the bytes of all
    tensors that are alive, from those held before. What an operator needs only inside is not seen."""

    def __init__(self, held: list[Tensor]):
        super().__init__()
        self.launches = 0
        self.bytes = self.peak = 0
        self.storages: set[int] = set()
        for tensor in held:
            self._follow(tensor)

    def __torch_dispatch__(self, operator, types, arguments=(), options=None):
        if operator is aten._local_scalar_dense.default and arguments[0].is_meta:
            return 0.0  # item() of what has no value
        result = operator(*arguments, **(options or {}))
        leaves = [leaf for leaf in tree_leaves((arguments, options, result)) if isinstance(leaf, Tensor)]
        on_device = any(leaf.is_meta for leaf in leaves)
        self.launches += on_device and not operator.is_view and operator.overloadpacket not in NO_KERNEL
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._follow(leaf)
        return result

    def _follow(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        place, size = storage._cdata, storage.nbytes()
        if place not in self.storages:
            self.storages.add(place)
            self.bytes += size
            self.peak = max(self.peak, self.bytes)
            weakref.finalize(storage, self._forget, place, size)

    def _forget(self, place: int, size: int) -> None:
        self.storages.remove(place)
        self.bytes -= size


class Autocast(TorchFunctionMode):
    """CUDA's autocast to float16 for tensors without values, which PyTorch lacks; a weight is cast once."""

    def __init__(self):
        super().__init__()
        self.weights: dict[Tensor, Tensor] = {}

    def __torch_function__(self, function, types, arguments=(), options=None):
        options = options or {}
        if to := AUTOCAST.get(function.__name__):
            arguments = [self._cast(value, to) for value in arguments]
            options = {name: self._cast(value, to) for name, value in options.items()}
        return function(*arguments, **options)

    def _cast(self, value, to: torch.dtype):
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.dtype == to:
            return value
        if not isinstance(value, nn.Parameter):
            return value.to(to)
        if value not in self.weights:
            self.weights[value] = value.to(to)
        return self.weights[value]


class Mixed(nn.Module):
    """Wraps a model in autocast; losses stay in float32."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, *arguments):
        with Autocast():
            outputs = self.model(*arguments)
        return type(outputs)(*(None if output is None else output.float() for output in outputs))


@cache
def torch_step(recipe: str, stage: int, overrides: tuple[str, ...], device: str = "meta") -> dict:
    """Count a step after a first one, in which the optimiser makes its state; with `train.amp` under autocast.

    torch_launches: operators that are dispatched, without views and allocations, with all weights updated at once, as
        on a GPU. torch_tflop: 1e12 operations of all matrix products and convolutions, forward and backward; a
        multiplication and an addition are two. torch_peak_gib: of all tensors that are alive at a time, 2^30 bytes.
    """

    def of_backward(gradient, images, weight, _bias, _stride, _padding, _dilation, transposed, *others, **_):
        """Count the flops of a convolution's gradients; PyTorch's formula forgets groups in the weight's."""
        wanted = others[2]
        return sum(wanted[:2]) * conv_flop_count(images, weight, gradient, transposed)

    config = load_config(CONFIG_ROOT / recipe, list(overrides))
    with torch.device(device):
        model = build_model(config).train()
        images = torch.zeros(2 * config.train.num_identities * config.train.num_instances, 3, *config.data.image_size)
        labels, key = torch.zeros(len(images), dtype=torch.int32), torch.zeros((), dtype=torch.int32)
    optimizer = build_optimizer(model, config)
    for group in optimizer.param_groups:
        group["foreach"] = True
    loss = StageLoss(config.stages[stage].losses, config.train.num_instances)
    step = build_step(Mixed(model) if config.train.amp else model, loss, optimizer)
    for weight in model.parameters():
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    optimizer.zero_grad()
    states = [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]
    flops = FlopCounterMode(display=False, custom_mapping={aten.convolution_backward: of_backward})
    with flops, Step([*model.parameters(), *model.buffers(), *states, images, labels, key]) as counted:
        step(images, labels, key, 0.0, [config.optimizer.lr] * len(optimizer.groups))
    return {
        "torch_launches": counted.launches,
        "torch_tflop": flops.get_total_flops() / 1e12,
        "torch_peak_gib": counted.peak / 2**30,
    }
