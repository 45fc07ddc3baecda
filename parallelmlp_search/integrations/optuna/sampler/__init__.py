"""Refinement sampler for Optuna studies: elites, the tree of tried values, axes."""
