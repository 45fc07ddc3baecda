"""Training on a CUDA device: graphs, tables of steps, dropout, the persistent kernel."""
