"""The laws of the source tree: who may import whom, and what may never be written."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("musegnn", "kernels", "cluster", "data_store")
LEAVES = {"musegnn.errors", "musegnn.text", "musegnn.units"}
MAY_IMPORT = {
    "kernels": {"musegnn.kernels"},
    "data_store": {"musegnn.data_store"},
    "musegnn": {"musegnn", "musegnn.kernels", "musegnn.data_store"},
    "cluster": {"musegnn", "musegnn.kernels", "musegnn.data_store", "musegnn.cluster"},
}
ENTRANCES = {"musegnn/cli.py", "musegnn/pipeline.py"}
THIRD_PARTY = {
    "kernels": {"torch", "triton", "numba", "llvmlite", "numpy", "scipy", "torch_scatter"},
}


def sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def imports(path: Path, *, module_level: bool = False) -> set[str]:
    """Name what a file imports; type-checking imports count, since they are arrows too."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if module_level else list(ast.walk(tree))
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def part_of(name: str) -> str | None:
    """Name the part of the project that an imported module belongs to."""
    for part in ("musegnn.kernels", "musegnn.cluster", "musegnn.data_store"):
        if name == part or name.startswith(part + "."):
            return part
    return "musegnn" if name == "musegnn" or name.startswith("musegnn.") else None


@pytest.mark.parametrize("folder", FOLDERS)
def test_imports_follow_the_arrows(folder):
    wrong = []
    for path in sources(folder):
        place = path.relative_to(ROOT).as_posix()
        allowed = MAY_IMPORT[folder] | ({"musegnn.cluster"} if place in ENTRANCES else set())
        for name in imports(path):
            part = part_of(name)
            leaf = any(name == good or name.startswith(good + ".") for good in LEAVES) and folder != "kernels"
            if part is not None and part not in allowed and not leaf:
                wrong.append(f"{place} imports {name}")
    assert not wrong


@pytest.mark.parametrize(("folder", "banned"), [("data_store", {"torch", "torch_geometric", "ray"})])
def test_folder_does_not_import(folder, banned):
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources(folder)
        for name in imports(path)
        if name.split(".")[0] in banned
    ]
    assert not wrong


def test_kernels_import_array_libraries_only():
    stdlib = set(sys.stdlib_module_names)
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources("kernels")
        for name in imports(path)
        if name.split(".")[0] not in stdlib | THIRD_PARTY["kernels"] | {"musegnn", "__future__"}
    ]
    assert not wrong


def test_relative_folders_are_imported_by_their_installed_name():
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for folder in (*FOLDERS, "tests", "benchmarks")
        for path in sources(folder)
        for name in imports(path)
        if name.split(".")[0] in {"kernels", "cluster", "data_store"}
    ]
    assert not wrong


HEAVY = {
    "torch",
    "numpy",
    "scipy",
    "numba",
    "anndata",
    "pandas",
    "zarr",
    "dask",
    "ray",
    "sklearn",
    "matplotlib",
    "umap",
}


@pytest.mark.parametrize("code", ["import musegnn", "import musegnn.cli; musegnn.cli.app(['--help'])"])
def test_start_loads_nothing_heavy(code):
    program = f"import sys; {code}; print('LOADED', *sorted({{m.split('.')[0] for m in sys.modules}} & {HEAVY!r}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1].strip() == "LOADED"


BANNED_TEXT = {
    "unsafe deserialisation": r"\bpickle\.load|\bjoblib\.load|allow_pickle\s*=\s*True|weights_only\s*=\s*False",
    "unsafe evaluation": r"(?<![\w.])(?:eval|exec)\(|shell\s*=\s*True",
    "silenced errors": r"except(?: Exception)?:\s*(?:pass|\.\.\.)",
    "unfinished work": r"\b(?:TODO|FIXME|XXX)\b|NotImplementedError",
    "a path of one machine": r"['\"/](?:home|root)/[a-z]\w*/",
}


@pytest.mark.parametrize("what", BANNED_TEXT)
def test_source_has_no(what):
    pattern = re.compile(BANNED_TEXT[what])
    hits = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for folder in FOLDERS
        for path in sources(folder)
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if pattern.search(line)
    ]
    assert not hits


def test_files_stay_readable():
    long = {
        str(path.relative_to(ROOT)): lines
        for folder in FOLDERS
        for path in sources(folder)
        if (lines := len(path.read_text().splitlines())) > 600
    }
    assert not long


def test_every_package_is_installed():
    """setup.py finds packages by __init__.py: a folder without one would be missing from the wheel."""
    missing = {
        str(path.parent.relative_to(ROOT))
        for folder in FOLDERS
        for path in sources(folder)
        if not (path.parent / "__init__.py").is_file()
    }
    assert not missing
