"""Parts of the benchmark of packed training; ``python -m benchmarks.packed_training`` runs it."""
