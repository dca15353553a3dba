"""PyTorch's side of the benchmark."""

import itertools
from collections.abc import Callable

import numpy as np
import torch

from ms_vireid.command.errors import InputError
from ms_vireid.data.batches import behind
from ms_vireid.data.randomness import step_key
from parity import stand_in
from parity.measure import tuned
from parity.measure.work import RUN_STEPS, WARM_UP, Work
from torch_ref.engine.device import round_products
from torch_ref.engine.train_step import build_step, loss_scaler
from torch_ref.losses.stage import StageLoss
from torch_ref.models import build_model
from torch_ref.optimizers.build import build_optimizer


def device_peaks() -> list[int]:
    """Return the peaks of allocated and reserved device memory in bytes; none on a CPU."""
    if not torch.cuda.is_initialized():
        return []
    return [torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()]


def prepare(work: Work) -> Callable[[int], np.ndarray]:
    """Make a function that does the work so many times and returns the last result."""
    device = _device(work.device)
    config = work.load()
    round_products(config.train.tf32)

    def on_device(value: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.asarray(value)).to(device)

    model = build_model(config).to(device)
    weights = np.load(work.weights)
    model.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    images, labels = work.batch(config)
    layout = tuned.tune_layers(model, device) if work.tuned else torch.preserve_format
    compute = tuned.compiled(model, device) if work.tuned else model

    def pictures() -> torch.Tensor:
        return on_device(images).to(memory_format=layout)

    if work.kind == "inference":
        model.eval()

        def rows_of() -> torch.Tensor:
            rows = compute(pictures(), "visible")
            return rows.clone() if work.tuned else rows  # the next call overwrites a CUDA graph's

        @torch.inference_mode()
        def features(times: int) -> np.ndarray:
            for queued in behind((rows_of() for _ in range(times)), 1):
                rows = queued.cpu().numpy()
            return rows

        return features

    model.train()
    optimizer = build_optimizer(model, config)
    stage = StageLoss(config.stages[work.stage].losses, config.train.num_instances)
    amp = config.train.amp
    clip_norm, scaler = config.optimizer.clip_norm, loss_scaler(amp, device) if amp else None
    if work.tuned:
        stage = tuned.compiled(stage, device)
        tuned.tune_optimizer(optimizer, device)
    train_step = build_step(compute, stage, optimizer, amp, clip_norm, scaler)
    numbers = on_device(labels), on_device(step_key(0, 0))
    rates = [WARM_UP * config.optimizer.lr] * len(optimizer.groups)
    done = itertools.count()

    def steps(times: int) -> np.ndarray:
        for number in itertools.islice(done, times):
            progress = number / RUN_STEPS
            if work.tuned:  # a number would be compiled anew in each step
                progress = torch.full((), progress, device=device)
            terms = train_step(pictures(), *numbers, progress, rates)
        return torch.stack(terms).cpu().numpy()

    return steps


def _device(device: str) -> torch.device:
    """Return PyTorch's device for the work; beside a stand-in or an Ascend it is the CPU.

    Raises:
        InputError: on a real GPU that PyTorch does not see.
    """
    if device == "GPU" and not torch.cuda.is_available() and not stand_in.here():
        raise InputError("PyTorch sees no GPU: install its build for CUDA, or compare with --device CPU")
    return torch.device("cuda" if device == "GPU" and torch.cuda.is_available() else "cpu")
