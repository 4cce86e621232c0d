"""The report of the scaling simulation: what was assumed, what comes out, a table and a figure."""

from __future__ import annotations

import textwrap
from collections import Counter
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from benchmarks import scaling_gpu as gpu
from benchmarks.scaling import Shares

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

COLOURS = {1000: "C0", 5000: "C1", 20_000: "C2"}
INTRODUCTION = """
**Nothing on this page was measured on a GPU or on a network.** It is what a simulation (`benchmarks/scaling.py`) makes
of assumed times (`benchmarks/scaling_gpu.py`). The same simulation predicts rounds of 1, 2 and 4 actors on one machine
from times of single datasets; how well is in `benchmarks/results/scaling.csv` (`python -m benchmarks scaling`).
"""
MEASURED = """
Measured on one core of the CPU of the rows: what the host does per dataset and round while kernels wait, draws and
overlaps of a pair of datasets that is not kept: {measured}.
"""
COLUMNS = """
Efficiency is the time of all datasets one after the other, over P times the round: work of the host and starts of
kernels count as work. The other columns say where the time of all GPUs goes; *uneven* is the waiting that a free
network would leave. *Teams* share the reconstruction of a dataset that takes more than half of a mean load;
*owner-reduce* sends a group's gradients to one home. Neither is built. Unequal: N uniform between a quarter of the
stated number and it.
"""
FEW = 256
"""GPUs up to which the report sums up."""


@dataclass(frozen=True, slots=True)
class Point:
    """A number of GPUs and what is trained on them.

    Attributes
    ----------
    count, n_genes, equal
        T; N of each dataset, or its largest where they are not equal.
    gpus
        P.
    seconds
        Per round over fast links.
    fast, slow
        Where a round goes over fast and over slow links.
    teams
        Efficiency over fast links where teams share the decoders of long datasets.
    """

    count: int
    n_genes: int
    equal: bool
    gpus: int
    seconds: float
    fast: Shares
    slow: Shares
    teams: float

    def __str__(self) -> str:
        """Name it."""
        return f"T={self.count} N={self.n_genes} {'equal' if self.equal else 'unequal'} P={self.gpus}"

    def limit(self, shares: Shares) -> str:
        """Name what limits; ``-`` for kernels."""
        found = shares.limit
        return "too few datasets" if found == "uneven" and self.gpus > self.count else found


def write_report(
    path: Path, points: Sequence[Point], groups: Sequence[tuple[int, float, float]], host: gpu.Host
) -> None:
    """Write ``scaling.md`` and ``scaling.png``.

    Parameters
    ----------
    path
        Of the page.
    points
        What was simulated.
    groups
        GPUs, and seconds per round with many groups by all-reduce and by owner-reduce.
    host
        What was measured on the CPU.
    """
    path.parent.mkdir(exist_ok=True)
    parts = [_assumptions(host), "![efficiency](scaling.png)", _summary(points, groups), _table(points)]
    parts.append(_groups(groups))
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    _draw(path.with_suffix(".png"), points)


def _assumptions(host: gpu.Host) -> str:
    measured = "; ".join(
        f"N = {n:,}: {1e3 * draws:.1f} and {1e3 * overlap:.1f} ms"
        for n, draws, overlap in zip(host.n_genes, host.draws, host.overlap, strict=True)
    )
    assumed = {
        "starts of kernels": f"{1e3 * gpu.LAUNCH:g} ms per dataset and round",
        "attention": f"{1e9 * gpu.ENTRY:g} ns per edge entry, forward and backward; density {gpu.DENSITY:.0%}",
        "matrix products": f"{gpu.FLOPS / 1e12:g} TFLOP/s",
        "device memory": f"{gpu.MEMORY / 1e12:g} TB/s, in Adam, scores and the `pairwise` decoder",
        "decoder": f"`mlp` up to {gpu.LARGEST_MLP} genes, blocks of {gpu.ROW_BLOCK} rows above {gpu.WHOLE}; then "
        f"`pairwise`, {gpu.PAIRS:,} pairs of each kind",
        "shared gradients": f"64-bit integers: {gpu.WORDS:,} x {gpu.PROJECTED} of the projection of the vocabulary, "
        f"{gpu.GROUP_WEIGHTS:,} per group",
    }
    assumed |= {f"{name} links": text for name, (_, text) in gpu.LINKS.items()}
    rows = ["| assumed | |", "|---|---|", *(f"| {name} | {text} |" for name, text in assumed.items())]
    parts = ["# Scaling to many GPUs: simulated", _wrapped(INTRODUCTION), "\n".join(rows)]
    parts += [_wrapped(MEASURED.format(measured=measured)), _wrapped(COLUMNS)]
    return "\n\n".join(parts)


def _wrapped(text: str, indent: str = "") -> str:
    return textwrap.fill(" ".join(text.split()), 118, subsequent_indent=indent, break_on_hyphens=False)


def _summary(points: Sequence[Point], groups: Sequence[tuple[int, float, float]]) -> str:
    fed = [p for p in points if p.count >= p.gpus and p.gpus <= FEW]
    plenty = [p for p in fed if p.count >= 8 * p.gpus]
    starved = [p for p in points if p.gpus > p.count]
    limits = Counter(p.limit(p.fast) for p in fed)
    named = ", ".join(f"{_name(name)} {count}" for name, count in limits.most_common())
    gained = max((p.teams - p.fast.efficiency for p in fed), default=0.0)
    beyond = max((p.teams - p.fast.efficiency for p in points if p.gpus > FEW), default=0.0)
    owner = max((1.0 - owned / flat for gpus, flat, owned in groups if gpus <= FEW), default=0.0)
    fast, slow = ([getattr(p, kind) for p in fed] for kind in ("fast", "slow"))
    said = [
        f"""Up to {FEW} GPUs and with a dataset or more for each, efficiency is {_span(f.efficiency for f in fast)} over
        fast links and {_span(s.efficiency for s in slow)} over slow ones; with eight datasets or more for each,
        {_span(p.fast.efficiency for p in plenty)} and {_span(p.slow.efficiency for p in plenty)}.""",
        f"""There the network takes at most {max(f.network for f in fast):.0%} of a round over fast links and
        {max(s.network for s in slow):.0%} over slow ones.""",
        f"What takes most of a round at these {len(fed)} points over fast links: {named}.",
        f"""Of what efficiency lacks there, uneven loads are the larger part at
        {sum(f.uneven > f.network for f in fast)} points over fast links and at
        {sum(s.uneven > s.network for s in slow)} over slow ones, the network at the others.""",
        f"""Kernels are at work {_span(f.kernels for f in fast)} of the time. Work of the host takes up to
        {max(f.host for f in fast):.2f}: draws, and overlaps of new pairs where a process meets more pairs of datasets
        than it can keep. Starts of kernels take up to {max(f.launches for f in fast):.2f}.""",
        f"Teams add at most {gained:.2f} to the efficiency up to {FEW} GPUs, {beyond:.2f} beyond.",
        f"Owner-reduce shortens rounds with many groups by at most {owner:.0%} up to {FEW} GPUs, over slow links.",
        f"With fewer datasets than GPUs ({len(starved)} points) the rest of the GPUs stands idle.",
    ]
    return "\n".join(["**What comes out.**", "", *(_wrapped(f"- {text}", "  ") for text in said)])


def _name(limit: str) -> str:
    return "kernels themselves" if limit == "-" else limit


def _span(values: Iterable[float]) -> str:
    found = list(values)
    return f"{min(found):.2f} to {max(found):.2f}" if found else "-"


def _table(points: Sequence[Point]) -> str:
    names = [field.name for field in fields(Shares)]
    head = ["datasets", "genes", "sizes", "GPUs", "s per round", "efficiency", *names, "limited by"]
    head += ["slow links: efficiency", "limited by", "with teams"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for p in points:
        cells = [f"{p.count}", f"{p.n_genes}", "equal" if p.equal else "unequal", f"{p.gpus}", f"{p.seconds:.4f}"]
        cells += [f"{p.fast.efficiency:.2f}", *(f"{getattr(p.fast, name):.2f}" for name in names), p.limit(p.fast)]
        cells += [f"{p.slow.efficiency:.2f}", p.limit(p.slow), f"{p.teams:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _groups(groups: Sequence[tuple[int, float, float]]) -> str:
    about = (
        "1000 datasets of 1000 genes in many sharing groups (`share_by: [modality, tissue]`), slow links, simulated:"
    )
    lines = [about, ""]
    lines += ["| GPUs | s per round, all-reduce | owner-reduce |", "|---|---|---|"]
    lines += [f"| {gpus} | {flat:.4f} | {owned:.4f} |" for gpus, flat, owned in groups]
    return "\n".join(lines)


def _draw(path: Path, points: Sequence[Point]) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    counts = sorted({p.count for p in points})
    kinds = {"fast": "fast links", "slow": "slow links"}
    figure, axes = plt.subplots(
        2, len(counts), figsize=(11, 6.2), sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
    for row, (kind, label) in zip(axes, kinds.items(), strict=True):
        for axis, count in zip(row, counts, strict=True):
            for n_genes in sorted({p.n_genes for p in points}):
                for equal, style in ((True, "-"), (False, "--")):
                    line = [p for p in points if (p.count, p.n_genes, p.equal) == (count, n_genes, equal)]
                    share = [getattr(p, kind).efficiency for p in line]
                    name = f"N = {n_genes:,}" if equal else None
                    axis.plot([p.gpus for p in line], share, style, color=COLOURS.get(n_genes), label=name)
            axis.set(xscale="log", title=f"{count:,} datasets, {label}, simulated", ylim=(0, 1.05))
            axis.set_xticks([8, 32, 128, 512], ["8", "32", "128", "512"])
            axis.minorticks_off()
        row[0].set_ylabel("efficiency")
    for axis in axes[-1]:
        axis.set_xlabel("GPUs")
    axes[0][0].legend(title="solid: equal, dashed: unequal", fontsize=8, title_fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)
