"""Depth over devices: parareal networks, their training over ranks, and the promotion of finalists."""

from parallelmlp_search.parareal.architectures.networks import (
    deep_config,
    deep_mlp,
    resnet,
    resnet1001,
    vgg16,
)
from parallelmlp_search.parareal.method.coarse_networks import automatic_coarse, automatic_preprocessor
from parallelmlp_search.parareal.method.cost import LOOPBACK, Link, Prediction, predictions, recommended
from parallelmlp_search.parareal.method.decompose import decompose
from parallelmlp_search.parareal.method.network import PararealNetwork, Slice, adjoint
from parallelmlp_search.parareal.method.profiling import Pace, measure_pace
from parallelmlp_search.parareal.method.recipe import Recipe
from parallelmlp_search.parareal.promotion.comparison import Promotion
from parallelmlp_search.parareal.promotion.promote import promote
from parallelmlp_search.parareal.promotion.promoted import load_model, load_promoted
from parallelmlp_search.parareal.ranks.checkpoint import Keeper
from parallelmlp_search.parareal.ranks.communicator import Alone, World
from parallelmlp_search.parareal.ranks.distributed import DistributedParareal
from parallelmlp_search.parareal.ranks.process_group import end_rank, join
from parallelmlp_search.parareal.ranks.training import output_gradient

__all__ = [
    "LOOPBACK",
    "Alone",
    "DistributedParareal",
    "Keeper",
    "Link",
    "Pace",
    "PararealNetwork",
    "Prediction",
    "Promotion",
    "Recipe",
    "Slice",
    "World",
    "adjoint",
    "automatic_coarse",
    "automatic_preprocessor",
    "decompose",
    "deep_config",
    "deep_mlp",
    "end_rank",
    "join",
    "load_model",
    "load_promoted",
    "measure_pace",
    "output_gradient",
    "predictions",
    "promote",
    "recommended",
    "resnet",
    "resnet1001",
    "vgg16",
]
