"""Depth over devices: parareal networks."""
