"""Proposals: configurations for each round, from the space, near the elites or from an Optuna sampler."""
