"""Training on a CUDA device: dropout fields, step tables, captured graphs, windows of steps."""
