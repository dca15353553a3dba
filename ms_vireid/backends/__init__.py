"""How a device computes models, losses, updates and steps: `Backend`, its subclasses and their tables."""
