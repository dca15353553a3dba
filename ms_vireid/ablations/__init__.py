"""The papers' tables: which rows they have, the runs that rows need, and our numbers beside the printed ones."""
