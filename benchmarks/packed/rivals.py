"""Rivals: other ways to train the same networks, each as fast as its kind allows.

``sample()`` of a rival returns the seconds per member-step, measured over about a second. Data is in memory,
minibatches are slices of tensors, and optimizers are torch's fused ones.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.packed.cases import Case
from parallelmlp_search.packing.pack import build_module
from parallelmlp_search.space import MLPConfig

__all__ = ["M3", "OneAtATime", "Vmap"]

SELECTED = 24
"""Networks that one-at-a-time rivals train, evenly spread over the FLOP of the population."""


def _optimizer(case: Case, parameters: list[Tensor]) -> torch.optim.Optimizer:
    if case.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=1e-3, momentum=0.9, fused=True)
    return torch.optim.Adam(parameters, lr=1e-3, fused=True)


def _loss(case: Case) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the mean loss of outputs ``(N, C)``."""
    if case.outputs == 1:
        return lambda out, y: F.binary_cross_entropy_with_logits(out[:, 0], y)
    return F.cross_entropy


def _targets(case: Case, target: Tensor) -> Tensor:
    return target.float() if case.outputs == 1 else target


def spread(case: Case, configs: list[MLPConfig], count: int) -> list[MLPConfig]:
    """Return members evenly spread over the population sorted by FLOP, with mixed activations.

    Parameters
    ----------
    case
        Sizes of the task.
    configs
        Population.
    count
        Members to return at most.

    Returns
    -------
    list of MLPConfig
    """
    order = sorted(range(len(configs)), key=lambda m: (case.product_flops([configs[m]]), m * 7919 % 1009))
    if len(order) <= count:
        return [configs[m] for m in order]
    return [configs[order[int((place + 0.5) * len(order) / count)]] for place in range(count)]


class _Batches:
    """Endless slices of a shuffled table."""

    def __init__(self, case: Case) -> None:
        inputs, target = case.data()
        size = min(case.batch, case.rows)
        starts = range(0, case.rows - size + 1, size)
        wanted = _targets(case, target)
        self._batches = itertools.cycle([(inputs[s : s + size], wanted[s : s + size]) for s in starts])

    def __next__(self) -> tuple[Tensor, Tensor]:
        return next(self._batches)


class _Timed:
    """Rival whose sample takes about a second; the constructor determines the rounds for it."""

    name: str
    threads: int
    seconds = 1.0

    def __init__(self) -> None:
        self._rounds = 1
        self.sample()
        started = time.perf_counter()
        self.sample()
        once = time.perf_counter() - started
        self._rounds = max(1, min(2000, int(self.seconds / once)))

    def _round(self) -> int:
        """Train one round and return its member-steps."""
        raise NotImplementedError

    def sample(self) -> float:
        """Return the seconds per member-step."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            started = time.perf_counter()
            steps = sum(self._round() for _ in range(self._rounds))
            return (time.perf_counter() - started) / steps
        finally:
            torch.set_num_threads(before)

    def close(self) -> None:
        """Do nothing: no process was started."""


class OneAtATime(_Timed):
    """One network after the other: ``nn.Sequential`` and a fused optimizer."""

    def __init__(self, case: Case, threads: int) -> None:
        self.name, self.threads = f"sequential_{threads}", threads
        members = spread(case, case.configs(), SELECTED)
        self._networks = [build_module(case.architecture(config)) for config in members]
        self._optimizers = [_optimizer(case, list(n.parameters())) for n in self._networks]
        self._batches, self._loss = _Batches(case), _loss(case)
        super().__init__()

    def _round(self) -> int:
        for network, optimizer in zip(self._networks, self._optimizers, strict=True):
            for _ in range(10):
                rows, target = next(self._batches)
                optimizer.zero_grad()
                self._loss(network(rows), target).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        return 10 * len(self._networks)


class M3(_Timed):
    """The paper's modified matrix multiplication under autograd: broadcast product, then scatter-add.

    It is feature-major, so the sum over a member's neurons adds whole rows. Activations apply to contiguous
    parts that are split once, and four parameters hold the whole population. It needs a quarter of the time
    of the authors' code.
    """

    def __init__(self, case: Case, threads: int, members: int | None = None, name: str = "m3") -> None:
        self.name, self.threads = f"{name}_{threads}", threads
        self._case = case
        configs = case.configs()
        if members is not None:
            configs = spread(case, configs, members)
        configs.sort(key=lambda config: (config.activation, config.widths))
        widths = [config.widths[0] for config in configs]
        self._members = len(configs)
        self._segment = torch.repeat_interleave(torch.arange(len(widths)), torch.tensor(widths))
        parts = itertools.groupby(configs, key=lambda config: config.activation)
        sizes = {name: sum(config.widths[0] for config in members) for name, members in parts}
        self._sizes = list(sizes.values())
        self._activations = [_function(name) for name in sizes]
        hidden = sum(widths)
        bound = case.inputs**-0.5
        fan = torch.tensor(widths, dtype=torch.float32).rsqrt()
        self._parameters = [
            torch.empty(hidden, case.inputs).uniform_(-bound, bound),
            torch.empty(hidden, 1).uniform_(-bound, bound),
            (torch.rand(hidden, case.outputs) * 2 - 1) * fan[self._segment].view(-1, 1),
            (torch.rand(len(widths), case.outputs, 1) * 2 - 1) * fan.view(-1, 1, 1),
        ]
        for parameter in self._parameters:
            parameter.requires_grad_(True)
        self._optimizer = _optimizer(case, self._parameters)
        self._batches = _Batches(case)
        super().__init__()

    def _round(self) -> int:
        rows, target = next(self._batches)
        first, first_bias, second, second_bias = self._parameters
        hidden = torch.addmm(first_bias, first, rows.t())  # (H, N)
        pieces = zip(self._activations, hidden.split(self._sizes), strict=True)
        active = torch.cat([activation(piece) for activation, piece in pieces])
        product = active.unsqueeze(1) * second.unsqueeze(2)  # (H, C, N)
        shape = (self._members, self._case.outputs, rows.shape[0])
        outputs = torch.zeros(shape).index_add(0, self._segment, product) + second_bias
        # mean over rows, summed over members
        if self._case.outputs == 1:
            wanted = target.expand(self._members, 1, -1)
            loss = F.binary_cross_entropy_with_logits(outputs, wanted, reduction="sum") / rows.shape[0]
        else:
            wanted = target.expand(self._members, -1)
            loss = F.cross_entropy(outputs, wanted, reduction="sum") / rows.shape[0]
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        return self._members


def _function(name: str) -> Callable[[Tensor], Tensor]:
    functions: dict[str, Callable[[Tensor], Tensor]] = {
        "identity": lambda z: z,
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
        "relu": F.relu,
        "leaky_relu": F.leaky_relu,
        "elu": F.elu,
        "gelu": F.gelu,
        "selu": F.selu,
        "hardshrink": F.hardshrink,
        "mish": F.mish,
    }
    return functions[name]


class Vmap(_Timed):
    """``torch.func.vmap`` of a function of one network's weights over networks of equal shape.

    Stacks of ``chunk`` members train one after the other; a smaller stack may stay in the cache. Populations
    of many shapes are sampled, because a stack holds members of one shape and activation only.
    """

    def __init__(self, case: Case, threads: int, chunk: int) -> None:
        self.name, self.threads = f"vmap_{threads}_{chunk}", threads
        kinds: dict[Any, list[MLPConfig]] = {}
        for config in case.configs():
            kinds.setdefault((config.widths, config.activation), []).append(config)
        keys = sorted(kinds, key=lambda key: (case.product_flops([kinds[key][0]]), key[1]))
        chosen = keys if len(keys) <= 20 else [keys[int((p + 0.5) * len(keys) / 20)] for p in range(20)]
        self._stacks = []
        for key in chosen:
            members = kinds[key][: 2 * chunk]
            for start in range(0, len(members), chunk):
                self._stacks.append(_Stack(case, members[start : start + chunk]))
        self._batches = _Batches(case)
        super().__init__()

    def _round(self) -> int:
        total = 0
        for stack in self._stacks:
            rows, target = next(self._batches)
            total += stack.step(rows, target)
        return total


class _Stack:
    """Equal networks with weights stacked along a first axis."""

    def __init__(self, case: Case, members: list[MLPConfig]) -> None:
        networks = [build_module(case.architecture(config)) for config in members]
        stacked, _ = torch.func.stack_module_state(networks)  # type: ignore[arg-type]
        self._size = len(members)
        self._weights = {name: weight.detach() for name, weight in stacked.items()}
        template: nn.Module = networks[0].to("meta")
        loss = _loss(case)

        def of_one(weights: dict[str, Tensor], rows: Tensor, target: Tensor) -> Tensor:
            return loss(torch.func.functional_call(template, weights, (rows,)), target)

        self._gradient = torch.func.vmap(torch.func.grad(of_one), in_dims=(0, None, None))
        self._optimizer = _optimizer(case, list(self._weights.values()))

    def step(self, rows: Tensor, target: Tensor) -> int:
        """Train every network of the stack for one step and return their number."""
        for name, gradient in self._gradient(self._weights, rows, target).items():
            self._weights[name].grad = gradient
        self._optimizer.step()
        return self._size
