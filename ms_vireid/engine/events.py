"""The rows of metrics.jsonl as a TensorBoard event file. Needs `pip install -e '.[tensorboard]'`."""

import io
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from ms_vireid.files.writing import append, make_folder

_VERSION = "brain.Event:2"  # of the format, in the first event


class Events:
    """A new event file that begins with the existing rows, so that a resumed run has no step twice.

    TensorBoard's own writer uses a thread, whose errors are lost. Both methods raise InputError as `append` does.
    """

    def __init__(self, path: Path, rows: Iterable[dict]):
        make_folder(path.parent)
        self._path = path
        append(path, _records([Event(wall_time=time.time(), file_version=_VERSION), *map(_event, rows)]))

    def append(self, row: dict) -> None:
        """Write one row of metrics.jsonl."""
        append(self._path, _records([_event(row)]))


def _event(row: dict) -> Event:
    values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars(row)]
    return Event(wall_time=time.time(), step=row["step"], summary=Summary(value=values))


def _records(events: Iterable[Event]) -> bytes:
    file = io.BytesIO()
    writer = RecordWriter(file)
    for event in events:
        writer.write(event.SerializeToString())
    return file.getvalue()


def scalars(row: dict) -> Iterator[tuple[str, float]]:
    """Yield tags and values of a row of metrics.jsonl: train/TERM, learning_rate/GROUP, speed/images_per_second,
    evaluation/METRIC, and epoch."""
    for name, value in row.items():
        if name == "evaluation":
            yield from ((f"evaluation/{metric}", number) for metric, number in value.items())
        elif name == "epoch":
            yield name, value
        elif name == "images_per_second":
            yield f"speed/{name}", value
        elif name.startswith("lr_"):
            yield f"learning_rate/{name.removeprefix('lr_')}", value
        elif name != "step":
            yield f"train/{name}", value
