"""Optuna storages: opening, retries, writing in batches, and a write-back copy in memory."""
