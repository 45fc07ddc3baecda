"""Optuna storages: opening, retrying, batched writes, and a write-back cache."""
