"""Whether a contrast finds genes whose partners change, and calls nothing where nothing does.

Rewiring is planted in real counts: the cells of a dataset are cut in two, and in one half genes of similar mean
exchange their counts, or the counts of a gene are dealt to other cells of the same depth, so that it loses its
partners. Other genes have half of their counts thinned away in one half, which changes their mean alone.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import scipy.sparse as sp
from scipy.stats import binomtest, kstest, rankdata

import musegnn as mg
from benchmarks.quality import groups
from benchmarks.registry import Check, Measurement
from musegnn.analysis import contrast
from musegnn.atlas_file import validate_atlas
from musegnn.coexpression.cscore import cscore

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from musegnn.analysis.comparison import Contrast

INTERFERON = [
    "ISG15", "IFI6", "IFIT1", "IFIT2", "IFIT3", "MX1", "MX2", "OAS1", "OAS2", "OAS3", "ISG20", "LY6E", "IFI35",
    "IFITM1", "IFITM3", "CXCL10", "STAT1", "IRF7", "RSAD2",
]  # fmt: skip
PBMC, SECTIONS = "hs_pbmc_10x_pbmc3k.h5ad", ("hs_brain_dlpfc_151673.h5ad", "hs_brain_dlpfc_151674.h5ad")
PLANTED = (PBMC, SECTIONS[0], "hs_lung_hlca_query.h5ad")
STIMULATED = ("hs_pbmc_ifnb_ctrl.h5ad", "hs_pbmc_ifnb_stim.h5ad")
LEVEL, EACH, LEAST_STRENGTH, ALIKE, DEPTHS = 0.05, 7, 4.0, 0.3, 25


class ContrastCase:
    """Planted rewiring, null contrasts, and interferon-beta on blood cells."""

    name = "contrast"

    def gate(self, *, quick: bool) -> Iterator[Check]:
        """Check that planted genes keep their counts where only their partners are to change."""
        del quick
        planted = _choose(_file(PLANTED[1]))
        plain, changed = (_halves(_file(PLANTED[1]), genes) for genes in ({}, planted))
        for side, name in ((1, "lost"), (0, "gained")):
            totals = [np.asarray(cells[side].X[:, planted[name]].sum(axis=0)).ravel() for cells in (plain, changed)]
            same = bool((totals[0] == totals[1]).all())
            yield Check(claim=f"genes with partners {name} keep their counts", holds=same, got=str(totals[1].sum()))
        mean = [cells[0].X[:, planted["doubled"]].sum() for cells in (plain, changed)]
        claim = "doubled genes have half of their counts in the first half, within 5 %"
        yield Check(claim=claim, holds=bool(abs(mean[1] / mean[0] - 0.5) < 0.05), got=f"{mean[1] / mean[0]:.3f}")

    def measure(self, *, quick: bool) -> Iterator[Measurement]:
        """Score all contrasts; the quick form has one dataset with planted rewiring."""
        for name in PLANTED[1:2] if quick else PLANTED:
            yield from _planted(_file(name))
        if quick:
            return
        yield from _null("halves of pbmc3k", _between(_halves(_file(PBMC), {})).genes)
        sections = [ad.read_h5ad(_file(name)) for name in SECTIONS]
        yield from _null("151673 and 151674", _between(sections, modality="spatial").genes)
        conditions = [ad.read_h5ad(_file(name)) for name in STIMULATED]
        for by, n_genes, more in (
            ("dataset", 1000, ()), ("tissue", 1000, ()), ("tissue", 1000, INTERFERON), ("tissue", 2000, ()),
        ):  # fmt: skip
            found = _between(conditions, n_genes=n_genes, select_by=by, more=more).genes
            yield from _interferon(found, f"{n_genes} selected by {by}{', 19 named' if more else ''}")


def _file(name: str) -> Path:
    return groups.shared_folder() / "data" / name


def _between(
    sides: Sequence[ad.AnnData],
    *,
    modality: str = "scrna",
    n_genes: int = 1000,
    select_by: str = "dataset",
    more: Sequence[str] = (),
) -> Contrast:
    with TemporaryDirectory(prefix="musegnn-") as folder:
        entries = []
        for k, side in enumerate(sides):
            path = Path(folder) / f"{k}.h5ad"
            side.write_h5ad(path)
            about = {"modality": modality, "tissue": "one", "species": "human"}
            entries.append({"name": f"d{k}", "path": str(path)} | about)
        atlas = validate_atlas(
            {"datasets": entries, "graph": {"n_genes": n_genes, "select_by": select_by}}, where="contrast"
        )
        return contrast(mg.build_graphs(atlas, Path(folder) / "store", progress=None), atlas, "d0", "d1", genes=more)


def _halves(path: Path, planted: Mapping[str, NDArray[np.intp]]) -> list[ad.AnnData]:
    """Cut the cells of a file in two at random, and plant changes of these genes."""
    rng = np.random.default_rng(0)
    whole = ad.read_h5ad(path)
    parts = [np.sort(rows) for rows in np.array_split(rng.permutation(whole.n_obs), 2)]
    a, b = (whole[rows].copy() for rows in parts)
    before, after = (side.X.toarray() for side in (a, b))
    for g, h in planted.get("exchanged", np.empty((0, 2), np.intp)):
        after[:, [g, h]] = after[:, [h, g]]
    for counts, name in ((after, "lost"), (before, "gained")):
        order = np.argsort(counts.sum(axis=1), kind="stable")
        for gene in planted.get(name, ()):
            for cells in np.array_split(order, max(len(order) // DEPTHS, 1)):
                counts[cells, gene] = counts[rng.permutation(cells), gene]
    for gene in planted.get("doubled", ()):
        before[:, gene] = rng.binomial(before[:, gene].astype(np.int64), 0.5)
    a.X, b.X = (sp.csr_matrix(counts.astype(np.float32)) for counts in (before, after))
    return [a, b]


def _choose(path: Path) -> dict[str, NDArray[np.intp]]:
    """Choose genes that are co-expressed: pairs of similar mean and different partners, and others."""
    whole = ad.read_h5ad(path)
    counts = sp.csr_matrix(whole.X).astype(np.float64)
    depth = np.asarray(counts.sum(axis=1)).ravel()
    rows = depth > 0
    variable = np.argsort(-_residual_variance(counts[rows], depth[rows]), kind="stable")[:1000]
    z = np.nan_to_num(cscore(counts[rows][:, variable], depth[rows]).z)
    np.fill_diagonal(z, 0.0)
    strong = np.flatnonzero((z**2).mean(axis=1) > LEAST_STRENGTH)
    mean = np.asarray(counts[:, variable].mean(axis=0)).ravel()
    alike = np.corrcoef(z)
    rng = np.random.default_rng(1)
    used: set[int] = set()
    exchanged: list[tuple[int, int]] = []
    for g in rng.permutation(strong).tolist():
        free = [h for h in strong.tolist() if h != g and h not in used and alike[g, h] < ALIKE]
        if len(exchanged) < EACH and g not in used and free:
            h = min(free, key=lambda other: abs(np.log(mean[other] / mean[g])))
            exchanged.append((g, h))
            used |= {g, h}
    rest = [g for g in rng.permutation(strong).tolist() if g not in used]
    chosen = {"lost": rest[:EACH], "gained": rest[EACH : 2 * EACH], "doubled": rest[2 * EACH : 4 * EACH]}
    return {"exchanged": variable[np.array(exchanged)]} | {name: variable[genes] for name, genes in chosen.items()}


def _residual_variance(counts: sp.csr_matrix, depth: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the variance of analytic Pearson residuals, 0 for genes in fewer than forty cells."""
    share = np.asarray(counts.sum(axis=0)).ravel() / depth.sum()
    seen = np.bincount(counts.indices, minlength=counts.shape[1]) >= 40
    result = np.zeros(counts.shape[1])
    for gene in np.flatnonzero(seen):
        mu = depth * share[gene]
        residual = (counts[:, [gene]].toarray().ravel() - mu) / np.sqrt(mu + mu**2 / 100.0)
        result[gene] = np.clip(residual, -np.sqrt(len(mu)), np.sqrt(len(mu))).var()
    return result


def _planted(path: Path) -> Iterator[Measurement]:
    planted = _choose(path)
    whole = ad.read_h5ad(path, backed="r").var_names.to_numpy().astype(str)
    modality = "spatial" if path.name in SECTIONS else "scrna"
    found = _between(_halves(path, planted), modality=modality).genes.set_index("gene")
    names = {kind: [g for g in whole[np.ravel(genes)] if g in found.index] for kind, genes in planted.items()}
    rewired = np.isin(found.index, [g for kind in ("exchanged", "lost", "gained") for g in names[kind]])
    shape = f"{path.stem.split('_')[-1]} {int(rewired.sum())} of {len(found)}"
    ranks = rankdata(-np.arange(len(found)))
    n = int(rewired.sum())
    auroc = (ranks[rewired].sum() - n * (n + 1) / 2) / (n * (len(found) - n))
    yield Measurement(
        shape=shape, metric="AUROC of planted rewiring", value=float(auroc), unit="", goal=("value", ">=", 0.9),
        larger_is_better=True,
    )  # fmt: skip
    for kind, genes in names.items():
        called = float((found.loc[genes, "q_value"] < LEVEL).mean())
        goal = ("value", "<=", 0.0) if kind == "doubled" else None
        yield Measurement(shape=shape, metric=f"called, {kind}", value=called, unit="share", goal=goal)


def _null(shape: str, genes: pd.DataFrame) -> Iterator[Measurement]:
    p = genes["p_value"].to_numpy()
    share = binomtest(int((p < LEVEL).sum()), len(p))
    low, high = share.proportion_ci()
    about = f"share ({low:.3f} to {high:.3f})"
    shape = f"{shape} {len(p)}"
    yield Measurement(shape=shape, metric="p below .05", value=share.statistic, unit=about, goal=("value", "<=", LEVEL))
    distance = float(kstest(p, "uniform").statistic)
    yield Measurement(shape=shape, metric="distance from uniform", value=distance, unit="", goal=("value", "<=", LEVEL))
    called = float((genes["q_value"] < LEVEL).sum())
    yield Measurement(shape=shape, metric="called", value=called, unit="genes", goal=("value", "<=", 0.0))


def _interferon(genes: pd.DataFrame, selected: str) -> Iterator[Measurement]:
    mine = genes.index[genes["gene"].isin(INTERFERON)]
    shape = f"interferon, {selected}, {len(genes)} compared"
    yield Measurement(shape=shape, metric="of 19 compared", value=len(mine), unit="genes", larger_is_better=True)
    rank = float(np.median(mine)) + 1
    yield Measurement(shape=shape, metric="median rank", value=rank, unit="", goal=("value", "<=", 25.0))
    for metric, column, goal in (
        ("p below .05", "p_value", None),
        ("q below .05", "q_value", ("value", ">=", 15.0)),
    ):
        value = float((genes[column][mine] < LEVEL).sum())
        yield Measurement(shape=shape, metric=metric, value=value, unit="genes", goal=goal, larger_is_better=True)
    others = float((genes["q_value"] < LEVEL).sum() - (genes["q_value"][mine] < LEVEL).sum())
    yield Measurement(shape=shape, metric="others with q below .05", value=others, unit="genes")


CASE = ContrastCase()
