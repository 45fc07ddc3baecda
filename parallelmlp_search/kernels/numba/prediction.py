"""Outputs of one member after the other for many rows, with the forward pass of the training loop."""

from __future__ import annotations

from parallelmlp_search.kernels.numba.arguments import OutputRows, Plan
from parallelmlp_search.kernels.numba.decorators import inlined
from parallelmlp_search.kernels.numba.elementwise import ONE, ZERO, F, exp, log
from parallelmlp_search.kernels.numba.layers import embed
from parallelmlp_search.kernels.numba.member_layout import begin_member, place_layout
from parallelmlp_search.kernels.numba.passes import forward_pass
from parallelmlp_search.kernels.numba.pointers import address, as_integers, unpacker
from parallelmlp_search.kernels.numba.products import copy
from parallelmlp_search.kernels.numba.submembers import expand

_plan, _rows = unpacker(Plan), unpacker(OutputRows, len(Plan._fields))


def output_workspace_size(arguments):
    """Return the number of floats that `member_outputs` needs as workspace."""
    integers = as_integers(arguments)
    rows = _rows(integers)
    return (address(place_layout(_plan(integers), rows).end) - address(rows.workspace)) // 4


@inlined
def _log_add(a, b):
    """Logarithm of the sum of two numbers, from their logarithms."""
    return (a if a > b else b) + log(ONE + exp(-abs(a - b)))


@inlined
def _add_binary(z, totals, n_rows, is_first):
    """Add the probabilities of both classes, from logits ``z`` (N,), to the logarithms ``totals`` (2, N)."""
    for n in range(n_rows):
        spread = log(ONE + exp(-abs(z[n])))
        # both from the logit, so that neither is lost to rounding
        negative = (ZERO if z[n] < ZERO else -z[n]) - spread
        positive = (z[n] if z[n] < ZERO else ZERO) - spread
        totals[n] = negative if is_first else _log_add(totals[n], negative)
        totals[n_rows + n] = positive if is_first else _log_add(totals[n_rows + n], positive)


@inlined
def _add_probabilities(z, totals, scratch, n_outputs, n_rows, is_first):
    """Add the probabilities of logits ``z`` (C, N) to the logarithms ``totals`` (C, N)."""
    highest, total = scratch, scratch + n_rows
    for n in range(n_rows):
        highest[n] = z[n]
        total[n] = ZERO
    for c in range(1, n_outputs):
        row = z + c * n_rows
        for n in range(n_rows):
            highest[n] = highest[n] if highest[n] > row[n] else row[n]
    for c in range(n_outputs):
        row = z + c * n_rows
        for n in range(n_rows):
            total[n] += exp(row[n] - highest[n])
    for n in range(n_rows):
        highest[n] += log(total[n])
    for c in range(n_outputs):
        row, into = z + c * n_rows, totals + c * n_rows
        for n in range(n_rows):
            own = row[n] - highest[n]
            into[n] = own if is_first else _log_add(into[n], own)


@inlined
def _mean_outputs(plan, rows, layout, member, x):
    """Mean output (C, N) of the submembers of a member: of classes, the logits of mean probabilities."""
    net, memory, totals = layout.net, layout.memory, layout.memory.grad
    n_outputs, n_rows = net.sizes[net.n_layers], net.n_rows
    part, size = ONE / F(plan.n_networks), n_outputs * n_rows
    z = memory.before + net.starts[net.n_layers - 1]
    if net.n_numbers:
        embed(net, memory, layout.p, layout.blocks, x)
        x = memory.embedded
    for k in range(plan.n_networks):
        if plan.is_expanded:
            expand(layout.p, layout.q, k, layout.blocks, layout.expanded, layout.scratch)
        forward_pass(net, memory, layout.q, layout.expanded, plan.codes[member], x, 0, ZERO, 0)
        if plan.n_networks == 1:
            return z
        is_first = k == 0
        if rows.is_regression:
            for j in range(size):
                totals[j] = z[j] * part + (ZERO if is_first else totals[j])
        elif n_outputs == 1:
            _add_binary(z, totals, n_rows, is_first)
        else:
            _add_probabilities(z, totals, memory.scratch, n_outputs, n_rows, is_first)
    if rows.is_regression:
        return totals
    if n_outputs == 1:
        for n in range(n_rows):
            totals[n] = totals[n_rows + n] - totals[n]
    else:
        spread = log(F(plan.n_networks))
        for j in range(size):
            totals[j] -= spread
    return totals


def member_outputs(arguments):
    """Compute the outputs of every member of a bucket."""
    integers = as_integers(arguments)
    plan, rows = _plan(integers), _rows(integers)
    layout = place_layout(plan, rows)
    net = layout.net
    for member in range(plan.n_members):
        begin_member(plan, layout, member)
        n_outputs = net.sizes[net.n_layers]
        for tile in range(rows.n_tiles):
            first = tile * net.n_rows
            outputs = _mean_outputs(plan, rows, layout, member, rows.tiles + first * net.n_inputs)
            count = min(net.n_rows, rows.n_total - first)
            for c in range(n_outputs):
                to = (member * n_outputs + c) * rows.n_total + first
                copy(outputs, c * net.n_rows, count, rows.outputs, to)
    return 0
