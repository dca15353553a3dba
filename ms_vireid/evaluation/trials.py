"""The queries and galleries of a data set's protocol."""

from ms_vireid.command.errors import InputError
from ms_vireid.config import EvaluationConfig
from ms_vireid.data.records import ReIDData
from ms_vireid.evaluation.protocol import (
    Trial,
    chance,
    cross_modality_trials,
    llcm_trials,
    require_matches,
    sysu_mm01_trials,
)


def protocol_trials(data: ReIDData, config: EvaluationConfig) -> list[Trial]:
    """The queries and galleries of the data set's protocol.

    Raises:
        InputError: a direction that the protocol does not have, or a test set without queries, without a gallery, or
            with a trial in which no query has a match.
    """
    if data.protocol == "sysu_mm01" and config.direction != "infrared-to-visible":
        raise InputError("evaluation.direction: SYSU-MM01's protocol has infrared queries only; leave it out")
    try:
        if data.protocol == "sysu_mm01":
            trials = sysu_mm01_trials(data.test, config.mode, config.shots, config.trials)
        elif data.protocol == "llcm":
            trials = llcm_trials(data.test, config.direction, config.trials)
        else:
            trials = cross_modality_trials(data.test, config.direction)
        require_matches(data.test, trials, data.protocol)
    except ValueError as error:
        raise InputError(f"{data.root}: {error}; check the test set's pictures and lists") from None
    return trials


def chance_level(data: ReIDData, config: EvaluationConfig) -> dict[str, float]:
    """What the protocol gives for rankings drawn at random, fractions; raises InputError as `protocol_trials` does."""
    return chance(data.test, protocol_trials(data, config), data.protocol)
