"""PyTorch as an expert would run it, for the benchmark: the mirror, compiled. On a GPU also with CUDA graphs, fused
attention, ResNets in channels last and a fused optimiser."""

import logging
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from ms_vireid.command.errors import InputError
from torch_ref.models.noise import Noise
from torch_ref.models.prototypes import ModalityPrototypes
from torch_ref.models.vit import Attention
from torch_ref.optimizers.adamw import AdamW
from torch_ref.optimizers.sgd import SGD


def tune_layers(model: nn.Module, device: torch.device) -> torch.memory_format:
    """Prepare a model that is to be compiled. Returns the layout in which it takes its pictures."""
    layout = torch.preserve_format
    for layer in model.modules():
        if isinstance(layer, ModalityPrototypes):  # PyTorch 2.13 loses the gradient of an output that is kept as well
            layer.forward = torch.compiler.disable(layer.forward)
        elif isinstance(layer, Attention) and device.type == "cuda":
            layer.forward = partial(_fused_attention, layer)
        elif isinstance(layer, nn.BatchNorm2d) and device.type == "cuda":  # a ResNet
            layout = torch.channels_last
    model.to(memory_format=layout)
    return layout


def tune_optimizer(optimizer: AdamW | SGD, device: torch.device) -> None:
    """Have each group's weights on a GPU updated in one launch, by numbers that stay there."""
    for group in optimizer.param_groups if device.type == "cuda" else ():
        group["fused"], group["foreach"] = True, False
        if isinstance(optimizer, AdamW):
            group["capturable"] = True


def compiled(function: Callable, device: torch.device) -> Callable:
    """A model or a loss, compiled at its first call, which raises InputError if PyTorch does not. On a GPU it becomes
    CUDA graphs, and the next call overwrites what it returned."""
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it tells everybody that there is no CUDA
    compute = torch.compile(function, mode="reduce-overhead" if device.type == "cuda" else None)

    def call(*arguments):
        try:
            return compute(*arguments)
        except (torch._dynamo.exc.BackendCompilerFailed, OSError) as error:
            raise InputError(f"--torch tuned: {_problem(getattr(error, 'inner_exception', error))}") from None

    return call


def _problem(error: Exception) -> str:
    """What keeps PyTorch from compiling, and what to do if that is known."""
    from torch._inductor.exc import CppCompileError, InvalidCxxCompiler  # two seconds, which eager PyTorch saves

    if isinstance(error, InvalidCxxCompiler):
        return "PyTorch finds no C++ compiler that works; install one, such as g++, or name one in CXX"
    lines = (error.output if isinstance(error, CppCompileError) else str(error)).strip().splitlines()
    first = next((line for line in lines if "error" in line.lower()), lines[0] if lines else "")
    return f"PyTorch does not compile this here ({type(error).__name__}: {first}); leave tuned out"


def _fused_attention(self: Attention, x: Tensor, noise: Noise | None) -> Tensor:
    """As `Attention.forward`."""
    batch, tokens, width = x.shape
    qkv = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
    out = functional.scaled_dot_product_attention(*qkv.unbind(0))  # [N, heads, T, head_dim]
    return self.proj_drop(self.proj(out.permute(0, 2, 1, 3).reshape(batch, tokens, width)), noise)
