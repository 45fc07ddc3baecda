"""Training over several processes: communicator, transport, jobs, checkpoints, launcher."""
