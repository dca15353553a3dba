"""What metrics.jsonl holds, as TensorBoard reads it. Needs `pip install -e '.[tensorboard]'`."""

import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

_OF_SPEED = "images_per_second"


class Events:
    """An event file in a folder of its own, begun anew with the rows there are: a resumed run has no step twice."""

    def __init__(self, folder: Path, rows: Iterable[dict]):
        shutil.rmtree(folder, ignore_errors=True)
        self._writer = EventFileWriter(str(folder))
        for row in rows:
            self._add(row)
        self._writer.flush()

    def append(self, row: dict) -> None:
        """One row of metrics.jsonl."""
        self._add(row)
        self._writer.flush()

    def _add(self, row: dict) -> None:
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars(row)]
        self._writer.add_event(Event(wall_time=time.time(), step=row["step"], summary=Summary(value=values)))


def scalars(row: dict) -> Iterator[tuple[str, float]]:
    """Tags and values of a row of metrics.jsonl: train/TERM, learning_rate/GROUP, speed/images_per_second,
    evaluation/METRIC, and epoch."""
    for name, value in row.items():
        if name == "evaluation":
            yield from ((f"evaluation/{metric}", number) for metric, number in value.items())
        elif name == "epoch":
            yield name, value
        elif name == _OF_SPEED:
            yield f"speed/{name}", value
        elif name.startswith("lr_"):
            yield f"learning_rate/{name.removeprefix('lr_')}", value
        elif name != "step":
            yield f"train/{name}", value
