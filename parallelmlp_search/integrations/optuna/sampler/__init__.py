"""Refinement sampler for Optuna studies: elites, trial tree, axes."""
