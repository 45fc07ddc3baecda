"""Training: populations, the packed network, optimiser, schedules, batches, the trainer, checkpoints."""

from parallelmlp_search.engine.batches import BatchStream
from parallelmlp_search.engine.heads import Head, Task
from parallelmlp_search.engine.population import MemberState, Population
from parallelmlp_search.engine.trainer import Evaluation, History, TrainingRows, predict, train

__all__ = [
    "BatchStream",
    "Evaluation",
    "Head",
    "History",
    "MemberState",
    "Population",
    "Task",
    "TrainingRows",
    "predict",
    "train",
]
