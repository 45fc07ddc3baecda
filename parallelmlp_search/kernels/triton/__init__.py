"""Kernels written in Triton, imported only where a device, or Triton's interpreter, asks for them."""
