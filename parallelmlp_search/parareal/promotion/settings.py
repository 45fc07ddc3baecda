"""Settings of a promotion."""

from __future__ import annotations

from dataclasses import dataclass

from parallelmlp_search._checks import check_choice, check_integer, check_positive
from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.parareal.method.cost import LOOPBACK, Link
from parallelmlp_search.parareal.ranks.process_group import DEFAULT_TIMEOUT_SECONDS, DEVICES

OPTIONAL = ("slices", "depth_factor", "epochs")
"""Settings with an automatic value, which None stands for."""


@dataclass(frozen=True)
class PromotionSettings:
    """Settings of a promotion.

    Attributes
    ----------
    top
        Number of finalists to promote.
    slices
        Slices ``T``, >= 2; by default the recommendation of the cost model for this host, and 2 if it
        recommends none.
    depth_factor
        Factor of depth, in [1, 1000]; by default one that gives 32 hidden layers, and 1 for deeper networks.
    epochs
        Passes over the rows; by default those of the finalists.
    launch
        Train parareal networks over ``slices * replicas`` ranks started by torchrun. By default they are
        trained in this process, slice after slice, to the same weights.
    replicas
        Copies of the network that share each minibatch.
    restarts
        Restarts of all ranks from the last checkpoint after one has died.
    device
        ``auto``, ``cpu`` or ``cuda``, for ranks.
    timeout
        Seconds without a message after which a rank counts as lost.
    link
        Connection between devices, for predictions.

    Raises
    ------
    InvalidParameterError
        If a value breaks its rule.
    """

    top: int = 1
    slices: int | None = None
    depth_factor: int | None = None
    epochs: int | None = None
    launch: bool = False
    replicas: int = 1
    restarts: int = 0
    device: str = "auto"
    timeout: float = DEFAULT_TIMEOUT_SECONDS
    link: Link = LOOPBACK

    def __post_init__(self) -> None:
        smallest = {"top": 1, "slices": 2, "depth_factor": 1, "epochs": 1, "replicas": 1, "restarts": 0}
        for name, minimum in smallest.items():
            value = getattr(self, name)
            if value is not None or name not in OPTIONAL:
                object.__setattr__(self, name, check_integer(name, value, minimum))
        check_choice("device", self.device, DEVICES)
        check_positive("timeout", self.timeout)
        if not self.launch and (self.replicas > 1 or self.restarts > 0):
            raise InvalidParameterError(
                f"replicas and restarts are for ranks, but launch is False with replicas={self.replicas} "
                f"and restarts={self.restarts}: set launch, or leave both out"
            )
