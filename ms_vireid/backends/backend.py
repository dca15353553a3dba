"""`Backend`, the way a device computes a model.

Models, losses, optimisers and the training step are plain MindSpore and know no backend.
"""

import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import NamedTuple
from weakref import WeakKeyDictionary

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from ms_vireid.backends import proven
from ms_vireid.backends.contiguous import WeightLayout
from ms_vireid.backends.half import HalfWeights
from ms_vireid.backends.reading import hooked
from ms_vireid.backends.replacing import KeptAsWritten, functions_in_place, install
from ms_vireid.command.errors import InputError
from ms_vireid.command.printing import say
from ms_vireid.devices import runtime
from ms_vireid.devices.staging import Staging, to_device
from ms_vireid.devices.turns import DEVICE
from ms_vireid.replaceable import Table


class Backend:
    """Computes models in one way.

    Args:
        amp: "float16" or "bfloat16" to train with `HalfWeights`.
    """

    compiled = False  # whether a step is one graph, queued as a whole
    tables: Mapping[str, Table]  # its replacements, by device

    def __init__(self, amp: str | bool = False):
        self.half_dtype = getattr(ms, amp) if amp else None
        self.notes: list[str] = []  # what was printed about code that has no replacement
        self._computations: WeakKeyDictionary[nn.Cell, Computation] = WeakKeyDictionary()

    def __str__(self) -> str:
        return type(self).__name__.lower()

    @property
    def records(self) -> proven.Records:
        """What the replacements on the current device were proven against."""
        return proven.record().get(str(self), {}).get(ms.get_context("device_target"), {})

    @DEVICE
    def accelerate(
        self, model: nn.Cell, loss: nn.Cell | None = None, optimizer: nn.Cell | None = None
    ) -> "Computation":
        """Put this backend's replacements into a model, its loss and its optimiser, and return their computation: the
        same one each time. Load weights first; call it again after loading others.

        Code that no replacement was proven against runs as it is written, and a note says so. Raises InputError for a
        hook where a graph would not call it.
        """
        DEVICE.begin_use()
        cells = [cell for part in (model, loss, optimizer) if part is not None for _, cell in part.cells_and_names()]
        if self.compiled:
            self._refuse_hooks(model, loss)
        functions, kept = install(cells, self.tables[ms.get_context("device_target")], self.records)
        self.note(kept)
        for cell in getattr(model, "recomputed", ()):
            cell.recompute(output_recompute=True)
        self.finish_setup(model, cells)
        if model not in self._computations:
            half = HalfWeights(model, self.half_dtype) if self.half_dtype is not None else None
            self._computations[model] = Computation(self.compiled, half, self.layout_of)
        self._computations[model].functions = functions
        return self._computations[model]

    def finish_setup(self, model: nn.Cell, cells: list[nn.Cell]) -> None:
        """What this backend does to a model besides."""
        if any(isinstance(cell, nn.Conv2d) for cell in cells):
            runtime.cap_convolutions()

    def layout_of(self, optimizer: nn.Cell, separate: Collection[str]) -> WeightLayout:
        """Lay out an optimiser's weights in memory. separate: names of those that have copies in half precision."""
        return WeightLayout(optimizer)

    def note(self, kept: list[KeptAsWritten]) -> None:
        """Print each of these lines once."""
        for line in map(str, kept):
            if line not in self.notes:
                self.notes.append(line)
                if runtime.is_local_main():
                    say(f"note: {line}")

    def _refuse_hooks(self, *parts: nn.Cell | None) -> None:
        for cell in filter(None, parts):
            if (name := hooked(cell)) is not None:
                where = f"{type(cell).__name__} {name}".strip()
                raise InputError(f"{where}: has a hook, which a compiled graph does not call; give train.backend=eager")


class Computation:
    """A model's training steps and features, as a backend computes them. `Backend.accelerate` makes it.

    compiled: as `Backend.compiled`. half: the model's copies in half precision.
    """

    def __init__(
        self, compiled: bool, half: HalfWeights | None, layout_of: Callable[[nn.Cell, Collection[str]], WeightLayout]
    ):
        self.functions: Mapping[Callable, Callable] = {}  # what is replaced in modules
        self.compiled = compiled
        self._half = half
        self._layout_of = layout_of
        self._layout: WeightLayout | None = None

    def compile(self, function: Callable) -> Callable:
        """Wrap a function of prepared cells so that it is computed as they are."""

        def call(*inputs):
            return function(*inputs)

        computing = ms.jit(call) if self.compiled else function

        def compute(*inputs):
            if self.compiled:  # MindSpore's thread may end its turn: the main thread would wait, without sleeping
                os.sched_yield()
            with functions_in_place(self.functions):
                return computing(*inputs)

        return compute

    def layout(self, optimizer: nn.Cell) -> WeightLayout:
        """Where the optimiser's weights are. The first call may move them: load them before."""
        if self._layout is None:
            half = self._half
            self._layout = self._layout_of(optimizer, half.names() if half else ())
            if half:
                half.lay_out(self._layout.buffers)
        return self._layout

    def gradients(self, function: Callable, layout: WeightLayout) -> Callable:
        """Wrap function(images, *inputs) -> (loss, ...) to return its values and the loss's gradients, one for each
        part of the layout."""
        half = self._half
        weights = half.differentiated(layout.weights) if half else layout.weights
        value_and_gradients = ms.value_and_grad(function, None, weights, has_aux=True)

        def gradients_of(images, *inputs):
            if half is not None:
                images = images.astype(half.dtype)
            values, gradients = value_and_gradients(images, *inputs)
            return values, layout.joined(gradients)

        return gradients_of

    def step(self, update: Callable, announce: bool = False) -> "Step":
        """Make a training step of update(images, labels, key, progress, scalars) -> terms, which uses `gradients`.

        announce: print when it is compiled.
        """
        return Step(self.compile, update, self._half, announce and self.compiled)

    def features(self, model: nn.Cell, modality: str, batch_size: int, kind: str) -> Callable[[np.ndarray], "Queued"]:
        """Make a function that queues the features of at most `batch_size` pictures, float32 [n, 3, H, W].

        model: the prepared one. kind: names these pictures when their graph is compiled.
        """
        if not self.compiled:
            compute = self.compile(model)
            return lambda pictures: Queued(compute(Tensor(pictures, ms.float32), modality), len(pictures))

        def features(images: Tensor) -> Tensor:
            return model(images, modality)

        compute, staging, compiled = self.compile(features), Staging(), False

        def queue(pictures: np.ndarray) -> Queued:
            nonlocal compiled
            first, compiled = not compiled, True
            with announced(f"the features of {kind} pictures") if first else nullcontext():
                full_batch = staging.send(pictures, batch_size)  # the graph takes no other
                return Queued(compute(full_batch), len(pictures))

        return queue


class Step:
    """Queues training steps."""

    def __init__(self, compile_step: Callable, update: Callable, half: HalfWeights | None, announce: bool):
        def step(images, packed, shape):
            terms = update(images, *_unpacked(packed, shape))
            if half is not None:
                half.refresh()
            return ops.stack(terms)

        self._step = compile_step(step)
        self._half = half
        self._announce = announce
        self._compiled = False
        self._staging = Staging()
        self._sent = ()  # numbers of the last step, kept while they may still be copied to the device

    @DEVICE
    def __call__(
        self, images: np.ndarray, labels: np.ndarray, key: int, progress: float, scalars: np.ndarray
    ) -> Tensor:
        """Queue a step on images float32 [2PK, 3, H, W] with labels int32 [2PK], the step's 32-bit key and the
        optimiser's scalars; progress is 0 at the run's first step and 1 at its last.

        Returns the terms of `update`: float32 [terms], on the device. Reading them waits for the step.
        """
        packed = _packed(labels, key, progress, scalars)
        inputs = self._staging.send(images), to_device(packed)
        self._sent = packed, inputs
        first, self._compiled = not self._compiled, True
        if self._half is not None and first:  # the weights may have been loaded since
            self._half.refresh()
        with (
            self._half.in_place() if self._half is not None else nullcontext(),
            announced("the training step") if first and self._announce else nullcontext(),
        ):
            return self._step(*inputs, scalars.shape)


class Queued(NamedTuple):
    """Queued features: [n, C], of which the first `count` are wanted."""

    features: Tensor
    count: int

    def read(self) -> np.ndarray:
        """Wait for the features: float32 [count, C]."""
        return self.features.asnumpy()[: self.count]


def _packed(labels: np.ndarray, key: int, progress: float, scalars: np.ndarray) -> np.ndarray:
    """Pack a step's other inputs into float32 [n]: one small copy to the device instead of many.

    Labels are below 2^24, and the key is split into halves of 16 bits: float32 holds all of them exactly.
    """
    high, low = divmod(int(key), 1 << 16)
    return np.concatenate([[high, low, progress], scalars.ravel(), labels], dtype=np.float32)


def _unpacked(packed: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """float32 [n] -> labels int32 [2PK], key int32, progress float32, scalars float32 of this shape."""
    size = 1
    for side in shape:
        size *= side
    whole = packed.astype(ms.int32)
    key = whole[0] * (1 << 16) + whole[1]
    return whole[3 + size :], key, packed[2], packed[3 : 3 + size].reshape(shape)


@contextmanager
def announced(what: str) -> Iterator[None]:
    """Print that the block compiles `what`, and how long it took."""
    say(f"compiling {what} ...")
    started_at = time.perf_counter()
    yield
    say(f"compiled {what} in {time.perf_counter() - started_at:.0f} s")
