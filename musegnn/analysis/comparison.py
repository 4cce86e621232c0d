"""Compare the co-expression of two conditions: genes that are rewired, partners gained and lost, modules that stay.

Legend: N genes, D datasets of a group, S splits.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix, vstack
from scipy.special import erfc
from scipy.stats import false_discovery_control

from musegnn.analysis.change import Coexpression, changes, combine, draw, judge, power_of
from musegnn.coexpression.cscore import cscore
from musegnn.coexpression.scan import BLOCK_ROWS, ScannedCells, cut_ranges, scan_range
from musegnn.coexpression.tasks import save
from musegnn.data_store.strata import label_codes
from musegnn.datasets import expand_strata, open_counts
from musegnn.errors import ConfigError, InputError
from musegnn.evaluation.modules import coexpression_modules
from musegnn.random import stream
from musegnn.text import some_of
from musegnn.training.genes import gene_keys, read_orthologs

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from numpy.typing import NDArray

    from musegnn.analysis.change import Draw
    from musegnn.config import AtlasConfig, DatasetConfig
    from musegnn.data_store import Store
    from musegnn.progress import Progress

    Floats = NDArray[np.float64]

MIN_CELLS = 10
MIN_SHARED = 50
REPLICATES = 3
MAX_PERMUTATIONS = 20
MAX_PAIRS = 20_000
RANDOM_SETS = 500
PARTNERS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """What differs between two groups of datasets, a and b.

    Attributes
    ----------
    genes
        One row per gene, the most changed first: ``gene``, ``change`` (over that of genes of the same strength and
        chance; 1 is none), ``p_value``, ``q_value``, ``strength_a``, ``strength_b`` (mean of z squared; 1 is chance),
        ``n_gained``, ``n_lost``, the strongest ``gained`` and ``lost`` partners, and ``certainty_a`` and
        ``certainty_b``: the highest certainty of the gene in the graphs of a group; NaN where none has the gene.
    pairs
        Changed pairs at a false discovery rate of 5 %, the strongest first: ``gene``, ``partner``, ``z_a``, ``z_b``,
        ``t``, ``q_value`` and ``kind`` (``gained``, ``lost`` or ``turned``).
    modules
        Modules of a: ``module``, ``n_genes``, ``density_a``, ``density_b`` (mean correlation in units of power),
        ``preservation`` (standard scores of the density in b over random sets of genes), ``p_value``, ``q_value``,
        ``state`` (``kept``, ``weaker`` or ``lost``) and ``genes``.
    summary
        Groups, numbers of cells, kind of chance, and ``background``: median change over that of random halves.
    """

    genes: pd.DataFrame
    pairs: pd.DataFrame
    modules: pd.DataFrame
    summary: dict[str, Any]


class _Cells(NamedTuple):
    """Counts of the genes compared in the cells of a dataset, (n, N), and their depths, (n,)."""

    counts: csr_matrix
    depth: Floats

    def take(self, rows: NDArray[np.intp]) -> _Cells:
        return _Cells(self.counts[rows], self.depth[rows])


def contrast(
    store: Store,
    atlas: AtlasConfig,
    a: str,
    b: str,
    *,
    genes: Collection[str] = (),
    splits: int = 20,
    seed: int = 0,
    progress: Progress | None = None,
) -> Contrast:
    """Compare the co-expression of two datasets, conditions or groups of datasets.

    The genes are those that any dataset of the two groups has in the store, and others by name, where they are detected
    in ten cells of either group. Their counts are read again from the files of the atlas, since the store leaves out
    weak pairs. Of three datasets or more on either side, chance comes from permuted labels of datasets, else from
    random halves of the cells of each dataset.

    Parameters
    ----------
    store, atlas
        Store of the graphs, and the atlas that it was built from.
    a, b
        Names of datasets, separated by commas, or ``tissue=...``, ``condition=...``, ``modality=...``, ``species=...``.
    genes
        Names of genes to compare besides those in the store, as in the files of either group.
    splits
        Number of random halves of each group, at least 3.
    seed
        Seed of the halves, permutations and random sets.
    progress
        Called after each comparison.

    Raises
    ------
    ConfigError
        E302 when a group is empty or the two overlap.
    InputError
        E420 when they share fewer than 50 genes; others when files cannot be read.
    """
    if splits < REPLICATES:
        msg = f"expected at least {REPLICATES} splits, got {splits}"
        raise ValueError(msg)
    atlas = expand_strata(atlas)
    groups = _groups(atlas, a, b)
    wanted, symbols, certainty = _wanted(store, atlas, groups, genes)
    cells = [[_read(dataset, atlas, wanted) for dataset in group] for group in groups]
    seen = [np.sum([np.bincount(c.counts.indices, minlength=len(wanted)) for c in group], axis=0) for group in cells]
    used = np.flatnonzero((seen[0] >= MIN_CELLS) & (seen[1] >= MIN_CELLS))
    if len(used) < MIN_SHARED:
        msg = f"{len(used)} genes are detected in both, expected at least {MIN_SHARED}"
        raise InputError(msg, code="E420", where=f"{a}, {b}", fix="compare datasets that share more genes")
    cells = [[_Cells(c.counts[:, used], c.depth) for c in group] for group in cells]
    names = [symbols[wanted[k]] for k in used]

    parts = [[_coexpression(c) for c in group] for group in cells]
    first, second = (combine(group) for group in parts)
    permuted = min(map(len, groups)) >= REPLICATES
    total = MAX_PERMUTATIONS if permuted else 2 * splits
    made: list[list[Draw]] = []
    source = (
        [_permuted(parts, seed)] if permuted else [_halved(group, splits, seed, k) for k, group in enumerate(cells)]
    )
    for draws in source:
        made.append([])
        for each in draws:
            made[-1].append(each)
            if progress is not None:
                progress("contrast", sum(map(len, made)), total, "chance")
    result = judge(draw(first, second), made)
    t = changes(first, second)
    pairs = _pairs(t, first, second, names)
    table = pd.DataFrame(
        {
            "gene": names,
            "change": result.ratio,
            "p_value": result.p_value,
            "q_value": result.q_value,
            "strength_a": first.strength,
            "strength_b": second.strength,
        }
    )
    table = _with_partners(table, pairs)
    for side, known in zip(("a", "b"), certainty, strict=True):
        table[f"certainty_{side}"] = np.array([known.get(wanted[k], np.nan) for k in used], dtype=np.float32)
    table = table.sort_values(["p_value", "change"], ascending=[True, False], ignore_index=True)
    summary = {
        "a": [d.name for d in groups[0]],
        "b": [d.name for d in groups[1]],
        "cells_a": int(sum(len(c.depth) for c in cells[0])),
        "cells_b": int(sum(len(c.depth) for c in cells[1])),
        "genes": len(names),
        "changed": int((result.q_value < 0.05).sum()),
        "chance": "permuted labels of datasets" if permuted else f"{splits} random halves of the cells of each group",
        "background": result.background,
        "seed": seed,
    }
    modules = _modules(first, second, names, seed)
    return Contrast(genes=table, pairs=pairs.head(MAX_PAIRS), modules=modules, summary=summary)


def _groups(atlas: AtlasConfig, a: str, b: str) -> list[list[DatasetConfig]]:
    groups = [_chosen(atlas, text) for text in (a, b)]
    both = {d.name for d in groups[0]} & {d.name for d in groups[1]}
    if both:
        msg = f"both groups hold {some_of(sorted(both))}"
        raise ConfigError(msg, code="E302", where="contrast", fix="name two groups without a common dataset")
    return groups


def _chosen(atlas: AtlasConfig, text: str) -> list[DatasetConfig]:
    label, equals, value = text.partition("=")
    if equals and label in {"tissue", "condition", "modality", "species"}:
        found = [d for d in atlas.datasets if str(getattr(d, label)) == value]
    else:
        names = text.split(",")
        found = [d for d in atlas.datasets if d.name in names]
        missing = set(names) - {d.name for d in found}
        if missing:
            found = []
    if not found:
        msg = f"{text!r} names no datasets of the run ({some_of([d.name for d in atlas.datasets], 6)})"
        raise ConfigError(msg, code="E302", where="contrast", fix="name datasets, or a label such as condition=control")
    return found


def _wanted(
    store: Store, atlas: AtlasConfig, groups: Sequence[Sequence[DatasetConfig]], more: Collection[str]
) -> tuple[list[str], dict[str, str], list[dict[str, float]]]:
    """Return the keys of genes of the datasets and of `more`, their names, and their certainty in each group."""
    symbols: dict[str, str] = {}
    certainty: list[dict[str, float]] = [{} for _ in groups]
    for known, dataset in ((known, d) for known, group in zip(certainty, groups, strict=True) for d in group):
        genes = store.read(dataset.name).genes
        keys = _keys(genes.gene, dataset, atlas)
        for key, gene in zip(keys, genes.gene.tolist(), strict=True):
            symbols.setdefault(key, gene)
        if genes.certainty is not None:
            for key, value in zip(keys, genes.certainty.tolist(), strict=True):
                known[key] = max(value, known.get(key, 0.0))
    named = np.array(sorted(more), dtype=np.str_)
    for dataset in (d for group in groups for d in group):
        for key, gene in zip(_keys(named, dataset, atlas), named.tolist(), strict=True):
            symbols.setdefault(key, gene)
    return sorted(symbols), symbols, certainty


def _keys(genes: NDArray[np.str_], dataset: DatasetConfig, atlas: AtlasConfig) -> list[str]:
    table = None if atlas.orthologs is None else read_orthologs(atlas.orthologs)
    keys: list[str] = gene_keys(genes, dataset.species, table).tolist()
    return keys


def _read(dataset: DatasetConfig, atlas: AtlasConfig, wanted: Sequence[str]) -> _Cells:
    """Read the counts of these genes in the cells that the build keeps; absent genes have none."""
    source, config = open_counts(dataset), atlas.graph
    place = {key: k for k, key in enumerate(_keys(source.gene, dataset, atlas))}
    present = np.array([k for k, key in enumerate(wanted) if key in place], dtype=np.intp)
    columns = np.array([place[wanted[k]] for k in present], dtype=np.intp)
    own = np.ones(source.n_cells, dtype=np.bool_)
    if dataset.by is not None and dataset.stratum is not None:
        labels, codes = label_codes(source, dataset.by)
        own = codes == labels.index(dataset.stratum)
    blocks, depths = [], []
    with TemporaryDirectory(prefix="musegnn-") as folder:
        for cells in cut_ranges(source.n_cells, BLOCK_ROWS):
            path = Path(folder) / f"{cells.index}.npz"
            save(path, scan_range(source, config, cells))
            scanned = ScannedCells(source, cells, path)
            mine = own[cells.start : cells.stop][scanned.keep()]
            for kept, block, depth in scanned.blocks(columns):
                blocks.append(block[mine[kept]])
                depths.append(depth[mine[kept]])
    counts = vstack(blocks, format="csr")
    spread = csr_matrix((counts.data, present[counts.indices], counts.indptr), shape=(counts.shape[0], len(wanted)))
    return _Cells(spread, np.concatenate(depths))


def _coexpression(cells: _Cells) -> Coexpression:
    result = cscore(cells.counts, cells.depth)
    z = result.z.copy()
    np.fill_diagonal(z, np.nan)
    fit = result.fit
    return Coexpression(z, power_of(fit.mu, fit.sigma, float(np.median(cells.depth)), len(cells.depth)))


def _halved(group: Sequence[_Cells], splits: int, seed: int, side: int) -> Iterator[Draw]:
    """Compare halves of the cells of each dataset."""
    for k in range(splits):
        halves: tuple[list[Coexpression], list[Coexpression]] = ([], [])
        for number, cells in enumerate(group):
            order = stream(seed, "contrast", k, side, number).permutation(len(cells.depth))
            for half, rows in zip(halves, np.array_split(order, 2), strict=True):
                half.append(_coexpression(cells.take(np.sort(rows))))
        yield draw(combine(halves[0]), combine(halves[1]))


def _permuted(parts: Sequence[Sequence[Coexpression]], seed: int) -> Iterator[Draw]:
    """Compare groups of the same sizes with their datasets exchanged, all ways of it or some at random."""
    everything = [*parts[0], *parts[1]]
    actual = (set(range(len(parts[0]))), set(range(len(parts[0]), len(everything))))
    ways = [set(way) for way in combinations(range(len(everything)), len(parts[0])) if set(way) not in actual]
    order = stream(seed, "contrast", 0, "labels").permutation(len(ways))[:MAX_PERMUTATIONS]
    for k in order:
        sides = ([p for i, p in enumerate(everything) if (i in ways[k]) == inside] for inside in (True, False))
        yield draw(*(combine(side) for side in sides))


def _pairs(t: Floats, a: Coexpression, b: Coexpression, names: Sequence[str]) -> pd.DataFrame:
    rows, columns = np.nonzero(np.triu(np.isfinite(t), 1))
    values = t[rows, columns]
    # The spread of most pairs is that of pairs without change.
    spread = max(1.0, float(np.median(np.abs(values))) / 0.6745)
    q = false_discovery_control(erfc(np.abs(values) / spread / np.sqrt(2.0)))
    found = np.flatnonzero(q < 0.05)
    found = found[np.argsort(-np.abs(values[found]), kind="stable")]
    i, j = rows[found], columns[found]
    z_a, z_b = a.z[i, j], b.z[i, j]
    turned = (z_a * z_b < 0) & (np.minimum(np.abs(z_a), np.abs(z_b)) > 3.0)
    label = np.asarray(names, dtype=np.object_)
    kind = np.where(turned, "turned", np.where(np.abs(z_b) > np.abs(z_a), "gained", "lost"))
    return pd.DataFrame(
        {"gene": label[i], "partner": label[j], "z_a": z_a, "z_b": z_b, "t": values[found], "q_value": q[found],
         "kind": kind}
    )  # fmt: skip


def _with_partners(genes: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    both = pd.concat([pairs, pairs.rename(columns={"gene": "partner", "partner": "gene"})])
    both = both.sort_values("t", key=np.abs, ascending=False, kind="stable")
    for kind in ("gained", "lost"):
        found = both[both["kind"] == kind].groupby("gene", sort=False)["partner"]
        strongest = found.apply(lambda partners: " ".join(partners.head(PARTNERS)))
        genes[f"n_{kind}"] = genes["gene"].map(found.size()).fillna(0).astype(int)
        genes[kind] = genes["gene"].map(strongest).fillna("") if len(strongest) else ""
    return genes


def _modules(a: Coexpression, b: Coexpression, names: Sequence[str], seed: int) -> pd.DataFrame:
    """Find the modules of a, and compare their density in b with that of random sets of genes."""
    estimates = [_correlations(each) for each in (a, b)]
    label = coexpression_modules(csr_matrix(np.maximum(estimates[0], 0.0)))
    rng = stream(seed, "contrast", 0, "modules")
    rows = []
    for module in range(int(label.max(initial=-1)) + 1):
        members = np.flatnonzero(label == module)
        density = [_density(each, members) for each in estimates]
        random = [
            _density(estimates[1], rng.choice(len(names), len(members), replace=False)) for _ in range(RANDOM_SETS)
        ]
        score = (density[1] - np.mean(random)) / max(float(np.std(random)), 1e-12)
        p_value = (1 + int(np.sum(np.array(random) >= density[1]))) / (1 + RANDOM_SETS)
        weaker = density[1] < 0.5 * density[0]
        state = "lost" if p_value >= 0.05 else "weaker" if weaker else "kept"
        genes = " ".join(names[k] for k in members.tolist())
        rows.append((module, len(members), *density, score, p_value, state, genes))
    columns = ["module", "n_genes", "density_a", "density_b", "preservation", "p_value", "state", "genes"]
    table = pd.DataFrame(rows, columns=columns)
    table.insert(6, "q_value", false_discovery_control(table["p_value"].to_numpy()) if len(table) else [])
    return table


def _correlations(part: Coexpression) -> Floats:
    """Return z over its power, clipped: the correlation of the expression behind the counts, 0 where untested."""
    power = np.sqrt(np.outer(part.power, part.power))
    z = np.where(np.abs(part.z) > 1.96, np.nan_to_num(part.z), 0.0)
    result: Floats = np.clip(np.divide(z, power, out=np.zeros_like(power), where=power > 0), -1.0, 1.0)
    return result


def _density(correlations: Floats, members: NDArray[np.intp]) -> float:
    n = len(members)
    inside = correlations[np.ix_(members, members)]
    return float((inside.sum() - np.trace(inside)) / (n * (n - 1)))
