"""Kernels, launches and shards of searches on a GPU, counted on a machine without one."""
