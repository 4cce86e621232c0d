"""The directive ``mermaid`` for flowcharts of named boxes, drawn as SVG when the site is built.

Mermaid itself would be three megabytes of script from a network. What `tests/drawing.py` writes is all that is read:
lines ``name["text"]`` and ``a --> b``. Boxes stand in rows: each below all boxes that have an arrow to it.
"""

from __future__ import annotations

import html
import re
import textwrap
from typing import TYPE_CHECKING, Any

from docutils import nodes
from docutils.parsers.rst import Directive

if TYPE_CHECKING:
    from sphinx.application import Sphinx

BOX = re.compile(r'\s*(\w+)\["(.*)"\]\s*$')
ARROW = re.compile(r"\s*(\w+) --> (\w+)\s*$")
TIP = (
    '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0 0 8 4 0 8z"/></marker></defs>'
)
LETTER, LINE, PAD, GAP, STEP, WRAP = 7.4, 18, 12, 28, 46, 34


def rows_of(boxes: dict[str, str], arrows: list[tuple[str, str]]) -> list[list[str]]:
    """Return the boxes by row: the length of the longest way of arrows to each."""
    row = dict.fromkeys(boxes, 0)
    for _ in boxes:
        for a, b in arrows:
            row[b] = max(row[b], row[a] + 1)
    return [[name for name in boxes if row[name] == n] for n in range(max(row.values()) + 1)]


def draw(source: str) -> str:
    """Return the flowchart as SVG, in the colours of the page."""
    lines = source.splitlines()
    boxes = {m[1]: m[2] for line in lines if (m := BOX.match(line))}
    arrows = [(m[1], m[2]) for line in lines if (m := ARROW.match(line))]
    text = {name: textwrap.wrap(shown, WRAP) for name, shown in boxes.items()}
    size = {n: (max(map(len, t)) * LETTER + 2 * PAD, len(t) * LINE + PAD) for n, t in text.items()}
    rows = rows_of(boxes, arrows)
    widths = [sum(size[n][0] for n in row) + GAP * (len(row) - 1) for row in rows]
    width, y = max(widths) + 2, 1.0
    place: dict[str, tuple[float, float]] = {}
    for row, taken in zip(rows, widths, strict=True):
        x = (width - taken) / 2
        for name in row:
            place[name] = (x + size[name][0] / 2, y)
            x += size[name][0] + GAP
        y += max(size[n][1] for n in row) + STEP
    box = f'viewBox="0 0 {width:.0f} {y - STEP + 2:.0f}" width="{width:.0f}"'
    out = [f'<svg class="flowchart" {box} role="img" aria-label="Parts of the package and what each imports">', TIP]
    for a, b in arrows:
        (x1, y1), (x2, y2) = place[a], place[b]
        start, bend = y1 + size[a][1], STEP / 2
        out.append(f'<path d="M{x1:.1f} {start:.1f}C{x1:.1f} {start + bend:.1f} {x2:.1f} {y2 - bend:.1f}')
        out.append(f' {x2:.1f} {y2 - 1:.1f}" marker-end="url(#tip)"/>')
    for name, (x, top) in place.items():
        w, h = size[name]
        out.append(f'<rect x="{x - w / 2:.1f}" y="{top:.1f}" width="{w:.1f}" height="{h:.1f}" rx="5"/>')
        for k, line in enumerate(text[name]):
            out.append(f'<text x="{x:.1f}" y="{top + PAD / 2 + LINE * (k + 0.72):.1f}">{html.escape(line)}</text>')
    return "".join([*out, "</svg>"])


class Flowchart(Directive):
    """The directive."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return the drawing."""
        return [nodes.raw("", draw("\n".join(self.content)), format="html")]


def setup(app: Sphinx) -> dict[str, Any]:  # as Sphinx wants it
    """Name the directive."""
    app.add_directive("mermaid", Flowchart)
    return {"parallel_read_safe": True}
