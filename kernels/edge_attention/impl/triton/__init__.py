"""Edge attention on GPUs. Importing this package imports Triton."""
