"""The data set of a training, checked, and the configuration that fits it. Imports no framework."""

from collections.abc import Iterable
from typing import NamedTuple

from ms_vireid.command.errors import one_line
from ms_vireid.command.printing import say
from ms_vireid.config import Config, expand_user
from ms_vireid.config.reading import round_trip
from ms_vireid.data.processes import require_shared_memory
from ms_vireid.data.readers import read_data
from ms_vireid.data.records import ReIDData
from ms_vireid.data.validation import validate_for_training
from ms_vireid.engine.process_group import ALONE, ProcessGroup
from ms_vireid.evaluation.protocol import require_choices


class TrainingData(NamedTuple):
    """config: the recipe with the set's number of identities, its ranges of values, and a batch that it can fill."""

    data: ReIDData
    config: Config


def prepare_data(config: Config, overrides: Iterable[str] = (), group: ProcessGroup = ALONE) -> TrainingData:
    """Read and check the data set and fit the configuration to it. In a group, the first process draws a synthetic set,
    checks the pictures and prints notes.

    overrides: those of the command line. Raises InputError for what a training cannot use.
    """
    data = ranges = None
    with group.together():
        require_shared_memory(config.data.workers)
        if group.is_main_process:
            data = read_data(config.data)
            require_choices(overrides, data)
            notes, ranges = validate_for_training(data, config)
            for note in notes:
                say(one_line(f"note: {note}"))
    ranges = {name: tuple(ends) for name, ends in group.broadcast(ranges).items()}
    with group.together():
        data = data or read_data(config.data)
        identities = data.train.num_identities
        fitted = config.with_value_ranges(ranges).with_num_classes(identities)
        fitted = round_trip(fitted.with_fitting_batch(identities, group.world_size), str(data.root))
        expand_user(str(data.root.resolve()))  # as `data_config` reads it from run.json
    wanted, batch = config.train.num_identities, fitted.train.num_identities
    if group.is_main_process and batch < wanted:
        say(f"note: {identities} identities to train on: a batch has {batch}, not {wanted}")
    return TrainingData(data, fitted)
