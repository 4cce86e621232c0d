"""Draw the parts of the package and their imports into docs/architecture.md: ``python -m tests.drawing``.

An arrow means "imports". Arrows that follow from a chain of others are left out, and so are imports of a higher floor,
which `tests/test_architecture.py` lists.
"""

from __future__ import annotations

from tests.count import FLOORS, ROOT, floor, imports_of, read_modules

PAGE = ROOT / "docs" / "architecture.md"
START, END = "```mermaid\n", "```\n"
BASE = {"error_codes", "errors", "machine", "progress", "random", "ranking", "text", "units", "vectors"}
"""Modules of the ground that import nothing but one another."""

PACKAGES = {"kernels", "data_store", "coexpression", "model", "training", "evaluation", "analysis", "cluster"}


def node_of(name: str) -> str:
    """Name the box that a module is in."""
    part = f"{name}.musegnn".split(".")[1]
    if part in PACKAGES:
        return part
    if floor(name) > 0:
        return "interface" if floor(name) == len(FLOORS) - 1 else "pipeline"
    return "base" if part in BASE else "settings"


def draw() -> str:
    """Return the drawing in the language of mermaid."""
    modules = read_modules(ROOT)
    members: dict[str, set[str]] = {}
    arrows: dict[str, set[str]] = {}
    for name, module in modules.items():
        node = node_of(name)
        members.setdefault(node, set()).add(name.removeprefix("musegnn.").split(".")[0])
        below = {node_of(end) for end in imports_of(module, modules) if floor(end) <= floor(name)}
        arrows.setdefault(node, set()).update(below - {node})
    lines = ["flowchart TD"]
    for node in sorted(members, key=lambda node: (-max(floor(f"musegnn.{part}") for part in members[node]), node)):
        names = f"{node}/" if node in PACKAGES else ", ".join(sorted(members[node] - {"musegnn", "__main__"}))
        lines.append(f'    {node}["{names}"]')
    for node in sorted(arrows):
        ends = arrows[node]
        direct = [end for end in ends if not any(end in reachable(arrows, other) for other in ends - {end})]
        lines += [f"    {node} --> {end}" for end in sorted(direct)]
    return "\n".join(lines) + "\n"


def reachable(arrows: dict[str, set[str]], start: str) -> set[str]:
    """Return all boxes below one."""
    found: set[str] = set()
    stack = list(arrows[start])
    while stack:
        node = stack.pop()
        if node not in found:
            found.add(node)
            stack += arrows[node]
    return found


def page_with(text: str) -> str:
    """Return the page with this drawing."""
    page = PAGE.read_text(encoding="utf-8")
    first = page.index(START) + len(START)
    return page[:first] + text + page[page.index(END, first) :]


if __name__ == "__main__":
    PAGE.write_text(page_with(draw()), encoding="utf-8")
