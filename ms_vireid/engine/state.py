"""The training state, from which a run is resumed, and the weights that are kept."""

from collections.abc import Iterable
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, ops
from mindspore.amp import DynamicLossScaler

from ms_vireid.checkpoints.weights import PER_DEVICE
from ms_vireid.config import Config, dump_config
from ms_vireid.data.digests import before, record
from ms_vireid.data.records import ReIDData
from ms_vireid.devices.turns import DEVICE
from ms_vireid.engine.checkpoint import Checkpoint, load_parameters, save_checkpoint
from ms_vireid.engine.process_group import ProcessGroup
from ms_vireid.engine.run_folder import RunFolder, require_same_run
from ms_vireid.models.base import ReIDModel
from ms_vireid.optimizers.adamw import AdamW
from ms_vireid.optimizers.sgd import SGD


class TrainingState:
    """A model, its optimiser, its loss scale and its progress, saved in a run's folder. In a group, the first process
    writes while the others wait.

    step: completed steps. best: the best evaluation so far, with train.select=best: {"epoch", "map"}. digests: of the
    pictures that the weights are trained on, and were before this run.
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
        self.root, self.data_checksum = data.root, data.checksum
        pictures = record(data.train.paths) if group.is_main_process else ""
        self.digests = {"seen": pictures, "seen_before": before(model.began_from)}
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
        require_same_run(checkpoint, self.config, self.root, self.data_checksum, total_steps, devices)
        memories = self.model.memories() if devices > 1 else []  # per-device buffers
        checkpoint.require({f"{PER_DEVICE}.{m.name}": ((devices, *m.shape), np.dtype(np.float32)) for m in memories})
        load_parameters([*self.model.get_parameters(), *self.optimizer.state()], checkpoint)
        for memory in memories:
            ops.assign(memory, Tensor(checkpoint.arrays[f"{PER_DEVICE}.{memory.name}"][self.group.rank]))
        if self.scaler:
            scale, good_steps = meta["loss_scale"]
            ops.assign(self.scaler.scale_value, Tensor(scale, ms.float32))
            ops.assign(self.scaler.counter, Tensor(good_steps, ms.int32))
        self.step, self.best = meta["step"], meta["best"]
        # The file of the first weights may be gone.
        self.digests |= {key: meta[key] for key in self.digests if key in meta}

    @DEVICE
    def save(self) -> None:
        """Write the state to resume from, with the model's per-device buffers if there are several devices."""
        state = [*self.model.get_parameters(), *self.optimizer.state()]
        if self.group.world_size > 1:
            for memory in self.model.memories():
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

    def _meta(self) -> dict:
        digests = {key: text for key, text in self.digests.items() if text}
        return {"config": dump_config(self.config), "data_checksum": self.data_checksum, **digests}

    def _write(self, path: Path, parameters: Iterable[Parameter], meta: dict) -> None:
        with self.group.together():
            if self.group.is_main_process:
                save_checkpoint(path, parameters, meta)
