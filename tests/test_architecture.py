"""Rules of the source tree: what may import what, and what may never be written.

The floors, from the ground up, are ``FLOORS`` in `tests/count.py`; ``docs/architecture.md`` explains and draws them.
Imports for type checking count.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests import drawing
from tests.count import FLOORS, ROOT, count, floor, imported_names, read_modules

if TYPE_CHECKING:
    from pathlib import Path

FOLDERS = ("musegnn", "kernels", "cluster", "data_store")
MAY_IMPORT = {
    "kernels": {"musegnn.kernels"},
    "data_store": {"musegnn.data_store", "musegnn.error_codes", "musegnn.errors", "musegnn.text", "musegnn.units"},
}
CLUSTER_FROM = {"musegnn.cli", "musegnn.pipeline"}
KERNEL_LIBRARIES = {"torch", "triton", "numba", "llvmlite", "numpy", "scipy", "torch_scatter"}

MODULES = read_modules(ROOT)


def sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


@pytest.fixture(scope="module")
def counted():
    return count(ROOT)


def test_no_module_imports_a_higher_floor(counted):
    assert counted.upward == []


def test_no_imports_run_in_a_circle(counted):
    assert counted.circles == []


def test_every_module_has_a_floor():
    parts = {name.split(".")[1] for name in MODULES if "." in name}
    assert parts - {part for parts in FLOORS for part in parts.split()} == {"api"}
    assert floor("musegnn.api") == floor("musegnn.pipeline")


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_kernels_and_data_store_stand_on_their_own(folder):
    wrong = [
        f"{module.name} imports {name}"
        for module in MODULES.values()
        if module.folder == folder
        for name in imported_names(module.tree)
        if name.startswith("musegnn") and not any(f"{name}.".startswith(f"{part}.") for part in MAY_IMPORT[folder])
    ]
    assert not wrong


def test_the_command_line_and_the_pipeline_alone_import_the_cluster():
    wrong = [
        f"{module.name} imports {name}"
        for module in MODULES.values()
        if module.folder != "cluster" and module.name not in CLUSTER_FROM
        for name in imported_names(module.tree)
        if name.startswith("musegnn.cluster")
    ]
    assert not wrong


@pytest.mark.parametrize(("folder", "banned"), [("data_store", {"torch", "torch_geometric", "ray"})])
def test_folder_does_not_import(folder, banned):
    wrong = [
        f"{module.name} imports {name}"
        for module in MODULES.values()
        if module.folder == folder
        for name in imported_names(module.tree)
        if name.split(".")[0] in banned
    ]
    assert not wrong


def test_kernels_import_array_libraries_only():
    allowed = set(sys.stdlib_module_names) | KERNEL_LIBRARIES | {"musegnn"}
    wrong = [
        f"{module.name} imports {name}"
        for module in MODULES.values()
        if module.folder == "kernels"
        for name in imported_names(module.tree)
        if name.split(".")[0] not in allowed
    ]
    assert not wrong


def test_the_drawing_is_of_this_tree():
    """Run ``python -m tests.drawing`` when imports between folders have changed."""
    assert drawing.PAGE.read_text(encoding="utf-8") == drawing.page_with(drawing.draw())


def test_relative_folders_are_imported_by_their_installed_name():
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for folder in (*FOLDERS, "tests", "benchmarks")
        for path in sources(folder)
        for name in imported_names(ast.parse(path.read_text(encoding="utf-8")))
        if name.split(".")[0] in {"", "kernels", "cluster", "data_store"}
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


def test_the_checkout_is_no_package():
    """Files beside the folders of the package, such as setup.py, are no modules of it."""
    done = subprocess.run([sys.executable, "-c", "import musegnn.setup"], capture_output=True, text=True, cwd=ROOT)
    assert "No module named 'musegnn.setup'" in done.stderr
