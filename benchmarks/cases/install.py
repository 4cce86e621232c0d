"""Disk space of a fresh installation: ``pip install .`` in a new virtual environment, by package.

torch, which every user of the field has, and what it brings along (Triton and the libraries of CUDA) are counted apart.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.pages import ROOT
from benchmarks.registry import Check, Measurement

if TYPE_CHECKING:
    from collections.abc import Iterator

LARGEST = 8
GOAL_MB = 2000
WITH_TORCH = ("torch", "triton", "nvidia", "cuda")
SIZES = """
import json
from importlib.metadata import distributions
found = {}
for package in distributions():
    files = [place for file in package.files or [] if (place := file.locate()).is_file()]
    found[package.name.lower()] = sum(place.stat().st_size for place in files)
print(json.dumps(found))
"""


class Install:
    """A new environment; a quick run makes none."""

    name = "install"

    def __init__(self) -> None:
        self._sizes: dict[str, int] = {}

    def gate(self, *, quick: bool) -> Iterator[Check]:
        """Install, and ask the installed program for its version."""
        self._sizes = {}
        if quick:
            return
        with tempfile.TemporaryDirectory() as folder:
            python = Path(folder) / "bin" / "python"
            venv.create(folder, with_pip=True)
            subprocess.run([python, "-m", "pip", "install", "-q", ROOT], check=True, cwd=folder)
            done = subprocess.run([python.parent / "musegnn", "--help"], check=False, cwd=folder, capture_output=True)
            yield Check(claim="the installed program runs", holds=done.returncode == 0, got=str(done.returncode))
            found = subprocess.run([python, "-c", SIZES], check=True, cwd=folder, capture_output=True, text=True)
            self._sizes = json.loads(found.stdout)

    def measure(self, *, quick: bool) -> Iterator[Measurement]:
        """Return the sizes of everything besides torch, of the largest packages, and of torch with what it brings."""
        if quick:
            return
        torch = {name for name in self._sizes if name.startswith(WITH_TORCH) and name != "torch-geometric"}
        others = {name: size for name, size in self._sizes.items() if name not in torch}
        shape = f"{len(self._sizes)} packages, Python {sys.version_info.major}.{sys.version_info.minor}"
        yield _row(shape, "besides torch", sum(others.values()), goal=("value", "<=", GOAL_MB))
        yield _row(shape, "torch and its libraries", sum(self._sizes[name] for name in torch))
        for name in sorted(others, key=lambda name: -others[name])[:LARGEST]:
            yield _row(shape, name, others[name])


def _row(shape: str, metric: str, size: int, goal: tuple[str, str, float] | None = None) -> Measurement:
    return Measurement(shape=shape, metric=metric, value=size / 1e6, unit="MB", goal=goal)


CASE = Install()
"""What an installation takes."""
