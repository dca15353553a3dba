"""What computes a model: kernels, operators or a graph, and what each puts in the place of cells."""
