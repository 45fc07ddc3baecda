"""Several training steps of one member after the other, while its data are in the L1 and L2 caches.

A step of a small network has few operations per number that it touches. Loading weights and moments, one pass
over memory per operation, and library calls for products of 64 columns cost as much as the arithmetic. Here
the outer loop runs over members and the inner one over steps: the weights, moments, activations and gradients
of a member are loaded once per call, and nothing is padded to the shape of another member.
"""

from __future__ import annotations

import numpy as np

from parallelmlp_search.kernels.numba.arguments import Plan, Steps
from parallelmlp_search.kernels.numba.decorators import inlined
from parallelmlp_search.kernels.numba.elementwise import ONE, ZERO, F
from parallelmlp_search.kernels.numba.layers import embed, embed_backward, log_link_rows, squared_error_rows
from parallelmlp_search.kernels.numba.loops import binary_rows, cross_entropy_rows, label_rows
from parallelmlp_search.kernels.numba.member_layout import begin_member, place_layout
from parallelmlp_search.kernels.numba.member_memory import N_WAVE_OUTPUTS, fill, read_member, write_member
from parallelmlp_search.kernels.numba.optimizer_steps import (
    clip_gradient,
    keep_bounds,
    update_average,
    update_blocks,
)
from parallelmlp_search.kernels.numba.passes import backward_pass, forward_pass
from parallelmlp_search.kernels.numba.pointers import address, as_integers, unpacker
from parallelmlp_search.kernels.numba.submembers import expand, merge
from parallelmlp_search.kernels.numba.vectors import LANES, add, horizontal_sum, load, splat

_plan, _steps = unpacker(Plan), unpacker(Steps, len(Plan._fields))


def workspace_size(arguments):
    """Return the number of floats that `member_steps` needs as workspace."""
    integers = as_integers(arguments)
    steps = _steps(integers)
    return (address(place_layout(_plan(integers), steps).end) - address(steps.workspace)) // 4


@inlined
def _sum(values, size):
    """Sum of the first ``size`` elements, whole vectors."""
    result = splat(ZERO)
    for part in range(size // LANES):
        result = add(result, load(values, part * LANES))
    return horizontal_sum(result)


@inlined
def _loss(net, memory, steps, t, smoothing, power):
    """Loss of the outputs in ``memory.before``; its gradient is written to ``memory.grad``."""
    n_outputs, n_rows = net.sizes[net.n_layers], net.n_rows
    outputs, gradient = memory.before + net.starts[net.n_layers - 1], memory.grad
    shares, scratch, classes = steps.shares + t * n_rows, memory.scratch, steps.classes + t * n_rows
    values = steps.values + t * steps.n_targets * n_rows
    if steps.of_labels:
        label_rows(outputs, values, shares, smoothing, gradient, scratch, n_outputs, n_rows)
    elif steps.is_regression:
        if power == ZERO:
            squared_error_rows(outputs, values, shares, gradient, scratch, n_outputs, n_rows)
        else:
            log_link_rows(outputs, values, shares, power, gradient, scratch, n_outputs, n_rows)
    elif n_outputs == 1:
        binary_rows(outputs, classes, shares, smoothing, gradient, scratch, n_rows)
    else:
        cross_entropy_rows(outputs, classes, shares, smoothing, gradient, scratch, n_outputs, n_rows)
    return _sum(scratch, n_rows)


@inlined
def _gradient(plan, steps, layout, t, member):
    """Loss of a member at a step, and its gradient into ``layout.g``."""
    net, memory, p, g = layout.net, layout.memory, layout.p, layout.g
    code, smoothing = plan.codes[member], plan.settings[4 * member]
    rate = steps.rates[t * plan.n_members + member]
    rows = steps.rows + t * net.n_inputs * net.n_rows
    columns = steps.columns + t * net.n_true * net.n_columns
    n_networks, n_outputs = plan.n_networks, net.sizes[net.n_layers]
    part, loss = ONE / F(n_networks), ZERO
    x = rows
    if net.n_numbers:
        embed(net, memory, p, layout.blocks, rows)
        x = memory.embedded
    for k in range(n_networks):
        if plan.is_expanded:
            expand(p, layout.q, k, layout.blocks, layout.expanded, layout.scratch)
        shift = k * net.n_true // n_networks
        forward_pass(net, memory, layout.q, layout.expanded, code, x, t, rate, shift)
        loss += _loss(net, memory, steps, t, smoothing, plan.power)
        if n_networks > 1:
            for j in range(n_outputs * net.n_rows):
                memory.grad[j] *= part
        in_grad = backward_pass(net, memory, layout.q, layout.h, layout.expanded, code, columns)
        if plan.is_expanded:
            merge(p, g, layout.h, k, layout.blocks, layout.expanded, layout.scratch)
        if net.n_numbers:
            d = memory.grad if in_grad else memory.other
            # submembers share the embedding: its gradient comes from the sum of theirs
            if plan.is_expanded:
                for j in range(N_WAVE_OUTPUTS * net.n_numbers * net.n_rows):
                    layout.summed[j] = d[j] + (layout.summed[j] if k > 0 else ZERO)
                d = layout.summed
            if k == n_networks - 1:
                embed_backward(net, memory, p, g, layout.blocks, rows, d)
    return loss * part


@inlined
def _train(plan, steps, layout, member, updates_average):
    """Take the steps of one member, with its weights and moments in the workspace."""
    blocks, p, g, m, v = layout.blocks, layout.p, layout.g, layout.m, layout.v
    n_members, settings = plan.n_members, plan.settings + 4 * member
    stop, expanded_stop = begin_member(plan, layout, member)
    for k in range(stop):
        m[k] = v[k] = g[k] = ZERO
    fill(layout.h, expanded_stop, ZERO)
    read_member(plan.first, blocks, member, m)
    read_member(plan.second, blocks, member, v)
    if updates_average:
        read_member(plan.averages, blocks, member, layout.average)
    for t in range(steps.n_steps):
        steps.losses[t * n_members + member] = _gradient(plan, steps, layout, t, member)
        if settings[1] < F(np.inf):
            clip_gradient(g, blocks, settings[1], stop)
        coefficients = steps.tables + (t * 4 * n_members + member)
        update_blocks(
            p, g, m, v, blocks, coefficients, steps.n_steps, n_members, settings + 2, plan.adaptive == 1
        )
        if plan.n_bounds:
            keep_bounds(p, blocks, plan.bounds, plan.n_bounds)
        if steps.averaging[t] > ZERO:
            update_average(layout.average, p, steps.averaging[t], stop)
    write_member(plan.parameters, blocks, member, p)
    write_member(plan.first, blocks, member, m)
    write_member(plan.second, blocks, member, v)
    if updates_average:
        write_member(plan.averages, blocks, member, layout.average)


def member_steps(arguments):
    """Train every member of a bucket for some steps."""
    integers = as_integers(arguments)
    plan, steps = _plan(integers), _steps(integers)
    layout = place_layout(plan, steps)
    updates_average = False
    for t in range(steps.n_steps):
        updates_average |= steps.averaging[t] > ZERO
    for member in range(plan.n_members):
        if not steps.alive[member]:
            for t in range(steps.n_steps):
                steps.losses[t * plan.n_members + member] = ZERO
            continue
        _train(plan, steps, layout, member, updates_average)
    return 0
