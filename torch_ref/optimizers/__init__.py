"""The optimisers, as in `ms_vireid.optimizers`."""
