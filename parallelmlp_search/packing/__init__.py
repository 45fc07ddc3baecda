"""The plan: which member lies where, and what it costs.

Free of torch, but for ``modules``, ``pack`` and ``periodic``.
"""

from parallelmlp_search.packing.architecture import Architecture
from parallelmlp_search.packing.bucketing import cut_shards, plan
from parallelmlp_search.packing.cost import MemberCost, flops_per_step, member_bytes, member_cost
from parallelmlp_search.packing.layout import Block, Bucket, Layout, MatmulLayout, Segment

__all__ = [
    "Architecture",
    "Block",
    "Bucket",
    "Layout",
    "MatmulLayout",
    "MemberCost",
    "Segment",
    "cut_shards",
    "flops_per_step",
    "member_bytes",
    "member_cost",
    "plan",
]
