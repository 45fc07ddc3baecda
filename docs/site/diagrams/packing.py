"""Diagrams of packing: the plan of a small population, and the modified matrix multiplication."""

from __future__ import annotations

from docs.site.diagrams.svg import Drawing
from parallelmlp_search.packing import Architecture, DataShape, Layout, MatmulLayout, plan
from parallelmlp_search.space import MLPConfig

DATA = DataShape(n_inputs=5, n_outputs=2)
MEMBERS = (
    ((8,), "relu"), ((12,), "relu"), ((8,), "tanh"), ((16,), "relu"), ((16,), "silu"), ((16,), "relu"),
    ((24,), "silu"), ((8, 8), "relu"), ((16, 8), "tanh"), ((16, 16), "tanh"), ((12, 8), "relu"),
    ((8, 8), "silu"),
)  # fmt: skip
"""Widths and activation of each member."""

ACTIVATIONS = {"relu": "c0", "silu": "c1", "tanh": "c2"}
UNIT = 5
"""Pixels of a neuron."""


def population() -> list[Architecture]:
    """Return the members of the drawn population."""
    return [Architecture.of(MLPConfig(widths=widths, activation=name), DATA) for widths, name in MEMBERS]


def packing() -> Drawing:
    """Return the plan of the population: members, buckets with their padding, and the flat buffer."""
    architectures = population()
    layout = plan(architectures, n_rows=32)
    drawing = Drawing(
        "packing", "Twelve networks, the two buckets that hold them, and their flat buffer", 760, 520
    )
    _members(drawing, architectures)
    tops = _buckets(drawing, layout)
    _buffer(drawing, layout, tops)
    return drawing


def _members(drawing: Drawing, architectures: list[Architecture]) -> None:
    drawing.text(10, 22, "12 members", "bold")
    drawing.text(10, 40, "a bar per layer, as long as it is wide", "small faint")
    for number, one in enumerate(architectures):
        y = 58 + 36 * number
        drawing.text(26, y + 13, str(number), "small faint", "end")
        for layer, width in enumerate(one.widths):
            drawing.box(34, y + 12 * layer, UNIT * width, 9, ACTIVATIONS[one.activation])
    for place, (name, css) in enumerate(ACTIVATIONS.items()):
        drawing.key(10 + 62 * place, 502, css, name)


def _buckets(drawing: Drawing, layout: Layout) -> list[float]:
    """Draw the buckets and return the y of their middles."""
    drawing.text(240, 22, f"{len(layout.buckets)} buckets", "bold")
    drawing.text(240, 40, "padded to one shape, sorted by activation", "small faint")
    y, middles = 58.0, []
    for bucket in layout.buckets:
        height = 22 * bucket.n_members + 34
        drawing.box(240, y, 270, height, "paper", rx=6)
        widths = " and ".join(map(str, bucket.shape.widths))
        drawing.text(252, y + 19, f"{bucket.n_members} members, width {widths}", "small bold")
        for row, (member, one) in enumerate(zip(bucket.members, bucket.architectures, strict=True)):
            top, x = y + 30 + 22 * row, 280.0
            drawing.text(270, top + 11, str(member), "small faint", "end")
            for layer, width in enumerate(bucket.shape.widths):
                drawing.box(x, top, UNIT * width, 14, "line", opacity=0.35)
                drawing.box(x, top, UNIT * one.widths[layer], 14, ACTIVATIONS[one.activation])
                x += UNIT * width + 14
        middles.append(y + height / 2)
        y += height + 18
    drawing.key(240, 502, "line", "zeros that pad a member", opacity=0.35)
    return middles


def _buffer(drawing: Drawing, layout: Layout, middles: list[float]) -> None:
    drawing.text(575, 22, "1 flat buffer", "bold")
    drawing.text(575, 40, f"{layout.size:,} numbers, one array", "small faint")
    scale = 424 / layout.size
    for number, bucket in enumerate(layout.buckets):
        begin = 58 + scale * bucket.blocks[0].offset
        end = 58 + scale * (
            layout.buckets[number + 1].blocks[0].offset if number + 1 < len(layout.buckets) else layout.size
        )
        drawing.arrow(
            [
                (514, middles[number]),
                (542, middles[number]),
                (542, (begin + end) / 2),
                (570, (begin + end) / 2),
            ]
        )
        for block in bucket.blocks:
            y = 58 + scale * block.offset
            height = max(scale * bucket.n_members * block.row_size, 2.0)
            css = "c3" if block.kind == "weight" else "c4"
            drawing.box(575, y, 36, height - 0.8, css, rx=0)
            if height > 8:
                layer = "output layer" if block.layer == bucket.shape.depth else f"layer {block.layer + 1}"
                shape = f"{bucket.n_members} x {block.rows} x {block.columns}"
                drawing.text(618, y + height / 2 + 4, f"{layer}: {shape}", "small")
    for place, (words, css) in enumerate((("weights", "c3"), ("biases", "c4"))):
        drawing.key(575 + 80 * place, 502, css, words)


def modified_matmul() -> Drawing:
    """Return the modified matrix multiplication of a few members, beside the dense product."""
    layout = MatmulLayout(in_widths=(4, 4, 6, 9), out_widths=(2, 2, 2, 2))
    drawing = Drawing(
        "m3", "One product per run of equal members instead of one dense product with zeros", 760, 330
    )
    unit, top = 11, 76
    drawing.text(10, 22, "Dense product of all neurons", "bold")
    dense, useful = layout.n_in * layout.n_out, layout.n_weights
    drawing.text(10, 40, f"{dense} weights, of which {dense - useful} are zero", "small faint")
    drawing.text(330, 22, f"Modified matrix multiplication: {len(layout.runs)} runs", "bold")
    drawing.text(330, 40, f"{useful} weights; members of one shape are one batched product", "small faint")
    drawing.box(10, top, unit * layout.n_out, unit * layout.n_in, "line", opacity=0.25)
    row = column = 0
    for member, (n_in, n_out) in enumerate(zip(layout.in_widths, layout.out_widths, strict=True)):
        drawing.box(10 + unit * column, top + unit * row, unit * n_out, unit * n_in, f"c{member}")
        drawing.text(110, top + unit * (row + n_in / 2) + 4, f"member {member}: {n_in} neurons", "small")
        row, column = row + n_in, column + n_out
    drawing.text(10, top - 10, "outputs", "small faint")
    _runs(drawing, layout, unit, top)
    return drawing


def _runs(drawing: Drawing, layout: MatmulLayout, unit: int, top: int) -> None:
    """Draw activations times weights for each run of equal members."""
    for x, words in ((330, "activations"), (470, "weights"), (600, "outputs")):
        drawing.text(x, top - 10, words, "small faint")
    member = 0
    for count, n_in, n_out, in_offset, _, _ in layout.runs:
        for copy in range(count):
            y = top + unit * (in_offset + copy * n_in)
            css, height = f"c{member}", unit * n_in - 3
            drawing.box(330, y, 90, height, css, opacity=0.45)
            drawing.text(445, y + height / 2 + 4, "x", "", "middle")
            drawing.box(470, y, unit * n_out, height, css)
            drawing.arrow([(520, y + height / 2), (590, y + height / 2)])
            drawing.box(600, y + height / 2 - unit, 90, unit * n_out, css, opacity=0.45)
            member += 1
        if count > 1:
            y = top + unit * in_offset
            drawing.line(
                [(706, y), (712, y), (712, y + unit * count * n_in - 3), (706, y + unit * count * n_in - 3)]
            )
            drawing.text(718, y + unit * count * n_in / 2 + 4, "1 run", "small")
