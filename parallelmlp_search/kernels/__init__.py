"""Kernels: modified matrix multiplication, activations and losses, with compiled and GPU versions."""
