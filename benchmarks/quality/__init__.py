"""How good the networks are that a search finds, beside those of other tools: ``python -m benchmarks.quality``."""
