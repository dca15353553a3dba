"""Reading checkpoints without trusting them, and writing them. Imports no framework."""
