"""The report of the scaling simulation: a table, a figure, and what was assumed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.scaling import Outcome

    Row = tuple[int, int, bool, int, Outcome, Outcome]

TITLE = """# Scaling to many GPUs: simulated

**Nothing on this page was measured on a GPU or on a network.** It is what a simulation (`benchmarks/scaling.py`) makes
of assumed times: per dataset 6 ms of kernel launches, 0.15 ns per edge entry for attention forward and backward, 150
TFLOP/s in the decoder's products, 2.4 TB/s in Adam; per GPU a link of 25 GB/s and 10 microseconds; 12 MB of gradients
of shared modules. Density 5 %, d = 32, `mlp` decoder up to 5000 genes (row blocks of 512 above 1000), `pairwise` at
20,000. The same simulation predicts rounds of 1, 2 and 4 actors on this machine from times of single datasets; how well
is in `benchmarks/results/scaling.csv` (`python -m benchmarks scaling`).

Efficiency is the time of all datasets one after the other, over P times the round. *Teams* would share the
reconstruction of a dataset that takes more than half of a mean load among several GPUs; they are not built. Unequal: N
uniform between a quarter of the stated number and it.

![efficiency](scaling.png)

**What it says.** Below 256 GPUs and with more datasets than GPUs, efficiency is lost to uneven loads (82 datasets
cannot be dealt evenly to 64 GPUs) and, for small datasets, to launches, not to the network. Teams would change nothing
there, because with row blocks and drawn pairs no dataset takes more than half of a mean load; and owner-reduce would
save 2 ms of 53 at 128 GPUs with 60 sharing groups (`share_by: [modality, tissue]`, last table). So neither was built.
With fewer datasets than GPUs, the rest stands idle.

"""


def write_report(path: Path, rows: Sequence[Row], groups: Sequence[tuple[int, float, float]]) -> None:
    """Write ``scaling.md`` and ``scaling.png``."""
    path.parent.mkdir(exist_ok=True)
    lines = [
        "| datasets | genes | sizes | GPUs | s per round | efficiency | limited by | with teams |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for count, n_genes, equal, gpus, flat, teams in rows:
        busy = flat.busy.sum() / gpus
        kind = "equal" if equal else "unequal"
        limit = "too few datasets" if gpus > count else flat.limit if busy / flat.seconds < 0.95 else "-"
        cells = [count, n_genes, kind, gpus, f"{flat.seconds:.3f}", f"{busy / flat.seconds:.2f}", limit]
        lines.append("| " + " | ".join(map(str, [*cells, f"{busy / teams.seconds:.2f}"])) + " |")
    lines += [
        "",
        "1000 datasets of 1000 genes in 60 sharing groups:",
        "",
        "| GPUs | all-reduce | owner-reduce |",
        "|---|---|---|",
    ]
    lines += [f"| {gpus} | {flat:.3f} | {owned:.3f} |" for gpus, flat, owned in groups]
    path.write_text(TITLE + "\n".join(lines) + "\n", encoding="utf-8")
    _draw(path.with_suffix(".png"), rows)


def _draw(path: Path, rows: Sequence[Row]) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    counts = sorted({row[0] for row in rows})
    figure, axes = plt.subplots(1, len(counts), figsize=(11, 3.4), sharey=True, layout="constrained")
    for axis, count in zip(axes, counts, strict=True):
        for n_genes in sorted({row[1] for row in rows}):
            for equal, style in ((True, "-"), (False, "--")):
                line = [row for row in rows if row[:3] == (count, n_genes, equal)]
                share = [row[4].busy.sum() / (row[3] * row[4].seconds) for row in line]
                label = f"N = {n_genes:,}" if equal else None
                color = {1000: "C0", 5000: "C1", 20_000: "C2"}[n_genes]
                axis.plot([row[3] for row in line], share, style, color=color, label=label)
        axis.set(xscale="log", xlabel="GPUs", title=f"{count:,} datasets, simulated", ylim=(0, 1.05))
        axis.set_xticks([8, 32, 128, 512], ["8", "32", "128", "512"])
        axis.minorticks_off()
    axes[0].set_ylabel("efficiency")
    axes[0].legend(title="solid: equal, dashed: unequal", fontsize=8, title_fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)
