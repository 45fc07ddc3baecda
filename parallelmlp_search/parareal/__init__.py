"""Layer-parallel training of deep networks over several devices (parareal), and promotion of finalists.

``architectures`` builds serial networks, ``method`` decomposes them into slices and predicts the cost,
``ranks`` trains the slices over processes, ``promotion`` applies all of it to the finalists of a run.
"""

from typing import TYPE_CHECKING

from parallelmlp_search._lazy import lazy_names

if TYPE_CHECKING:
    from parallelmlp_search.parareal.architectures.convolutional import resnet, resnet1001, vgg16
    from parallelmlp_search.parareal.architectures.residual_mlp import deep_config, deep_mlp
    from parallelmlp_search.parareal.method.coarse_networks import automatic_coarse, automatic_preprocessor
    from parallelmlp_search.parareal.method.cost import (
        LOOPBACK,
        Link,
        StepPrediction,
        predict_steps,
        recommended_slices,
    )
    from parallelmlp_search.parareal.method.decompose import decompose
    from parallelmlp_search.parareal.method.network import PararealNetwork, Slice
    from parallelmlp_search.parareal.method.optimizer import Recipe
    from parallelmlp_search.parareal.method.profiling import DeviceSpeed, measure_device_speed
    from parallelmlp_search.parareal.promotion.comparison import PromotionResult
    from parallelmlp_search.parareal.promotion.runner import promote
    from parallelmlp_search.parareal.promotion.settings import PromotionSettings
    from parallelmlp_search.parareal.ranks.checkpoint import Checkpointer
    from parallelmlp_search.parareal.ranks.communicator import Communicator
    from parallelmlp_search.parareal.ranks.distributed import DistributedParareal
    from parallelmlp_search.parareal.ranks.process_group import exit_rank, init_communicator
    from parallelmlp_search.parareal.ranks.training import output_gradient

__all__ = [
    "LOOPBACK",
    "Checkpointer",
    "Communicator",
    "DeviceSpeed",
    "DistributedParareal",
    "Link",
    "PararealNetwork",
    "PromotionResult",
    "PromotionSettings",
    "Recipe",
    "Slice",
    "StepPrediction",
    "automatic_coarse",
    "automatic_preprocessor",
    "decompose",
    "deep_config",
    "deep_mlp",
    "exit_rank",
    "init_communicator",
    "measure_device_speed",
    "output_gradient",
    "predict_steps",
    "promote",
    "recommended_slices",
    "resnet",
    "resnet1001",
    "vgg16",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "architectures.convolutional": "resnet resnet1001 vgg16",
        "architectures.residual_mlp": "deep_config deep_mlp",
        "method.coarse_networks": "automatic_coarse automatic_preprocessor",
        "method.cost": "LOOPBACK Link StepPrediction predict_steps recommended_slices",
        "method.decompose": "decompose",
        "method.network": "PararealNetwork Slice",
        "method.optimizer": "Recipe",
        "method.profiling": "DeviceSpeed measure_device_speed",
        "promotion.comparison": "PromotionResult",
        "promotion.runner": "promote",
        "promotion.settings": "PromotionSettings",
        "ranks.checkpoint": "Checkpointer",
        "ranks.communicator": "Communicator",
        "ranks.distributed": "DistributedParareal",
        "ranks.process_group": "exit_rank init_communicator",
        "ranks.training": "output_gradient",
    },
)
