"""Training engine: populations, packed network, optimizer, schedules, batches, trainer."""

from parallelmlp_search.engine.batches import BatchStream
from parallelmlp_search.engine.execution import ExecutionPath, execution_path
from parallelmlp_search.engine.population import MemberState, Population
from parallelmlp_search.engine.settings import Evaluation, TrainingRows, TrainingSettings
from parallelmlp_search.engine.trainer import History, predict, train
from parallelmlp_search.packing import Head, Task

__all__ = [
    "BatchStream",
    "Evaluation",
    "ExecutionPath",
    "Head",
    "History",
    "MemberState",
    "Population",
    "Task",
    "TrainingRows",
    "TrainingSettings",
    "execution_path",
    "predict",
    "train",
]
