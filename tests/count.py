"""Count what the source tree consists of, for one or several states of it side by side.

Run as ``python -m tests.count [REF ...]``: without arguments for the working tree, else for each git reference
(``.`` names the working tree).

Sizes are by folder, where ``musegnn`` stands for the files directly in it:

* lines: all lines of ``.py`` files, as ``wc -l``; the rest of docstrings, comments and code is blank;
* docstrings: lines of strings that stand alone, those below an assignment included;
* comments: lines that hold nothing but a comment;
* ratio: docstrings and comments to code.

Of the whole tree:

* settings, all fields: the annotated fields of all sections of ``musegnn.config``: those of ``DatasetConfig`` and
  ``AtlasConfig`` and the fields whose value is a section are counted, too (100 at commit 6ce6e09);
* settings, own: without ``DatasetConfig`` and ``AtlasConfig``, and without the fields whose value is a section;
* import circles: strongly connected components of more than one module. All imports are arrows: at module level,
  inside functions, and for type checking; that a package's ``__init__`` runs before its modules is no arrow;
* upward arrows: imports from a lower floor to a higher one, see ``FLOORS``;
* docstrings that open with the word "Give" or "Return";
* public names without docstring: modules, classes, functions and methods whose names, like those of the classes they
  are in, have no leading underscore; overloads and what is defined inside functions do not count.
"""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("musegnn", "kernels", "data_store", "cluster")
FLOORS = (
    "errors error_codes kernels data_store aliases config atlas_file dataset_entries datasets graph guesses progress "
    "machine random ranking removed_settings run_folder setting_errors text units vectors",
    "coexpression",
    "model",
    "training",
    "evaluation",
    "analysis",
    "cluster",
    "musegnn pipeline results",
    "add_cli analysis_cli cli __main__ doctor gene_sets_cli options output results_cli store_cli",
)
"""Parts of the package from the lowest floor to the highest; what is not here is on the floor of the pipeline."""

SIZES = ("lines", "docstrings", "comments", "code", "ratio", "modules", "classes")
TOTALS = (
    "settings, all fields",
    "settings, own",
    "import circles",
    "modules in circles",
    "upward arrows",
    'docstrings "Give"',
    'docstrings "Return"',
    "public names without docstring",
)
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass
class Module:
    """One source file."""

    name: str
    folder: str
    text: str
    tree: ast.Module


@dataclass
class Count:
    """What was counted of one state of the tree."""

    sizes: dict[str, Counter[str]] = field(default_factory=dict)
    totals: Counter[str] = field(default_factory=Counter)
    circles: list[list[str]] = field(default_factory=list)
    upward: list[str] = field(default_factory=list)
    undocumented: list[str] = field(default_factory=list)


def read_modules(root: Path) -> dict[str, Module]:
    """Parse all product code below a root, by installed module name."""
    found = {}
    for top in FOLDERS:
        for path in sorted((root / top).rglob("*.py")):
            parts = path.relative_to(root / top).with_suffix("").parts
            above = ("musegnn",) if top == "musegnn" else ("musegnn", top)
            name = ".".join((*above, *(part for part in parts if part != "__init__")))
            folder = f"musegnn.{parts[0]}" if top == "musegnn" and len(parts) > 1 else top
            text = path.read_text(encoding="utf-8")
            found[name] = Module(name, folder, text, ast.parse(text))
    return found


def span(node: ast.stmt | ast.expr) -> range:
    """List the lines of a node."""
    return range(node.lineno, (node.end_lineno or node.lineno) + 1)


def is_text(node: ast.AST) -> bool:
    """Return whether a statement is a string that stands alone."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def count_lines(module: Module) -> Counter[str]:
    """Count lines of a module by kind, and its classes."""
    nodes = list(ast.walk(module.tree))
    lines = module.text.splitlines()
    documentation = {k for node in nodes if isinstance(node, ast.Expr) and is_text(node) for k in span(node)}
    strings = {k for node in nodes if isinstance(node, (ast.Constant, ast.JoinedStr)) for k in span(node)}
    comments = {k for k, line in enumerate(lines, 1) if line.lstrip().startswith("#") and k not in strings}
    code = {k for k, line in enumerate(lines, 1) if line.strip()} - documentation - comments
    return Counter(
        lines=module.text.count("\n"),
        docstrings=len(documentation),
        comments=len(comments),
        code=len(code),
        modules=1,
        classes=sum(isinstance(node, ast.ClassDef) for node in nodes),
    )


def count_settings(modules: list[Module]) -> tuple[int, int]:
    """Count all fields of the configuration, and those that are settings of their own."""
    classes = [node for module in modules for node in module.tree.body if isinstance(node, ast.ClassDef)]
    sections = {node.name for node in classes}
    every = own = 0
    for node in classes:
        for item in node.body:
            if isinstance(item, ast.AnnAssign):
                names = {part.id for part in ast.walk(item.annotation) if isinstance(part, ast.Name)}
                if "ClassVar" in names:
                    continue
                every += 1
                own += node.name not in {"DatasetConfig", "AtlasConfig"} and not names & sections
    return every, own


def imported_names(tree: ast.Module) -> set[str]:
    """Name all that a module imports anywhere: modules, and what is taken from them as ``module.name``."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names}
    return names


def imports_of(module: Module, modules: dict[str, Module]) -> set[str]:
    """Name the modules of the product that a module imports anywhere."""
    names = {name if name in modules else name.rpartition(".")[0] for name in imported_names(module.tree)}
    return (names & modules.keys()) - {module.name}


def find_circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Find the strongly connected components of more than one module."""
    reach: dict[str, set[str]] = {}
    for start, ends in arrows.items():
        seen: set[str] = set()
        stack = list(ends)
        while stack:
            name = stack.pop()
            if name not in seen:
                seen.add(name)
                stack += arrows[name]
        reach[start] = seen
    groups = {tuple(sorted(b for b in reach[a] if a in reach[b])) for a in arrows if a in reach[a]}
    return [list(group) for group in sorted(groups, key=lambda group: (-len(group), group))]


def floor(name: str) -> int:
    """Return the floor of a module."""
    part = f"{name}.musegnn".split(".")[1]
    return next(
        (k for k, parts in enumerate(FLOORS) if part in parts.split()), FLOORS.index("musegnn pipeline results")
    )


def undocumented(node: ast.AST, name: str) -> list[str]:
    """Name what is public and has no docstring, a module or class and what is in it."""
    overload = any(ast.unparse(each) == "overload" for each in getattr(node, "decorator_list", []))
    if not isinstance(node, DOCUMENTED) or overload or name.rsplit(".", 1)[-1].startswith("_"):
        return []
    missing = [] if ast.get_docstring(node) else [name]
    if isinstance(node, (ast.Module, ast.ClassDef)):
        for item in node.body:
            missing += undocumented(item, f"{name}.{getattr(item, 'name', '')}")
    return missing


def count(root: Path) -> Count:
    """Count one state of the tree."""
    modules = read_modules(root)
    result = Count()
    for module in modules.values():
        result.sizes.setdefault(module.folder, Counter()).update(count_lines(module))
        result.undocumented += undocumented(module.tree, module.name)
        for node in ast.walk(module.tree):
            if isinstance(node, DOCUMENTED):
                opening = (ast.get_docstring(node) or "").split(maxsplit=1)[:1]
                result.totals.update(f'docstrings "{word}"' for word in opening)
    result.sizes["total"] = sum(result.sizes.values(), Counter())
    arrows = {name: imports_of(module, modules) for name, module in modules.items()}
    result.circles = find_circles(arrows)
    result.upward = sorted(f"{a} -> {b}" for a, ends in arrows.items() for b in ends if floor(b) > floor(a))
    every, own = count_settings([m for name, m in modules.items() if f"{name}.".startswith("musegnn.config.")])
    result.totals.update({"settings, all fields": every, "settings, own": own})
    result.totals.update({"import circles": len(result.circles), "upward arrows": len(result.upward)})
    result.totals["modules in circles"] = sum(map(len, result.circles))
    result.totals["public names without docstring"] = len(result.undocumented)
    return result


def count_reference(reference: str) -> Count:
    """Count the tree of a git reference, or the working tree for ``.``."""
    if reference == ".":
        return count(ROOT)
    command = ["git", "-C", str(ROOT), "archive", reference, ":(glob)**/*.py"]
    archive = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    with tempfile.TemporaryDirectory() as folder, tarfile.open(fileobj=io.BytesIO(archive)) as file:
        file.extractall(folder, filter="data")
        return count(Path(folder))


def show(counts: dict[str, Count]) -> str:
    """Lay counts out as a table, one column per state, with lists of circles and arrows below."""
    width = max(10, *(len(name) + 2 for name in counts))

    def row(name: str, cells: list[str]) -> str:
        return f"{name:32}" + "".join(f"{cell:>{width}}" for cell in cells)

    folders = sorted({name for each in counts.values() for name in each.sizes} - {"total"})
    out = [row("", list(counts))]
    for size in SIZES:
        out.append(size)
        for name in (*folders, "total"):
            sizes = [each.sizes.get(name, Counter()) for each in counts.values()]
            ratios = [f"{(s['docstrings'] + s['comments']) / max(s['code'], 1):.2f}" for s in sizes]
            out.append(row(f"  {name}", ratios if size == "ratio" else [str(s[size]) for s in sizes]))
    out += [row(total, [str(each.totals[total]) for each in counts.values()]) for total in TOTALS]
    for name, each in counts.items():
        circles = [f"{len(circle)} modules: {', '.join(circle)}" for circle in each.circles]
        lists = {"import circles": circles, "upward arrows": each.upward, "without docstring": each.undocumented}
        for title, lines in lists.items():
            out += ["", f"{name}: {title}", *(f"  {line}" for line in lines or ["none"])]
    return "\n".join(out)


if __name__ == "__main__":
    print(show({name: count_reference(name) for name in sys.argv[1:] or ["."]}))
