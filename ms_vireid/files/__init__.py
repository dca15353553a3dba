"""Reading files without trusting them, and writing files atomically. Imports no framework."""
