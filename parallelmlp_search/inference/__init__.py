"""Prediction with trained networks in NumPy: no file of this package imports torch.

``networks`` describes trained networks as plain layers with NumPy weights, ``forward`` evaluates them,
``encoding`` encodes a table for all folds at once, ``ensemble`` combines both, and ``model`` reads and writes
the trained model of a search.
"""

from parallelmlp_search.inference.ensemble import Ensemble
from parallelmlp_search.inference.fold_model import FoldModel
from parallelmlp_search.inference.forward import network_outputs
from parallelmlp_search.inference.model import TrainedModel
from parallelmlp_search.inference.networks import PeriodicWaves, PlainLayer, PlainNetworks

__all__ = [
    "Ensemble",
    "FoldModel",
    "PeriodicWaves",
    "PlainLayer",
    "PlainNetworks",
    "TrainedModel",
    "network_outputs",
]
