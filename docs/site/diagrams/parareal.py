"""Diagram of a step of a parareal network: what each device does, and when."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from docs.site.diagrams.svg import Drawing
from parallelmlp_search.parareal.method.blocks import profile_model
from parallelmlp_search.parareal.method.cost import simulate_step
from parallelmlp_search.parareal.method.decompose import plan_partition
from parallelmlp_search.parareal.method.profiling import SliceTimes

SLICES, DEPTH, WIDTH, INPUTS = 4, 32, 64, 16
SHARE = 1 / 3
"""Share of the forward pass in the work of both passes."""


def slice_times() -> tuple[list[SliceTimes], list[int], float]:
    """Return the counted work of each slice, the blocks of each, and that of the serial network."""
    blocks = [nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH), nn.ReLU()) for _ in range(DEPTH)]
    model = nn.Sequential(nn.Linear(INPUTS, WIDTH), *blocks, nn.Linear(WIDTH, 3))
    profile = profile_model(model, torch.zeros(128, INPUTS))
    partition = plan_partition(profile, SLICES)
    block = profile.blocks[1].cost
    times = [
        SliceTimes(
            forward=SHARE * cost,
            backward=(1 - SHARE) * cost,
            sweep=SHARE * block if number else 0.0,
            sweep_back=(1 - SHARE) * block if number else 0.0,
        )
        for number, cost in enumerate(partition.costs)
    ]
    bounds = partition.bounds
    counts = [end - begin for begin, end in pairwise(bounds)]
    return times, counts, float(sum(partition.costs))


def spans(times: list[SliceTimes]) -> list[list[tuple[str, float, float]]]:
    """Return the kind, begin and end of each piece of work of each slice, without time for messages."""
    found: list[list[tuple[str, float, float]]] = [[("fine", 0.0, one.forward)] for one in times]
    ready = times[0].forward
    for number, one in enumerate(times[1:], start=1):
        begin = max(one.forward, ready)
        ready = begin + one.sweep
        found[number].append(("coarse", begin, ready))
    for number in range(len(times) - 1, -1, -1):
        one = times[number]
        if one.sweep_back:
            found[number].append(("coarse", ready, ready + one.sweep_back))
            ready += one.sweep_back
        found[number].append(("back", ready, ready + one.backward))
    return found


def parareal() -> Drawing:
    """Return the time line of a training step on four devices, beside the serial one."""
    times, counts, serial = slice_times()
    drawing = Drawing(
        "parareal", "A training step of 33 blocks on one device and in four slices on four devices", 760, 330
    )
    scale = 600 / serial
    drawing.text(10, 22, f"One device: {sum(counts)} blocks, one after the other", "bold")
    x = 130.0
    for css, words, part in (("c0", "forward", SHARE), ("c3", "backward", 1 - SHARE)):
        drawing.box(x, 34, scale * serial * part - 1, 26, css)
        drawing.text(x + scale * serial * part / 2, 52, words, "small onbox", "middle")
        x += scale * serial * part
    step = simulate_step(times, [0.0] * (SLICES - 1))
    drawing.text(10, 98, f"{SLICES} devices: {serial / step:.1f} times as fast without messages", "bold")
    styles = {"fine": "c0", "coarse": "c1", "back": "c3"}
    for number, pieces in enumerate(spans(times)):
        y = 112 + 38 * number
        drawing.text(10, y + 18, f"slice {number + 1}, {counts[number]} blocks", "small")
        for kind, begin, end in pieces:
            drawing.box(130 + scale * begin, y, max(scale * (end - begin) - 1, 2.5), 26, styles[kind])
    y = 112 + 38 * SLICES + 10
    drawing.line([(130 + scale * step, 106), (130 + scale * step, y - 8)], "faint", stroke_dasharray="3 3")
    drawing.text(130 + scale * step + 6, y - 12, "end of the step", "small faint")
    legend = (
        ("c0", "preprocessor and blocks, forward: all slices at once"),
        ("c1", "coarse networks: a short sweep from slice to slice, and back"),
        ("c3", "backward: all slices at once"),
    )
    for place, (css, words) in enumerate(legend):
        drawing.key(130, y + 4 + 18 * place, css, words)
    return drawing
