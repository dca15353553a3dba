"""Proof that ms_vireid and torch_ref compute the same numbers, and conversion of checkpoints between the two."""
