"""Tables in, arrays out."""

from .columns import Column, ColumnKind, TableSchema, recognise_columns
from .fingerprint import fingerprint
from .frames import as_frame
from .numeric import Scaling
from .preprocessing import TablePreprocessor
from .reading import read_table
from .splits import Split, folds, holdout
from .targets import ClassTarget, RegressionTarget, class_weights, combine_weights
from .task import Task, infer_task, split_target

__all__ = [
    "ClassTarget",
    "Column",
    "ColumnKind",
    "RegressionTarget",
    "Scaling",
    "Split",
    "TablePreprocessor",
    "TableSchema",
    "Task",
    "as_frame",
    "class_weights",
    "combine_weights",
    "fingerprint",
    "folds",
    "holdout",
    "infer_task",
    "read_table",
    "recognise_columns",
    "split_target",
]
