"""82 datasets, the paper's number, on a laptop: the whole way from counts to the page, beside published code.

Datasets are resampled from those that are here (:mod:`benchmarks.resampled`). The whole way is run with the defaults,
with rounds, and with rounds on 4 actors that encode again for the backward pass (``training.recompute``: less memory,
equal results), each in a process of its own; rows have the CPU seconds and the peak of each
stage. Of the published pipeline, dense CS-CORE is timed on a few of the datasets, and a training step is taken from the
newest row of `training_step`; the sums over 82 datasets and 100 rounds are marked as added up.

``python -m benchmarks.cases.paper_scale`` writes the newest rows into the table of ``docs/cluster.md``.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata
import numpy as np

from benchmarks.peers.cscore_dense import cscore_dense
from benchmarks.registry import Check, Measurement
from benchmarks.resampled import CELLS, COUNTS, resample, sources, write_atlas

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
STEPS = ROOT / "benchmarks" / "results" / "training_step.csv"
ROWS, PAGE = ROOT / "benchmarks" / "results" / "paper_scale.csv", ROOT / "docs" / "cluster.md"
BEGIN, END = "<!-- paper_scale: begin -->\n", "<!-- paper_scale: end -->\n"
DATASETS, QUICK_DATASETS, ROUNDS, QUICK_ROUNDS, ACTORS = 82, 4, 100, 2, 4
GENES, SHOWN = 1000, 3
MOST_WALL, MOST_CPU, MOST_PEAK, MOST_ACTOR_PEAK, MOST_STAGE = 900.0, 1800.0, 5e9, 2e9, 120.0


class PaperScale:
    """82 datasets of 1000 genes, human and mouse, RNA, ATAC and spatial, with orthologs."""

    name = "paper_scale"

    def gate(self, *, quick: bool) -> Iterator[Check]:
        """Check that resampled data have the cells and counts that they should."""
        del quick
        for about in sources()[:2]:
            adata = anndata.read_h5ad(about["path"])
            part = resample(adata, "gate")
            kept, thinned = part.n_obs / adata.n_obs, part.X.sum() / (CELLS * adata.X.sum())
            holds = abs(kept - CELLS) < 0.01 and abs(thinned - COUNTS) < 0.05
            claim = f"{about['name']}: {CELLS:.0%} of the cells, counts thinned to {COUNTS:.0%}"
            yield Check(claim=claim, holds=holds, got=f"{kept:.2f}, {thinned:.2f}")

    def measure(self, *, quick: bool) -> Iterator[Measurement]:
        """Run the whole way three times, then time parts of the published pipeline."""
        n, rounds = (QUICK_DATASETS, QUICK_ROUNDS) if quick else (DATASETS, ROUNDS)
        with tempfile.TemporaryDirectory() as name:
            place = Path(name)
            plain = write_atlas(place / "data", n, n_genes=GENES)
            trained = plain | {"model": {"encoder": "transformer"}, "training": {"rounds": rounds}}
            slim = trained | {"training": trained["training"] | {"recompute": True}}
            for config, actors in ((trained, 0), (slim, ACTORS), (plain, 0)):
                yield from whole_way(n, config, actors, run_stages(config, place, actors), goals=not quick)
            yield from published(n, rounds, plain)


def run_stages(config: dict[str, Any], place: Path, actors: int) -> list[dict[str, Any]]:  # JSON
    """Run the whole way in a fresh process and return what its stages took."""
    path = place / "atlas.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    command = [sys.executable, "-m", "benchmarks.probes.whole_run", str(path), str(place), str(actors)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def whole_way(
    n: int, config: dict[str, Any], actors: int, stages: list[dict[str, Any]], *, goals: bool
) -> Iterator[Measurement]:  # JSON
    """Return the measurements of one run from what its stages took."""
    rounds = config.get("training", {}).get("rounds", 0)
    shape = f"{n} datasets, {rounds} rounds" + (f", {actors} actors" if actors else "")
    for one in stages:
        limited = goals and one["stage"] in ("evaluation", "layout")
        bound = ("value", "<=", MOST_STAGE) if limited else None
        yield Measurement(shape=shape, metric=f"wall_time: {one['stage']}", value=one["wall"], unit="s", goal=bound)
        yield Measurement(shape=shape, metric=f"cpu_time: {one['stage']}", value=one["cpu"], unit="s")
        yield Measurement(shape=shape, metric=f"peak_memory: {one['stage']}", value=one["peak"] / 1e9, unit="GB")
    wall, cpu = (sum(one[key] for one in stages) for key in ("wall", "cpu"))
    peak = max(one["peak"] for one in stages)
    first = goals and rounds > 0 and not actors
    limits = [(MOST_WALL, wall, "wall_time", "s"), (MOST_CPU, cpu, "cpu_time", "s"), (MOST_PEAK / 1e9, peak / 1e9,
              "peak_memory", "GB")]  # fmt: skip
    for limit, value, metric, unit in limits:
        bound = ("value", "<=", limit) if first else None
        yield Measurement(shape=shape, metric=metric, value=value, unit=unit, goal=bound)
    if actors:
        largest = max(one["actor_peak"] for one in stages)
        bound = ("value", "<=", MOST_ACTOR_PEAK / 1e9) if goals else None
        yield Measurement(shape=shape, metric="peak_memory of an actor", value=largest / 1e9, unit="GB", goal=bound)


def published(n: int, rounds: int, config: dict[str, Any]) -> Iterator[Measurement]:  # JSON
    """Time dense CS-CORE on a few datasets, and add up what all datasets and rounds of the published loop take."""
    seconds = []
    for about in config["datasets"][:SHOWN]:
        counts = anndata.read_h5ad(about["path"]).X
        depth = np.asarray(counts.sum(axis=1)).ravel()
        genes = np.argsort(-np.asarray(counts.sum(axis=0)).ravel(), kind="stable")[:GENES]
        x = counts[depth > 0][:, genes].toarray().astype(np.float64)
        began = time.process_time()
        with np.errstate(all="ignore"):
            cscore_dense(x, depth[depth > 0].astype(np.float64))
        seconds.append(time.process_time() - began)
        shape = f"{about['name']}: {x.shape[0]} cells"
        yield Measurement(shape=shape, metric="published CS-CORE, dense: cpu_time", value=seconds[-1], unit="s")
    total = float(np.mean(seconds)) * n
    yield Measurement(
        shape=f"{n} datasets", metric="published CS-CORE, added up from means: cpu_time", value=total, unit="s"
    )
    step = published_step()
    if step is not None:
        value = step * n * rounds
        metric = "published training, added up from training_step: cpu_time"
        yield Measurement(shape=f"{n} datasets, {rounds} rounds", metric=metric, value=value, unit="s")


def published_step() -> float | None:
    """Return the CPU seconds of one dataset's step of the published loop at 1000 genes, from the newest row."""
    if not STEPS.is_file():
        return None
    with STEPS.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["metric"] == "cpu_time per epoch: mlp"]
    rows = [row for row in rows if row["shape"].startswith("T=4 N=1000")]
    return float(rows[-1]["baseline_value"]) / 4 if rows else None


def table(rows: Path) -> str:
    """Return a table of the newest rows of each run and stage, with their day."""
    found: dict[tuple[str, str], dict[str, tuple[float, str]]] = {}
    with rows.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            metric, _, stage = row["metric"].partition(": ")
            found.setdefault((row["shape"], stage or "all"), {})[metric] = float(row["value"]), row["date"][:10]
    lines = ["| run | stage | CPU, s | wall, s | peak, GB | largest actor, GB | day |", "|" + "---|" * 7]
    for (shape, stage), values in found.items():
        if "cpu_time" in values:
            cells = [f"{values[name][0]:.0f}" for name in ("cpu_time", "wall_time")]
            cells += [f"{values[n][0]:.2f}" if n in values else "" for n in ("peak_memory", "peak_memory of an actor")]
            lines.append("| " + " | ".join([shape, stage, *cells, values["cpu_time"][1]]) + " |")
    return "\n".join(lines) + "\n"


def write_table(rows: Path, page: Path) -> None:
    """Put the table between its marks on a page."""
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    page.write_text(before + BEGIN + table(rows) + END + rest.split(END)[1], encoding="utf-8")


CASE = PaperScale()

if __name__ == "__main__":
    write_table(ROWS, PAGE)
