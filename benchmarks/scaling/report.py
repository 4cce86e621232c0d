"""Report of the simulation: assumptions and a table."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from benchmarks.scaling import gpu
from benchmarks.scaling.simulate import Shares

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

HEAD = """# Scaling to many GPUs: simulated

**Nothing on this page was measured on a GPU or on a network.** It is what a simulation (`benchmarks/scaling`) makes of
assumed times. The same simulation predicts rounds of 1 and 2 actors on one machine from times of single datasets; how
well is in `benchmarks/results/scaling.csv` (`python -m benchmarks scaling`).

| assumed | |
|---|---|
"""
COLUMNS = """
Efficiency is the time of all datasets one after the other, over P times the round; *overhead*, the starts of kernels
and the work of the host, counts as work. *Uneven* is the waiting that remains over a free network. The default model
has rounds of gradient descent only where `training.rounds` asks for them; the published model is trained in parallel
order. N of the datasets is spread evenly between a quarter of the stated number and it.

Rows `measured cores` are of the default model on that many CPU cores instead of GPUs: times of single datasets of the
stated number of genes, all equal, are those that the command measured on one core; links are assumed as above.
"""
CORES = "measured cores"


@dataclass(frozen=True, slots=True)
class Point:
    """Number of GPUs, and what is trained on them.

    Attributes
    ----------
    model, count, n_genes, gpus
        Name of the model, T, N and P.
    seconds
        Seconds per round over fast links.
    fast, slow
        Shares of the time over fast and over slow links.
    """

    model: str
    count: int
    n_genes: int
    gpus: int
    seconds: float
    fast: Shares
    slow: Shares

    def __str__(self) -> str:
        """Name it."""
        return f"{self.model} T={self.count} N={self.n_genes} P={self.gpus}"


def write_report(path: Path, points: Sequence[Point]) -> None:
    """Write the page."""
    assumed = {
        "starts of kernels": f"{1e3 * gpu.LAUNCH:g} ms per dataset and round",
        "attention": f"{1e9 * gpu.ENTRY:g} ns per edge entry, forward and backward; density {gpu.DENSITY:.0%}",
        "matrix products": f"{gpu.FLOPS / 1e12:g} TFLOP/s",
        "device memory": f"{gpu.MEMORY / 1e12:g} TB/s, in Adam and scores",
        "work of the host": f"{1e6 * gpu.HOST:.2g} us per gene, dataset and round, for draws and overlaps",
    }
    assumed |= {f"{name} links": text for name, (_, text) in gpu.LINKS.items()}
    names = [field.name for field in fields(Shares)]
    head = ["model", "datasets", "genes", "GPUs", "s per round", "efficiency", *names, "limited by", "slow links"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for p in points:
        shares = [f"{getattr(p.fast, name):.2f}" for name in ("efficiency", *names)]
        cells = [p.model, p.count, p.n_genes, p.gpus, f"{p.seconds:.4f}", *shares, p.fast.limit]
        lines.append("| " + " | ".join(map(str, [*cells, f"{p.slow.efficiency:.2f}"])) + " |")
    page = HEAD + "\n".join(f"| {name} | {text} |" for name, text in assumed.items()) + "\n" + COLUMNS
    path.write_text(page + "\n" + "\n".join(lines) + "\n", encoding="utf-8")
