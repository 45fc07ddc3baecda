"""Studies with packed trials: objective, batches, pruner, heartbeat, distributed screening."""
