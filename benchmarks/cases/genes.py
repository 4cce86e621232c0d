"""What more genes per dataset cost and bring: PBMC with 1000, 2000, 5000 and all detected genes.

Of 1000 and 2000, also what changes when the three datasets choose them together (``graph.select_by: tissue``).

Each selection runs in a process of its own (:mod:`benchmarks.probes.genes`), which is stopped at a limit of CPU time or
memory; what it had measured by then is kept. Evaluation seeds 1 and 2, from which defaults are chosen.

Retrieval and gene sets are measured three ways: of all genes of the selection; ``same genes``, the queries that the
smallest selection has among all rows of this one (for gene sets: ``same sets``); and ``same rows``, all other rows left
out, so that nothing but the vectors differs.

Writes ``benchmarks/reports/genes.md`` when it ran in full.
"""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from benchmarks.quality import groups
from benchmarks.registry import Check, Measurement

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT = Path(__file__).resolve().parents[2]
REPORT = ROOT / "benchmarks" / "reports" / "genes.md"
GROUP, SPLITS = "pbmc", (1, 2)
CPU_SECONDS, BYTES, WALL_SECONDS = 480, 12_000_000_000, 3600
SELECTIONS: dict[str, dict[str, Any]] = {
    "1000 genes": {"n_genes": 1000},
    "1000 genes, chosen together": {"n_genes": 1000, "select_by": "tissue"},
    "2000 genes": {"n_genes": 2000},
    "2000 genes, chosen together": {"n_genes": 2000, "select_by": "tissue"},
    "5000 genes": {"n_genes": 5000},
    "all genes, randomized profile": {"selection": "all", "profile_rank": 256},
}
QUICK: dict[str, dict[str, Any]] = {"300 genes": {"n_genes": 300}, "600 genes": {"n_genes": 600}}
STAGES = ("build", "maps", "evaluation")
SMALLER_IS_BETTER = ("seconds", "prepare_seconds", "memory", "store", "stopped")


class Outcome(NamedTuple):
    """What a process printed.

    Attributes
    ----------
    rows
        One dictionary per stage that ended.
    stopped
        Why it was stopped, or nothing.
    """

    rows: Sequence[Mapping[str, Any]]
    stopped: str

    def of(self, stage: str) -> list[Mapping[str, Any]]:
        """Return the rows of one stage, one per split."""
        return [row for row in self.rows if row["stage"] == stage]

    def values(self) -> dict[str, tuple[float, str]]:
        """Return means over splits by measure, with units or the values of the splits."""
        found: dict[str, tuple[float, str]] = {}
        for stage in STAGES:
            if rows := self.of(stage):
                found[f"{stage} seconds"] = float(np.mean([row["cpu"] for row in rows])), "s"
                found[f"{stage} memory"] = max(row["peak"] for row in rows) / 1e9, "GB"
        for row in self.of("build"):
            found["store"] = row["bytes"] / 1e6, "MB"
        if rows := self.of("maps"):
            found["maps prepare_seconds"] = float(np.mean([row["prepare"] for row in rows])), "s"
            found["rows"] = float(sum(rows[0]["genes"])), ""
            found["anchors"] = float(np.mean([row["anchors"] for row in rows])), ""
        for rows in (self.of("evaluation"), self.of("coverage")):
            for name in rows[0]["measures"] if rows else ():
                values = [row["measures"][name] for row in rows]
                spread = f"splits {', '.join(f'{value:.4g}' for value in values)}" if len(values) > 1 else ""
                found[name] = float(np.mean(values)), spread
        return found


def run(graph: Mapping[str, Any], folder: Path, splits: Sequence[int]) -> Outcome:
    """Measure a selection in a process of its own, within the limits.

    Raises
    ------
    RuntimeError
        When the process fails for another reason.
    """
    settings = json.dumps({"graph": graph, "splits": list(splits)})
    command = [sys.executable, "-m", "benchmarks.probes.genes", settings, str(folder)]
    try:
        done = subprocess.run(
            command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=WALL_SECONDS, preexec_fn=_limit
        )
        printed, errors, code = done.stdout, done.stderr, done.returncode
    except subprocess.TimeoutExpired as error:
        printed, errors, code = (error.stdout or b"").decode(), "", None
    rows = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    where = f"after stage {rows[-1]['stage']}" if rows else "before any stage ended"
    if code == 0:
        return Outcome(rows, "")
    if code is None:
        return Outcome(rows, f"{WALL_SECONDS} s passed, {where}")
    if code == -signal.SIGXCPU:
        return Outcome(rows, f"{CPU_SECONDS} CPU seconds used, {where}")
    if "MemoryError" in errors or "allocate memory" in errors:
        return Outcome(rows, f"{BYTES / 1e9:g} GB used, {where}")
    msg = f"{graph} failed with code {code}: {errors[-2000:]}"
    raise RuntimeError(msg)


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 5))
    resource.setrlimit(resource.RLIMIT_DATA, (BYTES, BYTES))


class Genes:
    """The number of genes per dataset."""

    name = "genes"

    def gate(self, *, quick: bool) -> Iterator[Check]:
        """Check that what is compared is the same in a smaller and in a larger selection."""
        del quick
        if GROUP not in groups.present() or groups.gene_sets() is None:
            yield Check(claim="the datasets and gene sets are here", holds=False, got=str(groups.shared_folder()))
            return
        with tempfile.TemporaryDirectory() as folder:
            small, large = (_in_turn({"n_genes": n}, Path(folder), SPLITS[:1]).values() for n in (150, 300))
        same = max(
            abs(small[name][0] - small[f"{name} same {what}"][0])
            for name in ("joint_mrr", "pair_over_chance", "transfer")
            for what in (("sets", "rows") if name == "transfer" else ("genes", "rows"))
        )
        yield Check(claim="restriction to all genes changes nothing", holds=same == 0.0, got=f"{same:g}")
        asked = [small["queries"][0], large["queries same genes"][0], large["queries same rows"][0]]
        yield Check(claim="the same queries of a larger selection", holds=len(set(asked)) == 1, got=str(asked))

    def measure(self, *, quick: bool) -> Iterator[Measurement]:
        """Measure every selection, the smallest first."""
        chosen = QUICK if quick else SELECTIONS
        found: dict[str, Outcome] = {}
        with tempfile.TemporaryDirectory() as folder:
            for name, graph in chosen.items():
                found[name] = _in_turn(graph, Path(folder), SPLITS[:1] if quick else SPLITS)
                first = next(iter(chosen))
                base = found[first].values() if name != first else {}
                for metric, (value, unit) in found[name].values().items():
                    yield Measurement(
                        shape=f"{GROUP} {name}",
                        metric=metric,
                        value=value,
                        unit=unit,
                        baseline=first if metric in base else "",
                        baseline_value=base[metric][0] if metric in base else None,
                        larger_is_better=metric.rsplit(maxsplit=1)[-1] not in SMALLER_IS_BETTER,
                    )
                if found[name].stopped:
                    yield Measurement(shape=f"{GROUP} {name}", metric="stopped", value=1, unit=found[name].stopped)
        if not quick:
            REPORT.write_text(page(found), encoding="utf-8")


def _in_turn(graph: Mapping[str, Any], folder: Path, splits: Sequence[int]) -> Outcome:
    """Run beside what the smallest selection left, and move the store out of the way of the next."""
    outcome = run(graph, folder, splits)
    store = folder / "store"
    if store.exists():
        store.rename(Path(tempfile.mkdtemp(dir=folder)) / "store")
    return outcome


COLUMNS: dict[str, tuple[str, ...]] = {
    "MRR of all held-out genes, joint / pair": ("joint_mrr", "pair_mrr"),
    "over chance": ("joint_over_chance", "pair_over_chance"),
    "MRR of the same genes": ("joint_mrr same genes", "pair_mrr same genes"),
    "over chance, same genes": ("joint_over_chance same genes", "pair_over_chance same genes"),
    "MRR among the same rows": ("joint_mrr same rows", "pair_mrr same rows"),
    "mixing, all / same rows": ("mixing", "mixing same rows"),
    "positive edges": ("edges_positive",),
    "gene sets": ("sets",),
    "AUROC of sets, within / transfer": ("within", "transfer"),
    "same sets": ("within same sets", "transfer same sets"),
    "same rows": ("within same rows", "transfer same rows"),
    "coverage, some / all": ("covered_some", "covered_all"),
    "CPU s, build / maps / evaluation": ("build seconds", "maps seconds", "evaluation seconds"),
    "peak GB, build / maps / evaluation": ("build memory", "maps memory", "evaluation memory"),
    "store MB": ("store",),
}
DIGITS = {"seconds": 0, "memory": 1, "store": 0, "sets": 0}
CONCLUSION = "## What follows\n"


def page(found: Mapping[str, Outcome]) -> str:
    """Return the page, with selections as columns; what its sentences conclude from the numbers is written by hand."""
    lines = [
        "# How many genes per dataset",
        "",
        "`python -m benchmarks genes` writes the table: three PBMC datasets, means over evaluation seeds 1 and 2, one",
        "process per selection, CPU seconds and peak memory of each stage alone (maps: from the store to vectors).",
        "*Same genes* are queries that the selection of 1000 has, among all rows of the larger one; among the *same",
        "rows*, all other genes are left out, so that nothing but the vectors differs. Coverage: of the genes of GO",
        "processes that are detected in five cells of a dataset, the share with a vector in some / in all datasets.",
        "",
        "| | " + " | ".join(found) + " |",
        "|---|" + "---|" * len(found),
    ]
    values = {name: outcome.values() for name, outcome in found.items()}
    for title, metrics in COLUMNS.items():
        cells = [" / ".join(_number(metric, values[name].get(metric)) for metric in metrics) for name in found]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    lines += [f"\n{name} was stopped: {outcome.stopped}." for name, outcome in found.items() if outcome.stopped]
    kept = REPORT.read_text(encoding="utf-8").partition(CONCLUSION)[2] if REPORT.is_file() else ""
    return "\n".join(lines) + f"\n\n{CONCLUSION}{kept or chr(10)}"


def _number(metric: str, value: tuple[float, str] | None) -> str:
    if value is None:
        return "-"
    digits = next((d for end, d in DIGITS.items() if metric.endswith(end) and "same" not in metric), 3)
    digits = 0 if "over_chance" in metric else digits
    return f"{value[0]:.{digits}f}"


CASE = Genes()
