"""Studies of packed trials: objective, batches, pruner, heartbeat, screening shared by workers."""
