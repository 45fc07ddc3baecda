"""The parareal method in one process: network, decomposition, coarse networks, optimizer, cost model."""
