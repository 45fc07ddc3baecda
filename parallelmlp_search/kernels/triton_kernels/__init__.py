"""Kernels written in Triton. Nothing here is imported before a device, or Triton's interpreter, asks for it."""
