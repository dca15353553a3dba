"""The papers' tables: their rows, the runs that these need, and our numbers beside the printed ones."""
