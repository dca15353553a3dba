"""Parameter groups, AdamW and SGD as PyTorch defines them, and the learning rates of a run."""
