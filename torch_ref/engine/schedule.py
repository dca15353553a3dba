"""Learning rates: the framework-free schedules themselves, so there is nothing to mirror."""

from ms_vireid.engine.schedule import iteration_steps, learning_rates, warmup_cosine, warmup_steps

__all__ = ["iteration_steps", "learning_rates", "warmup_cosine", "warmup_steps"]
