"""Drawings as SVG text, with colours that follow light and dark pages."""

from __future__ import annotations

from html import escape
from typing import Any

COLOURS = {
    "ink": ("#1f2733", "#e4e8ef"),
    "faint": ("#6b7482", "#9aa4b5"),
    "line": ("#aab2bf", "#5b6678"),
    "paper": ("#f4f6f9", "#252c3a"),
    "c0": ("#3b6fb6", "#6ea2ea"),
    "c1": ("#d9822b", "#f0a65a"),
    "c2": ("#3f9a6b", "#66c396"),
    "c3": ("#a14d8f", "#d58bc6"),
    "c4": ("#b8433f", "#ec8783"),
    "c5": ("#d3dae6", "#3a4559"),
}
"""Name of each colour, and its values on light and dark pages."""

STYLE = "\n".join(
    [
        "svg.diagram{color-scheme:light dark;font-family:system-ui,'Segoe UI','DejaVu Sans',sans-serif}",
        ".diagram text{fill:light-dark(#1f2733,#e4e8ef);font-size:13px}",
        ".diagram .small{font-size:11px}",
        ".diagram .bold{font-weight:600}",
        ".diagram .line{fill:none;stroke-width:1.5}",
        ".diagram .onbox{fill:light-dark(#fff,#10151f)}",
        *(
            f".diagram .{name}{{fill:light-dark({light},{dark})}}"
            f".diagram .tip-{name}{{fill:light-dark({light},{dark})}}"
            f".diagram .line.{name}{{fill:none;stroke:light-dark({light},{dark})}}"
            for name, (light, dark) in COLOURS.items()
        ),
    ]
)


class Drawing:
    """Picture of a width and height in pixels, to which shapes are added.

    Parameters
    ----------
    name
        Name of the file, without its ending.
    title
        Description for readers that do not see it.
    width, height
        Size in pixels.
    """

    def __init__(self, name: str, title: str, width: float, height: float) -> None:
        self.name, self.title, self.width, self.height = name, title, width, height
        self.parts: list[str] = []

    def add(self, tag: str, **attributes: Any) -> None:
        """Add an element; ``css`` is its class, and underscores in names stand for hyphens."""
        shown = {("class" if key == "css" else key.replace("_", "-")): v for key, v in attributes.items()}
        values = "".join(f' {key}="{_number(value)}"' for key, value in shown.items())
        self.parts.append(f"<{tag}{values}/>")

    def box(self, x: float, y: float, width: float, height: float, css: str = "paper", **more: Any) -> None:
        """Add a rectangle with slightly round corners."""
        self.add("rect", x=x, y=y, width=width, height=height, css=css, **({"rx": 2} | more))

    def text(self, x: float, y: float, words: str, css: str = "", anchor: str = "start") -> None:
        """Add a line of text; ``y`` is its base line."""
        self.parts.append(
            f'<text x="{_number(x)}" y="{_number(y)}" class="{css}" text-anchor="{anchor}">'
            f"{escape(words, quote=False)}</text>"
        )

    def key(self, x: float, y: float, css: str, words: str, **more: Any) -> None:
        """Add an entry of a legend: a small square and its meaning."""
        self.box(x, y, 9, 9, css, **more)
        self.text(x + 14, y + 9, words, "small")

    def line(self, points: list[tuple[float, float]], css: str = "line", **more: Any) -> None:
        """Add a line through points."""
        joined = " ".join(f"{_number(x)},{_number(y)}" for x, y in points)
        self.add("polyline", points=joined, css=f"line {css}", **more)

    def arrow(self, points: list[tuple[float, float]], css: str = "line") -> None:
        """Add a line with a head at its end; its last part is horizontal or vertical."""
        self.line(points, css)
        (x0, y0), (x, y) = points[-2:]
        dx, dy = (x > x0) - (x < x0), (y > y0) - (y < y0)
        left = (x - 6 * dx - 3.5 * dy, y - 6 * dy - 3.5 * dx)
        right = (x - 6 * dx + 3.5 * dy, y - 6 * dy + 3.5 * dx)
        corners = " ".join(f"{_number(a)},{_number(b)}" for a, b in ((x, y), left, right))
        self.add("polygon", points=corners, css=f"tip-{css}")

    def render(self) -> str:
        """Return the file."""
        size = f"0 0 {_number(self.width)} {_number(self.height)}"
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" class="diagram" viewBox="{size}"'
                f' width="{_number(self.width)}" height="{_number(self.height)}" role="img">',
                f"<title>{escape(self.title)}</title>",
                f"<style>{STYLE}</style>",
                *self.parts,
                "</svg>\n",
            ]
        )


def _number(value: Any) -> Any:
    """Return a number with at most two decimals, so that files do not depend on the last bits."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value
