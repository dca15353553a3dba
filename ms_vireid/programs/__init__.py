"""How a device computes models, losses, updates and steps: `Program`, its subclasses and their tables."""
