"""Plan of a packed population: position of each member in the flat buffers, and predicted cost.

Only ``modules``, ``pack``, ``periodic`` and ``submembers`` import torch.
"""

from parallelmlp_search.packing.architecture import Architecture, DataShape
from parallelmlp_search.packing.bucketing import cut_shards, plan
from parallelmlp_search.packing.cost import flops_per_step, member_seconds
from parallelmlp_search.packing.heads import MAX_LOG, Head, Task
from parallelmlp_search.packing.layout import Block, Bucket, Layout, MatmulLayout, Segment

__all__ = [
    "MAX_LOG",
    "Architecture",
    "Block",
    "Bucket",
    "DataShape",
    "Head",
    "Layout",
    "MatmulLayout",
    "Segment",
    "Task",
    "cut_shards",
    "flops_per_step",
    "member_seconds",
    "plan",
]
