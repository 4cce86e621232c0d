"""The main job as a newcomer runs it: `musegnn run` on the example atlas with nothing compiled before."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.registry import Check, Measurement

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
ATLAS = ROOT / "examples" / "atlas" / "atlas.yaml"
MOST_SECONDS, MOST_MB = 300.0, 3000.0
QUICK = ("--rounds", "3", "--set", "graph.n_genes=200")


class Demo:
    """One process from counts to the report page, its compilation included."""

    name = "demo"

    def __init__(self) -> None:
        self._wall = self._cpu = self._peak = 0.0

    def gate(self, *, quick: bool) -> Iterator[Check]:
        """Run it, and check that all results are there."""
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "run"
            command = [sys.executable, "-m", "musegnn", "run", str(ATLAS), "--out", str(out), "--json"]
            environment = {**os.environ, "NUMBA_CACHE_DIR": str(Path(folder) / "numba")}
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            began = time.perf_counter()
            arguments = [*command, *(QUICK if quick else ())]
            done = subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, check=False)
            self._wall = time.perf_counter() - began
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            self._cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            self._peak = after.ru_maxrss * 1024 / 1e6
            holds = done.returncode == 0
            yield Check(claim="the run ends well", holds=holds, got=f"exit code {done.returncode}")
            files = json.loads(done.stdout)["files"].values() if holds else []
            missing = [name for name in files if not Path(name).is_file()]
            yield Check(claim="all results are written", holds=holds and not missing, got=f"{len(missing)} missing")

    def measure(self, *, quick: bool) -> Iterator[Measurement]:
        """Report what the run took."""
        shape = "7 datasets" + (", 200 genes, 3 rounds" if quick else ", as shipped")
        seconds = None if quick else ("value", "<=", MOST_SECONDS)
        yield Measurement(shape=shape, metric="wall_time", value=self._wall, unit="s", goal=seconds)
        yield Measurement(shape=shape, metric="cpu_time", value=self._cpu, unit="s")
        yield Measurement(shape=shape, metric="peak_memory", value=self._peak, unit="MB", goal=("value", "<=", MOST_MB))


CASE = Demo()
