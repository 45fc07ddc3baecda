"""Distillation: the ensemble of a run as one small network.

``soft_targets`` makes rows and what the ensemble predicts for them, ``students`` trains networks on these,
and ``distillation`` chooses a configuration, scores it and writes a run.
"""

from parallelmlp_search.distill.distillation import DistillSettings, distill

__all__ = ["DistillSettings", "distill"]
