"""Depth over devices: parareal networks, their training over ranks, and the promotion of finalists."""

from parallelmlp_search.parareal.architectures import deep_config, deep_mlp, resnet, resnet1001, vgg16
from parallelmlp_search.parareal.bridges import automatic_coarse, automatic_preprocessor
from parallelmlp_search.parareal.checkpoint import Keeper
from parallelmlp_search.parareal.comparison import Promotion
from parallelmlp_search.parareal.cost import LOOPBACK, Link, Prediction, predictions, recommended
from parallelmlp_search.parareal.decompose import decompose
from parallelmlp_search.parareal.distributed import DistributedParareal
from parallelmlp_search.parareal.joining import end_rank, join
from parallelmlp_search.parareal.network import PararealNetwork, Slice, adjoint
from parallelmlp_search.parareal.pace import Pace, measure_pace
from parallelmlp_search.parareal.promote import promote
from parallelmlp_search.parareal.promoted import load_model, load_promoted
from parallelmlp_search.parareal.recipe import Recipe
from parallelmlp_search.parareal.training import output_gradient
from parallelmlp_search.parareal.world import Alone, World

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
