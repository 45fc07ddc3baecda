"""Rivals of packed training on the same card: one network at a time, and ``torch.func.vmap``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, stack_module_state, vmap

from benchmarks.gpu_cases import Case, make_rows, paper_population, quantiles, timed
from parallelmlp_search.engine import Population
from parallelmlp_search.packing import DataShape
from parallelmlp_search.packing.pack import build_module


def sequential_step(case: Case, device: str, n_networks: int, n_steps: int) -> dict[str, Any]:
    """Time the steps of one network at a time: slices of tensors, fused Adam, no data loader.

    Parameters
    ----------
    case
        Sizes of the task.
    device
        Device of the networks.
    n_networks
        Networks, spread evenly over the population.
    n_steps
        Timed steps of each.

    Returns
    -------
    dict
        Quantiles of the seconds per step.
    """
    rows = make_rows(case, device)
    inputs, target = rows.inputs, rows.target
    configs = paper_population(case)
    chosen = [configs[(2 * i + 1) * len(configs) // (2 * n_networks)] for i in range(n_networks)]
    population = Population.create(chosen, DataShape(case.n_inputs, case.n_outputs))
    per_step = []
    for member in range(n_networks):
        module = build_module(population.layout.architecture(member)).to(device)
        optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3, weight_decay=0.0, fused=True)
        loss_function: nn.Module = nn.CrossEntropyLoss()
        wanted = target
        if case.n_outputs == 1:
            loss_function, wanted = nn.BCEWithLogitsLoss(), target.float().unsqueeze(1)
        order = torch.randperm(case.n_rows, device=device)

        def steps(
            count: int,
            module: nn.Module = module,
            optimizer: torch.optim.Optimizer = optimizer,
            loss_function: nn.Module = loss_function,
            wanted: Tensor = wanted,
            order: Tensor = order,
        ) -> None:
            for step in range(count):
                start = step * case.batch_size % (case.n_rows - case.batch_size + 1)
                batch = order[start : start + case.batch_size]
                optimizer.zero_grad(set_to_none=True)
                loss_function(module(inputs[batch]), wanted[batch]).backward()
                optimizer.step()

        steps(20)
        per_step.extend(s / n_steps for s in timed(lambda run=steps: run(n_steps), device, 1))
    return {"networks": n_networks, "step_seconds": quantiles(per_step)}


def vmap_step(case: Case, device: str, n_networks: int, n_steps: int) -> dict[str, Any]:
    """Time the steps of networks of width 100 that ``torch.func.vmap`` trains together.

    ``vmap`` needs equal shapes, so that narrower networks are padded to the widest. All have the activation
    tanh, and Adam takes one fused step for all.

    Parameters
    ----------
    case
        Sizes of the task.
    device
        Device of the networks.
    n_networks
        Networks that are trained together.
    n_steps
        Timed steps.

    Returns
    -------
    dict
        Quantiles of the seconds per step of one network.
    """
    rows = make_rows(case, device)
    modules = [
        nn.Sequential(nn.Linear(case.n_inputs, 100), nn.Tanh(), nn.Linear(100, case.n_outputs)).to(device)
        for _ in range(n_networks)
    ]
    parameters, _ = stack_module_state(modules)
    leaves = list(parameters.values())
    optimizer = torch.optim.AdamW(leaves, lr=1e-3, weight_decay=0.0, fused=True)

    def loss(given: dict[str, Tensor], inputs: Tensor, target: Tensor) -> Tensor:
        outputs = functional_call(modules[0], given, (inputs,))
        if case.n_outputs == 1:
            return nn.functional.binary_cross_entropy_with_logits(
                outputs.squeeze(1), target.to(outputs.dtype)
            )
        return nn.functional.cross_entropy(outputs, target)

    gradients = vmap(grad_and_value(loss), in_dims=(0, None, None))
    order = torch.randperm(case.n_rows, device=device)

    def steps(count: int) -> None:
        for step in range(count):
            start = step * case.batch_size % (case.n_rows - case.batch_size + 1)
            batch = order[start : start + case.batch_size]
            found, _ = gradients(parameters, rows.inputs[batch], rows.target[batch])
            for leaf, gradient in zip(leaves, found.values(), strict=True):
                leaf.grad = gradient
            optimizer.step()

    steps(3)
    per_step = [seconds / n_steps / n_networks for seconds in timed(lambda: steps(n_steps), device, 3)]
    return {"networks": n_networks, "step_seconds": quantiles(per_step)}
