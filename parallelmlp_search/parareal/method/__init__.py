"""The parareal method: blocks, decomposition, coarse networks, cost model, profiling, training recipe."""
