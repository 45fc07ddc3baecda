"""How good what a search finds is, beside other tools: ``python -m benchmarks.quality``."""
