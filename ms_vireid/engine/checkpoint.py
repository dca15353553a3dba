"""Checkpoints of a run, weights and training state: written atomically, and refused unless they fit exactly."""

from collections.abc import Iterable
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, ops
from mindspore.amp import DynamicLossScaler

from ms_vireid.checkpoints.weights import COUNTER, PER_DEVICE, STATES, Checkpoint, read_checkpoint, write_finite
from ms_vireid.command.names import MINDSPORE
from ms_vireid.config import Config, dump_config
from ms_vireid.data.digests import RECORD, training_record
from ms_vireid.data.records import ReIDData
from ms_vireid.devices.turns import DEVICE
from ms_vireid.engine.process_group import ProcessGroup
from ms_vireid.engine.run_folder import RunFolder, require_same_run
from ms_vireid.models.base import ReIDModel
from ms_vireid.optimizers.adamw import AdamW
from ms_vireid.optimizers.sgd import SGD


def save_checkpoint(path: Path, parameters: Iterable[Parameter], meta: dict) -> None:
    """Write parameters and a record; raises InputError as `write_finite` does."""
    write_finite(path, {parameter.name: parameter.asnumpy() for parameter in parameters}, meta, MINDSPORE)


def load_checkpoint(path: Path | str) -> Checkpoint:
    """Read a file with MindSpore's names; raises InputError as `read_checkpoint` does."""
    return read_checkpoint(path, MINDSPORE)


def load_parameters(targets: Iterable[Parameter], checkpoint: Checkpoint, extra: Iterable[str] = ()) -> None:
    """Set every target from the checkpoint, by name. Unless all fit, none is set and InputError is raised as by
    `Checkpoint.require`."""
    targets = list(targets)
    checkpoint.require({p.name: (tuple(p.shape), np.dtype(ms.dtype_to_nptype(p.dtype))) for p in targets}, extra)
    for parameter in targets:
        # In place: contiguous buffers stay where they are, and compiled graphs read the same memory.
        ops.assign(parameter, Tensor(checkpoint.arrays[parameter.name]))


def load_model(model: ReIDModel, checkpoint: Checkpoint) -> list[str]:
    """Set all of a model's parameters; raises InputError as `load_parameters`, and for names that the model lacks.

    Returns the names that it lacks because only training needs them (`ReIDModel.TRAINING_ONLY`). The optimizer's state,
    other devices' buffers and PyTorch's counters are ignored.
    """
    targets = {p.name: p for p in model.get_parameters()}
    ignored = tuple(f"{key}." for keys in (*STATES.values(), (PER_DEVICE,)) for key in keys)
    others = [name for name in checkpoint.arrays if name not in targets and not name.startswith(ignored)]
    left_out = [name for name in others if name.startswith(model.TRAINING_ONLY)]
    extra = [name for name in others if name not in left_out and not name.endswith(COUNTER)]
    load_parameters(targets.values(), checkpoint, extra)
    return left_out


class TrainingState:
    """A model, its optimiser, its loss scale and its progress, saved in a run's folder. In a group, the first process
    writes while the others wait.

    step: completed steps. best: the best evaluation so far, with train.select=best: {"epoch", "map"}. pictures: the
    `training_record`, of which only the first process has all.
    """

    def __init__(
        self,
        config: Config,
        data: ReIDData,
        run: RunFolder,
        group: ProcessGroup,
        model: ReIDModel,
        optimizer: AdamW | SGD,
        scaler: DynamicLossScaler | None,
    ):
        self.config = config
        self.data = data if group.is_main_process else None  # whose content is read once
        paths = (data.train.paths, data.test.paths) if group.is_main_process else ((), ())
        self.pictures = training_record(*paths, model.began_from)
        self.data_checksum = self.data and data.checksum
        self.run = run
        self.group = group
        self.model = model
        self.optimizer = optimizer
        self.scaler = scaler
        self.step = 0
        self.best: dict | None = None

    @DEVICE
    def load(self, checkpoint: Checkpoint, total_steps: int) -> None:
        """Restore a saved state; raises InputError unless this run wrote it, on as many devices."""
        meta, devices = checkpoint.meta, self.group.world_size
        require_same_run(checkpoint, self.config, self.data, total_steps, devices)
        memories = self._memories()
        checkpoint.require({f"{PER_DEVICE}.{m.name}": ((devices, *m.shape), np.dtype(np.float32)) for m in memories})
        load_parameters([*self.model.get_parameters(), *self.optimizer.state()], checkpoint)
        for memory in memories:
            ops.assign(memory, Tensor(checkpoint.arrays[f"{PER_DEVICE}.{memory.name}"][self.group.rank]))
        if self.scaler:
            scale, good_steps = meta["loss_scale"]
            ops.assign(self.scaler.scale_value, Tensor(scale, ms.float32))
            ops.assign(self.scaler.counter, Tensor(good_steps, ms.int32))
        self.step, self.best, self.data_checksum = meta["step"], meta["best"], meta["data_checksum"]
        # The file of the first weights may be gone.
        self.pictures |= {key: meta[key] for key in RECORD if key in meta}

    @DEVICE
    def save(self) -> None:
        """Write the state to resume from, with the model's per-device buffers if there are several devices."""
        state = [*self.model.get_parameters(), *self.optimizer.state()]
        for memory in self._memories():
            rows = Tensor(self.group.all_gather(memory.asnumpy()))
            state.append(Parameter(rows, name=f"{PER_DEVICE}.{memory.name}"))
        meta = self._meta() | {"step": self.step, "best": self.best, "devices": self.group.world_size}
        if self.scaler:
            meta["loss_scale"] = [float(self.scaler.scale_value.asnumpy()), int(self.scaler.counter.asnumpy())]
        self._write(self.run.last, state, meta)

    @DEVICE
    def save_weights(self, path: Path, epoch: int) -> None:
        """Write the weights alone."""
        self._write(path, self.model.get_parameters(), self._meta() | {"epoch": epoch})

    def _memories(self) -> list[Parameter]:
        """The model's per-device buffers, if there are several devices."""
        parameters = self.model.get_parameters() if self.group.world_size > 1 else ()
        return [parameter for parameter in parameters if parameter.name in self.model.MEMORIES]

    def _meta(self) -> dict:
        return {"config": dump_config(self.config), "data_checksum": self.data_checksum, **self.pictures}

    def _write(self, path: Path, parameters: Iterable[Parameter], meta: dict) -> None:
        with self.group.together():
            if self.group.is_main_process:
                save_checkpoint(path, parameters, meta)
