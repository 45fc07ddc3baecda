"""Deep networks as an ``nn.Sequential`` of blocks: residual MLPs and convolutional networks."""
