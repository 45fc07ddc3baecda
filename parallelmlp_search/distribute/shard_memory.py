"""Predicted memory of shards in training."""

from __future__ import annotations

from parallelmlp_search.distribute.shard_data import ShardData
from parallelmlp_search.engine.trainer import EVALUATION_ROWS
from parallelmlp_search.packing.bucketing import CACHE_ELEMENTS
from parallelmlp_search.space import MLPConfig

FLOAT_BYTES = 4

WORKING_BYTES = 32_000_000
"""Memory of a shard besides its members: windows of batches and noise, predictions that are being scored."""

N_FLATS = 8
"""Copies of the weights in training: weights, gradients, two moments, averages, best snapshot; weights and
gradients of a first layer with scaled inputs."""

PADDING = 1.25
"""Size of a population relative to its members: buckets are padded to the width of their widest member."""

DEVICE_PADDING = 2.0
"""The same on a device, where buckets merge more readily: 1.7 for the default preset, 1.8 for `deep`."""

N_BUFFERS = 6
"""Buffers of activations of a bucket, forward and backward."""

N_EVALUATION_BUFFERS = 3
"""Buffers of activations of a bucket whose rows are predicted."""


def working_bytes(data: ShardData) -> int:
    """Return the memory of a shard besides its members; wide rows take more."""
    # three copies of a window of batches, which has at least one step
    return WORKING_BYTES + 3 * FLOAT_BYTES * 256 * data.n_inputs


def member_bytes(data: ShardData, config: MLPConfig, n_kept: int, n_snapshots: int = 0) -> int:
    """Return the memory of a member of a shard in training.

    Parameters
    ----------
    data, config
        Rows and configuration.
    n_kept, n_snapshots
        Vectors in the state of the outcome, and snapshots with predictions.

    Returns
    -------
    int
    """
    shape, head = data.architecture(config), data.head
    predicted = data.snapshot_inputs if n_snapshots else data.validation_inputs
    n_predicted = 0 if predicted is None else predicted.shape[0]
    # outputs of all rows, their sums over submembers, and predictions
    outputs = n_predicted * (head.n_outputs + head.n_predictions * (2 if shape.submembers > 1 else 1))
    # a list of snapshots, and the same stacked for each member
    snapshots = 2 * n_snapshots * (shape.n_parameters + n_predicted * head.n_predictions)
    per_row, padding = shape.n_activations, PADDING
    if data.device.type == "cpu":
        # a member that fills a bucket alone; the buffers of smaller ones are part of the working memory
        activations = N_BUFFERS * max(0, data.batch_rows(config) * per_row - CACHE_ELEMENTS)
    else:
        # buckets are not split, and all of them stay on the device
        n_rows = N_BUFFERS * data.batch_rows(config) + N_EVALUATION_BUFFERS * min(
            EVALUATION_ROWS, n_predicted
        )
        padding = DEVICE_PADDING
        activations = int(padding * n_rows * per_row)
    # weights and gradients of all submembers, unless the compiled loops train them
    expanded = 2 * shape.submembers * shape.n_parameters if shape.submembers > 1 else 0
    copies = int((padding * N_FLATS + n_kept) * shape.n_parameters)
    return FLOAT_BYTES * (copies + outputs + snapshots + activations + expanded)
