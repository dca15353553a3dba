"""Learning rates: the framework-free schedule itself, so there is nothing to mirror."""

from ms_vireid.engine.schedule import warmup_cosine

__all__ = ["warmup_cosine"]
