"""Promotion of finalists of a run to deep parareal networks."""
