"""Learning rates: the framework-free schedules themselves, so there is nothing to mirror."""

from ms_vireid.engine.schedule import learning_rates, warmup_cosine, warmup_steps

__all__ = ["learning_rates", "warmup_cosine", "warmup_steps"]
