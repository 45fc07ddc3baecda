"""Tables: reading, column recognition, encoding, targets, weights and splits."""

from typing import TYPE_CHECKING

from parallelmlp_search._lazy import lazy_names

if TYPE_CHECKING:
    from parallelmlp_search.data.columns import Column, ColumnKind, TableSchema, recognise_columns
    from parallelmlp_search.data.fingerprint import fingerprint
    from parallelmlp_search.data.frames import as_frame
    from parallelmlp_search.data.numeric import Scaling
    from parallelmlp_search.data.preprocessing import TablePreprocessor
    from parallelmlp_search.data.reading import read_table
    from parallelmlp_search.data.splits import Split, folds, holdout
    from parallelmlp_search.data.target_curve import TargetCurve
    from parallelmlp_search.data.target_scaling import TargetScaling
    from parallelmlp_search.data.targets import ClassTarget, RegressionTarget, class_weights, combine_weights
    from parallelmlp_search.data.task import Task, infer_task, split_target

__all__ = [
    "ClassTarget",
    "Column",
    "ColumnKind",
    "RegressionTarget",
    "Scaling",
    "Split",
    "TablePreprocessor",
    "TableSchema",
    "TargetCurve",
    "TargetScaling",
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

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "columns": "Column ColumnKind TableSchema recognise_columns",
        "fingerprint": "fingerprint",
        "frames": "as_frame",
        "numeric": "Scaling",
        "preprocessing": "TablePreprocessor",
        "reading": "read_table",
        "splits": "Split folds holdout",
        "target_curve": "TargetCurve",
        "target_scaling": "TargetScaling",
        "targets": "ClassTarget RegressionTarget class_weights combine_weights",
        "task": "Task infer_task split_target",
    },
    shadowed=("fingerprint",),
)
