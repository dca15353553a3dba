"""Train a model, evaluate it under its data set's protocol, and print the table.

On several devices: msrun --worker_num=N --local_worker_num=N --join=True --log_dir=LOGS ms_vireid/train.py ...
Each of the N processes then trains on its own train.num_identities identities in each step.
"""

from ms_vireid.command.starting import at_once  # isort: skip  (first, as it answers Ctrl-C)
import shlex
import subprocess
import sys
from argparse import Namespace
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ms_vireid.command.errors import InputError, first_few
from ms_vireid.command.names import PAGE
from ms_vireid.command.printing import say
from ms_vireid.command.running import Parser, add_device, add_recipe, require_extra, run
from ms_vireid.devices import runtime

if TYPE_CHECKING:
    from ms_vireid.backends.backend import Backend
    from ms_vireid.config import Config
    from ms_vireid.data.records import ReIDData
    from ms_vireid.engine.process_group import ProcessGroup
    from ms_vireid.engine.run_folder import RunFolder
    from ms_vireid.engine.trainer import Trainer
    from ms_vireid.evaluation.protocol import ProtocolResult, Trial


def main() -> None:
    parser = Parser(__doc__)
    add_recipe(parser)
    add_device(parser)
    parser.add_argument(
        "--output", type=Path, metavar="R", help="run folder (default: runs/METHOD-CONFIG, such as runs/pmt-sysu)"
    )
    parser.add_argument(
        "--resume",
        metavar="auto|PATH",
        help="auto: continue from the run folder's last.safetensors if there is one; or name a file",
    )
    parser.add_argument("--open", action="store_true", help="at the end, show the run's page in a browser (report.py)")
    with runtime.print_once_per_machine():
        arguments = parser.parse_intermixed_args()
        if arguments.open:
            require_extra("--open", "viz", "jinja2", "matplotlib")
            if runtime.launched():
                raise InputError("--open: not with msrun; afterwards python -m ms_vireid.report R makes the page")
        with at_once():
            from ms_vireid.config.reading import recipe
            from ms_vireid.engine.training_data import prepare_data

        config = recipe(arguments)
        if config.train.tensorboard:
            require_extra("train.tensorboard", "tensorboard", "tensorboard")
        folder, checkpoint = _places(arguments, config)  # all processes look before they join and one writes
        device, backend, group = start(arguments.device, config)
    data, config = prepare_data(config, arguments.overrides, group)
    Training(config, data, folder, device, backend, group).train(checkpoint)
    if arguments.open:
        _show(folder.path, arguments.device)
    elif group.is_main_process:
        say(f"its page: {shlex.join(['python', '-m', 'ms_vireid.report', str(folder.path)])}")


def _places(arguments: Namespace, config: "Config") -> "tuple[RunFolder, Path | None]":
    """Return the run's folder, which can be written, and the checkpoint to resume from."""
    from ms_vireid.engine.run_folder import RunFolder
    from ms_vireid.files.checks import require_folder_name

    resume, stem, method = arguments.resume, arguments.config.stem, config.model.name
    if arguments.output is None:
        require_folder_name(stem, f"--config {arguments.config}")
    name = stem if stem.split("-")[0] == method else f"{method}-{stem}"
    folder, checkpoint = RunFolder(arguments.output or _default_output(name, resume == "auto")), None
    if resume is None and folder.has_run():
        raise InputError(f"{folder.path}: holds a run; go on with --resume auto, or choose another --output")
    if resume == "auto":
        checkpoint = folder.last if folder.last.exists() else None
    elif resume is not None:
        checkpoint = Path(resume)
        if not checkpoint.exists():
            raise InputError(f"--resume {resume}: no such checkpoint file")
    folder.require_writable(config, checkpoint)
    return folder, checkpoint


def _default_output(name: str, resume: bool) -> Path:
    """runs/NAME, or the first of runs/NAME-2, runs/NAME-3 ... that is new; to resume, the last that is not."""
    from ms_vireid.engine.run_folder import RunFolder

    folder = following = Path("runs", name)
    number = 1
    while RunFolder(following).has_run():
        number += 1
        folder, following = following, Path("runs", f"{name}-{number}")
    return folder if resume else following


def start(device: str, config: "Config") -> "tuple[str, Backend, ProcessGroup]":
    """Set the device up, choose the backend and join msrun's other processes, if any. Returns what trains, in words,
    which the first process prints, the backend and the group."""
    settings, device = config.train, runtime.set_up(device)
    # Imports mindspore: after the device is set up.
    from ms_vireid.backends.choosing import choose
    from ms_vireid.engine.process_group import ALONE

    rounded = runtime.round_products(settings.tf32)
    backend, group = choose(settings.backend, settings.amp), ALONE
    device = "; ".join(filter(None, [device, rounded, str(backend)]))
    if runtime.launched():
        from ms_vireid.engine.distributed import join  # imports mindspore: after the device is set up

        group = join()
        device = f"{device}, {group.world_size} processes"
    if group.is_main_process:
        say(f"device: {device}")
        if settings.amp and device.startswith("CPU"):
            say("note: train.amp is slower than float32 on a CPU, which computes float16 by way of float32")
    return device, backend, group


@dataclass
class Training:
    """A training, and the evaluation of what it gives. device, backend, group: as `start` returns them."""

    config: "Config"
    data: "ReIDData"
    folder: "RunFolder"
    device: str
    backend: "Backend"
    group: "ProcessGroup"

    def train(self, checkpoint: Path | None) -> None:
        """Train from the start or from `checkpoint`, and evaluate; result.json holds the table's fractions."""
        # These import mindspore: after the device is set up.
        from ms_vireid.engine.trainer import Trainer
        from ms_vireid.evaluation.evaluating import evaluate_model
        from ms_vireid.models import build_model
        from ms_vireid.search.features import FeatureExtractor

        trainer = Trainer(self.config, self.data, self.folder, self.backend, self.group)
        with self.group.together():
            if checkpoint is not None:
                trainer.resume(checkpoint)
            test, trials = self._test_set(trainer.state.pictures.get("seen_before", ""))
            if self.group.is_main_process:
                self.folder.create(self.config, self.data, self.device, trainer.step)
                if checkpoint is not None:
                    say(f"resuming from {checkpoint} at step {trainer.step} of {trainer.plan.steps}")
                self._announce(trainer)
        evaluate = partial(evaluate_model, data=test, config=self.config.evaluation)
        trained = FeatureExtractor.configured(trainer.model, self.backend, self.config, self.group)
        try:
            trainer.fit(partial(evaluate, trained))
            trainer.load(self.folder.model)
            result = evaluate(trained)
            rows = {"trained": result.mean}
            if self.config.evaluation.compare_untrained:
                model = build_model(self.config)
                self.backend.accelerate(model)
                rows["untrained"] = evaluate(replace(trained, model=model)).mean
        except KeyboardInterrupt:
            if self.group.is_main_process:
                say(f"stopped at step {trainer.step}; go on with --resume auto --output {self.folder.path}", error=True)
            raise
        if self.group.is_main_process:
            self._write_result(rows, result, test, trials)

    def _test_set(self, seen_before: str) -> "tuple[ReIDData, list[Trial]]":
        """Leave out the test people whom the first weights were trained on, and draw the trials; raises InputError,
        before the training, for an evaluation that is impossible."""
        from ms_vireid.data.digests import unseen
        from ms_vireid.evaluation.protocol import protocol_trials

        data = self.data
        test = replace(data, test=unseen(data.test, seen_before, data.root, quiet=not self.group.is_main_process))
        return test, protocol_trials(test, self.config.evaluation)

    def _announce(self, trainer: "Trainer") -> None:
        say(f"run folder: {self.folder.path}")
        if self.data.name == "folder":
            say(f"{self.data.tested_on()}: {first_few(list(self.data.test.names.values()))}")
        if self.config.data.cache != "none":
            say(f"picture cache: {trainer.batches.pictures}")

    def _write_result(
        self, rows: dict[str, dict], result: "ProtocolResult", test: "ReIDData", trials: "list[Trial]"
    ) -> None:
        """Write result.json and print the table. rows: mean metrics by model. result: of the trained one on `test`."""
        from ms_vireid.evaluation.metrics_table import format_table
        from ms_vireid.evaluation.protocol import chance, evaluated
        from ms_vireid.files.checks import file_checksum
        from ms_vireid.files.writing import write_json

        rows["chance"] = chance(test.test, trials, test.protocol)
        selected = _best_and_last(self.folder.evaluations(), self.config, result.mean)
        source = {"evaluated": evaluated(self.config, test.protocol), "sha256": file_checksum(self.folder.model)}
        write_json(self.folder.result, rows | selected | {"protocol": result.as_dict() | source})
        say(*format_table(rows).split("\n"))
        for name, metrics in selected.items():
            say(f"{name} epoch, {metrics['epoch']}: rank-1 {metrics['rank1']:.2%}, mAP {metrics['map']:.2%}")
        say(f"results: {self.folder.result}")


def _best_and_last(evaluations: list[dict], config: "Config", trained: dict) -> dict[str, dict]:
    """The test metrics of the best epoch by mAP and of the last one, if they were evaluated during training."""
    if not evaluations:
        return {}
    if config.train.select == "last" and evaluations[-1]["epoch"] < config.epochs:
        evaluations = [*evaluations, {"epoch": config.epochs, **trained}]
    selected = {"best": max(evaluations, key=lambda one: one["map"])}
    if evaluations[-1]["epoch"] == config.epochs:
        selected["last"] = evaluations[-1]
    return selected


def _show(run_folder: Path, device: str) -> None:
    """Make the run's page and open it; exit as report.py does if it fails."""
    import webbrowser

    made = subprocess.run([sys.executable, "-m", "ms_vireid.report", run_folder, "--device", device])
    if made.returncode:
        sys.exit(made.returncode)
    webbrowser.open((run_folder / PAGE).resolve().as_uri())


if __name__ == "__main__":
    run(main)
