"""Triton kernels and their launches. Kernels are imported only on a CUDA device or in the interpreter."""
