"""What measures: the benchmark's sections and their processes."""
