"""Ranking metrics and the data sets' protocols; numpy only, so that both frameworks evaluate with the same code."""

from ms_vireid.evaluation.protocol import (
    ProtocolResult,
    Trial,
    chance,
    cross_modality_trials,
    evaluate_trials,
    llcm_trials,
    sysu_mm01_trials,
    trials_checksum,
)
from ms_vireid.evaluation.ranking import RankingResult, evaluate_ranking
from ms_vireid.evaluation.table import format_table

__all__ = [
    "ProtocolResult",
    "RankingResult",
    "Trial",
    "chance",
    "cross_modality_trials",
    "evaluate_ranking",
    "evaluate_trials",
    "format_table",
    "llcm_trials",
    "sysu_mm01_trials",
    "trials_checksum",
]
