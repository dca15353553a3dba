"""Files as this project reads and writes them: taken apart without trust, written whole or not at all. Importing them
imports no framework."""
