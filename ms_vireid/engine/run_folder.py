"""The folder of a run: what ran, on what, what came of it."""

import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from ms_vireid.config import Config, dump_config, save_config
from ms_vireid.data.records import ReIDData
from ms_vireid.errors import InputError

PACKAGES = ("ms_vireid", "mindspore", "numpy", "pillow", "pydantic")


class RunFolder:
    """config.yaml, run.json, metrics.jsonl, last.ckpt (to resume from), model.ckpt, result.json, and kept epochs."""

    def __init__(self, path: Path):
        self.path = path
        self.config = path / "config.yaml"
        self.record = path / "run.json"
        self.metrics = path / "metrics.jsonl"
        self.last = path / "last.ckpt"
        self.model = path / "model.ckpt"
        self.result = path / "result.json"

    def kept(self, epoch: int) -> Path:
        """The weights after an epoch of `train.keep_epochs`."""
        return self.path / f"epoch-{epoch}.ckpt"

    def begun(self) -> bool:
        """Whether a run has written here."""
        return self.record.exists()

    def create(self, config: Config, data: ReIDData, device: str, step: int) -> None:
        """Write config.yaml and run.json, everything needed to repeat the run, and forget what was logged after `step`.

        Raises:
            InputError: the folder cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._remove_leftovers()
            earlier = json.loads(self.record.read_text(encoding="utf-8")) if self.begun() else {}
            commands = [*earlier.get("earlier_commands", []), *([earlier["command"]] if earlier else [])]
            save_config(config, self.config)
            write_json(self.record, self._describe(config, data, device) | {"earlier_commands": commands})
            self._drop_metrics_after(step)
        except OSError as error:
            raise InputError(f"{self.path}: cannot write the run there ({error}); choose another --output") from None

    @staticmethod
    def _describe(config: Config, data: ReIDData, device: str) -> dict:
        return {
            "command": [sys.executable, *sys.argv],
            "seed": config.seed,
            "device": device,
            "processor": processor_name(),
            "cores": os.cpu_count(),
            "platform": platform.platform(),
            "python": platform.python_version(),
            "versions": {package: version(package) for package in PACKAGES},
            "git_commit": git_commit(),
            "data": {
                "name": data.name,
                "root": str(data.root.resolve()),
                "train": {"pictures": len(data.train), "identities": data.train.num_identities},
                "test": {"pictures": len(data.test), "identities": data.test.num_identities},
                "checksum": data.checksum(),
            },
            "config": dump_config(config),
        }

    def _remove_leftovers(self) -> None:
        """Delete what a killed process left under temporary names (see `save_checkpoint` and `write_text`)."""
        for left in [*self.path.glob(".*.ckpt"), *self.path.glob(".*.tmp")]:
            left.unlink()

    def append_metrics(self, row: dict) -> None:
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def evaluations(self) -> list[dict]:
        """Every evaluation during training, with its epoch, in order."""
        if not self.metrics.exists():
            return []
        rows = map(json.loads, self.metrics.read_text(encoding="utf-8").splitlines())
        return [{"epoch": row["epoch"], **row["evaluation"]} for row in rows if "evaluation" in row]

    def _drop_metrics_after(self, step: int) -> None:
        """Forget what a killed run logged after the checkpoint that it resumes from (and a line cut off)."""
        if not self.metrics.exists():
            return
        lines = self.metrics.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
        write_text(self.metrics, "".join(f"{line}\n" for line in kept))


def write_json(path: Path, content: dict) -> None:
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Whole or not at all: a temporary name, then a rename."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def processor_name() -> str:
    """The processor's model name, as /proc/cpuinfo gives it where there is one."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def git_commit() -> str | None:
    """The commit of this checkout, with "-dirty" if files differ from it; None where it is not a git checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
