"""Quality of the search against other tools: ``python -m benchmarks.quality``."""
