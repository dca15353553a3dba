"""Ranking metrics and the data sets' protocols, in NumPy, so that both frameworks evaluate with the same code."""

from ms_vireid.evaluation.ranking import evaluate_ranking
