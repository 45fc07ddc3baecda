"""Promotion of finalists of a run to deep networks: selection, training, comparison, the model."""
