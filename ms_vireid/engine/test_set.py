"""The data set that a trained model is tested on: its own, or another."""

import dataclasses
import logging
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

from ms_vireid.command.errors import InputError, one_line
from ms_vireid.config import Config, apply_override, check_config, dump_config
from ms_vireid.data.bit_depth import notes_on
from ms_vireid.data.digests import RECORD, copies, joined, unknown, unseen, without
from ms_vireid.data.readers import read_data
from ms_vireid.data.records import ReIDData
from ms_vireid.data.validation import check_pictures, passed_over
from ms_vireid.engine.run_folder import RunFolder, data_config

_log = logging.getLogger(__name__)
# Keys of `data` that decide what is read, and of which set.
READ = {"trial": "regdb", "test_fraction": "folder", "layout": "folder", "synthetic": "synthetic"}
OF_PROTOCOL = ("mode", "shots", "direction", "trials")  # keys of `evaluation`


def read_test_set(
    trained: Config,
    checkpoint: Path,
    meta: dict,
    root: str | Path | None = None,
    another: Sequence[str] = (),
    layout: str | None = None,
) -> tuple[Config, ReIDData, bool]:
    """Read the data set to test a model on, without people whom the model was trained on. Returns `trained` with this
    set's keys, the set, and whether the model was trained on it.

    trained, meta: the checkpoint's configuration and record. root: the set's folder (default: the run's). another: the
    name of another set, then `data.key=value` for keys of READ. Its protocol has the schema's defaults, and everybody
    in a folder is tested on, unless the model was trained on that folder. layout: of the pictures in a folder (default:
    the run's; for another folder it is found).

    Raises InputError as `data_config` and the reader do, for a key that cannot be chosen, and for a test picture that
    cannot be read.
    """
    run, name = RunFolder(checkpoint.parent), another[0] if another else trained.data.name
    stated = [] if layout is None else [f"data.layout={layout}"]
    if layout is not None and name != "folder":
        raise InputError(f"--layout {layout}: only for folders of your own, but the test set is {name}; leave it out")
    if another:
        config = another_set(trained, root, *another, *stated)
        same_seed = config.data.synthetic.seed == trained.data.synthetic.seed  # draws the same people
        if name != trained.data.name or (name == "synthetic" and not same_seed):
            return config, _strangers(_read(config), meta), False
        if name == "folder" and root is not None:
            data = _read(config)
            if not _trained_on(data, run, meta):
                return config, _strangers(data, meta), False
        if another[1:]:
            problem = f"the model was trained on {name} and is tested on the people left out of training"
            raise InputError(f"{another[1]}: {problem}; leave it out")
    tree = dump_config(trained)
    for word in stated:
        apply_override(tree, word)
    trained = check_config(tree, "--layout")
    config = trained.model_copy(update={"data": data_config(trained.data, run, root)})
    try:
        return config, _strangers(_read(config), meta, its_own=True), True
    except InputError as error:
        if root is None or another:
            raise
        raise InputError(f"{error}; or, if it is not {name}, name it: evaluate.py --data NAME") from None


def _trained_on(data: ReIDData, run: RunFolder, meta: dict) -> bool:
    """Whether the model was trained on this folder; if nothing says on which, it may have been."""
    record = run.read_record().data if run.has_run() else None
    checksums = [*filter(None, [meta.get("data_checksum"), record and record.checksum])]
    same_root = record is not None and data.root.resolve() == Path(record.root)
    return same_root or not checksums or any(map(data.has_checksum, dict.fromkeys(checksums)))


def _strangers(data: ReIDData, meta: dict, its_own: bool = False) -> ReIDData:
    """Leave out the people whom the model was trained on, by the content of its pictures. its_own: the set is that of
    the training, which tested on all people of its test set, also those on pictures that it trained on."""
    seen, before, shared = (meta.get(key, "") for key in RECORD)
    seen = joined(without(seen, shared) if its_own else seen, before)
    test = unseen(data.test, seen, data.root, shared)
    _note(chain(*copies(data.root, test)))
    return dataclasses.replace(data, test=test, train=data.train if its_own else unknown(data.train, seen))


def _read(config: Config) -> ReIDData:
    data = read_data(config.data)
    notes = notes_on(check_pictures(data.test), config.data.value_ranges, data.root)
    _note(filter(None, [passed_over(data), *notes]))
    return data


def _note(lines: Iterable[str]) -> None:
    for line in lines:
        _log.warning("%s", one_line(f"note: {line}"))


def another_set(trained: Config, root: str | Path | None, name: str, *overrides: str) -> Config:
    """Return the configuration with the data section and the protocol of another set; everybody in a folder is tested
    on. Raises InputError as `read_test_set`."""
    for word in overrides:
        if not word.startswith(tuple(f"data.{key}{end}" for key in READ for end in "=.")):
            keys = ", ".join(f"data.{key}" for key in READ)
            raise InputError(f"{word}: for another data set only {keys} can be set; give its folder with --data-root")
        if name != (of := READ[word.removeprefix("data.").partition("=")[0].partition(".")[0]]):
            raise InputError(f"{word}: only for {of}, but the test set is {name}; leave it out")
    tree = dump_config(trained)
    tree["data"] = {key: value for key, value in tree["data"].items() if key not in READ}
    tree["data"] |= {"name": name, "test_fraction": 1.0, "root": None if root is None else str(root)}
    tree["evaluation"] = {key: value for key, value in tree["evaluation"].items() if key not in OF_PROTOCOL}
    for word in overrides:
        apply_override(tree, word)
    return check_config(tree, "--data")
