"""Data of the report page as plain values, in two blocks: the points, which are painted first, and all else.

Legend: P points (one gene in one dataset each), k neighbours, T datasets.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from musegnn.analysis.colors import dataset_colors, tissue_colors
from musegnn.analysis.neighbors import typical_cosines
from musegnn.analysis.report.contrasts import change_columns, pack_contrasts
from musegnn.analysis.report.lists import (
    Points,
    find_neighbors,
    of_points,
    pack_copies,
    pack_neighbors,
    pack_partners,
    pack_sets,
)
from musegnn.analysis.report.packing import Packer, gaps, place
from musegnn.analysis.report.tables import evaluation_tables, graph_rows, loss_curves
from musegnn.vectors import unit_rows

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

    from musegnn.data_store.records import PairTable
    from musegnn.graph import EdgeSet
    from musegnn.progress import Progress
    from musegnn.vectors import Neighbors

REQUIRED = ("gene", "gene_id", "gene_key", "dataset", "modality", "tissue", "species", "cluster")
CATEGORIES = {
    "dataset": ("Dataset", "Counts of one sample or study, in which this vector was learned."),
    "modality": ("Modality", "What was measured: RNA, accessibility summed over genes, or RNA at places of a tissue."),
    "tissue": ("Tissue", "As named in the atlas file."),
    "species": ("Species", "As named in the atlas file."),
    "cluster": ("Cluster", "Group of points whose vectors are alike, numbered by falling size."),
    "condition": ("Condition", "As named in the atlas file."),
    "held_out": (
        "Held out",
        "Genes held out were hidden from all that compares datasets, so that the evaluation can ask whether their "
        "copies come to lie together. The vectors of the others were aligned.",
    ),
}
NUMBERS = {
    "n_datasets": ("Datasets", "Number of datasets that have a vector of this gene."),
    "agreement": (
        "Agreement",
        "Mean cosine of this vector with those of the same gene in the other datasets: 1 where all point the same way, "
        "0 where they have nothing in common.",
    ),
    "certainty": (
        "Certainty",
        "How well two halves of the cells agree on the co-expression of this gene: 1 perfectly, 0 not at all. What is "
        "said of genes of low certainty may not hold for other cells.",
    ),
    "degree": (
        "Degree",
        "Number of genes with which this gene is co-expressed: its edges in the graph of its dataset.",
    ),
}
N_EXAMPLES = 12
NUMBER_STEPS = 250
TYPICAL_DIGITS = 5
MOST_NEIGHBORS, FEWEST_NEIGHBORS, NEIGHBOR_ENTRIES = 20, 5, 5_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportData:
    """Everything the page shows.

    Attributes
    ----------
    adata
        Annotated embeddings (:func:`musegnn.analysis.annotate.annotate`), one row per dataset x gene.
    evaluation
        Content of ``evaluation.json``; empty when there is none.
    history
        Lines of ``metrics.jsonl``.
    graphs
        One report per dataset, as of :meth:`musegnn.MuSeGNN.graph_reports`.
    config
        Configuration as YAML.
    title
        Name of the run, shown on top.
    pairs
        Co-expression of each dataset by name, genes in the order of the rows of `adata`; none for some or all.
    sets
        Gene keys of gene sets by name, such as of :meth:`musegnn.MuSeGNN.gene_sets`.
    contrasts
        Content of the ``contrast.json`` of each contrast, by the name of its folder.
    neighbors
        Neighbours already known, of the rows of `adata`, inside their datasets and outside, with scores from which what
        is typical for two datasets is taken out; by default they are found, exactly.
    """

    adata: AnnData
    evaluation: Mapping[str, Any]  # JSON
    history: Sequence[Mapping[str, Any]]  # JSON
    graphs: Sequence[Mapping[str, Any]]  # JSON
    config: str
    title: str = "Gene atlas"
    pairs: Mapping[str, PairTable | EdgeSet] = field(default_factory=dict)
    sets: Mapping[str, Collection[str]] = field(default_factory=dict)
    contrasts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # JSON
    neighbors: tuple[Neighbors, Neighbors] | None = None

    def __post_init__(self) -> None:
        """Refuse embeddings that are not annotated."""
        missing = [name for name in REQUIRED if name not in self.adata.obs]
        if "X_umap" not in self.adata.obsm:
            missing.append("X_umap")
        if missing:
            msg = f"expected annotated embeddings, got none of: {', '.join(missing)}; call annotate(adata) first"
            raise ValueError(msg)


def pack(
    data: ReportData, *, k: int | None = None, live: bool = False, progress: Progress | None = None
) -> tuple[str, str]:
    """Return the two blocks as text.

    Parameters
    ----------
    k
        Number of neighbours per point inside its dataset, and as many in others; by default 20, and fewer, but at least
        5, above 250,000 points.
    live
        Whether the page may ask the process that serves it.
    """
    n = data.adata.n_obs
    if data.neighbors is not None:
        k = data.neighbors[0].index.shape[1]
    k = k or max(FEWEST_NEIGHBORS, min(MOST_NEIGHBORS, NEIGHBOR_ENTRIES // max(n, 1)))

    def report(done: int, note: str) -> None:
        if progress is not None:
            progress("page", done, 100, note)

    report(0, "points")
    packer = Packer()
    points, header = _pack_points(packer, data)
    head = packer.text({**header, "title": data.title, "k": k, "live": live, "dim": data.adata.n_vars})
    packer = Packer()
    unit = unit_rows(data.adata.X[points.order], dtype=np.float32)
    typical = typical_cosines(data.adata).loc[points.datasets, points.datasets].to_numpy(np.float32)
    if data.neighbors is None:
        known = find_neighbors(
            unit, points.dataset, typical, k, lambda done, total: report(5 + (80 * done) // total, "nearest genes")
        )
    else:
        known = of_points(data.neighbors, points.order)
    pack_neighbors(packer, known, points.dataset, typical)
    report(85, "partners")
    has_copies = pack_copies(packer, unit, points)
    partners = pack_partners(packer, data.pairs, points)
    history = loss_curves(data.history)
    for number, curve in enumerate(history["measures"]):
        packer.add(f"rounds:{number}", np.asarray(curve.pop("rounds")), "f4")
        packer.add(f"history:{number}", np.asarray(curve.pop("values")), "f4")
    rest = {
        "typical": np.round(typical, TYPICAL_DIGITS).ravel().tolist(),
        "copies": has_copies,
        "partners": partners,
        "sets": pack_sets(packer, data.sets, points.keys),
        "contrasts": pack_contrasts(packer, data.contrasts, points, [about["name"] for about in header["numbers"]]),
        "history": history,
        "evaluation": evaluation_tables(data.evaluation),
        "graphs": graph_rows(data.graphs),
        "cutoffs": {str(row["dataset"]): row["cutoff"] for row in data.graphs if row.get("cutoff") is not None},
        "config": data.config,
        "notes": _notes(data.adata, k),
    }
    report(90, "compression")
    tail = packer.text(rest)
    report(100, "")
    return head, tail


def _pack_points(packer: Packer, data: ReportData) -> tuple[Points, dict[str, Any]]:
    """Pack places, names and labels of the points."""
    layout = np.asarray(data.adata.obsm["X_umap"], dtype=np.float64)
    code, order = place(layout)
    packer.add("place", gaps(code), "u4")
    obs = data.adata.obs.iloc[order]
    gene, genes = _codes(obs["gene"])
    gene_id, ids = _codes(obs["gene_id"])
    key, keys = _codes(obs["gene_key"])
    names, name = np.unique((gene * len(ids) + gene_id) * len(keys) + key, return_inverse=True)
    packer.add("name", name, "u4")
    packer.add("key_of", names % len(keys) if len(keys) else names, "u4")
    of_name = [genes[g] for g in (names // max(len(ids) * len(keys), 1)).tolist()]
    id_of_name = [ids[i] for i in (names // max(len(keys), 1) % max(len(ids), 1)).tolist()]
    tissues = obs[["dataset", "tissue"]].astype(str).drop_duplicates("dataset").sort_values("dataset")
    tissue_of = dict(zip(tissues["dataset"], tissues["tissue"], strict=True))
    datasets = list(dataset_colors(tissue_of))
    categories, dataset = _pack_categories(packer, obs, datasets)
    header = {
        "n": len(obs),
        "n_keys": len(keys),
        "span": np.ptp(layout, axis=0).tolist() if len(obs) else [0.0, 0.0],
        "genes": of_name,
        "ids": [i if i != g else 0 for i, g in zip(id_of_name, of_name, strict=True)],
        "categories": categories,
        "colors": _colors(tissue_of, categories),
        "tissues": [tissue_of[name] for name in datasets],
        "numbers": _pack_numbers(packer, obs, data.contrasts),
        "examples": _examples(obs, key),
    }
    return Points(order, obs, key, keys, dataset, datasets), header


def _codes(column: pd.Series) -> tuple[NDArray[np.int64], list[str]]:
    """Return the code of each text, in the order of the texts without regard to case."""
    codes, values = pd.factorize(column.astype(str))
    texts = [str(v) for v in values]
    order = sorted(range(len(texts)), key=lambda i: (texts[i].casefold(), texts[i]))
    rank = np.empty(len(texts), dtype=np.int64)
    rank[order] = np.arange(len(texts))
    return rank[codes], [texts[i] for i in order]


def _pack_categories(
    packer: Packer, obs: pd.DataFrame, datasets: Sequence[str]
) -> tuple[dict[str, Any], NDArray[np.int64]]:
    """Pack the categories of the points, datasets in the order given; those that a dataset decides once per dataset."""
    packed: dict[str, Any] = {}
    dataset = np.zeros(0, dtype=np.int64)
    for name, (label, about) in CATEGORIES.items():
        if name not in obs:
            continue
        column = obs[name]
        if name == "held_out":
            column = column.map({True: "held out", False: "in training"})
        codes, texts = pd.factorize(column.astype(str))
        known = [str(c) for c in column.cat.categories] if hasattr(column, "cat") else sorted(map(str, texts))
        if all(value.isdecimal() for value in known):
            known.sort(key=int)
        values = [v for v in (datasets if name == "dataset" else known) if v in set(map(str, texts))]
        if name not in REQUIRED and len(values) < 2:
            continue
        rank = {value: code for code, value in enumerate(values)}
        codes = np.array([rank[str(v)] for v in texts], dtype=np.int64)[codes] if len(texts) else codes
        packed[name] = {"label": label, "about": about, "values": [v or "none" for v in values]}
        if name == "dataset":
            dataset = codes
        of_dataset = np.zeros(len(datasets), dtype=np.int64)
        of_dataset[dataset] = codes
        if name != "dataset" and (of_dataset[dataset] == codes).all():
            packed[name]["by_dataset"] = of_dataset.tolist()
        else:
            packer.add(name, codes, "u1" if len(values) <= 256 else "u2")
    return packed, dataset


def _pack_numbers(
    packer: Packer, obs: pd.DataFrame, contrasts: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Pack the numbers of the points in steps from 1, with 0 for what is unknown."""
    packed = []
    known_columns = {
        name: (*texts, obs[name].to_numpy(dtype=np.float64)) for name, texts in NUMBERS.items() if name in obs
    }
    for name, (label, about, values) in (known_columns | change_columns(contrasts, obs)).items():
        known = values[np.isfinite(values)]
        if not len(known) or np.ptp(known) == 0.0:
            continue
        integer = bool((known == np.round(known)).all())
        low, high = (known.min(), known.max()) if integer and name != "degree" else np.quantile(known, [0.01, 0.99])
        start, step = float(known.min()), 1.0 if integer else float(np.ptp(known)) / NUMBER_STEPS
        about_scale = {"low": float(low), "high": float(high), "integer": integer, "start": start, "step": step}
        packed.append({"name": name, "label": label, "about": about, **about_scale})
        code = np.nan_to_num(np.round((values - start) / step) + 1.0, nan=0.0)
        most = int(code.max())
        packer.add(f"n:{name}", code, "u1" if most < 1 << 8 else "u2" if most < 1 << 16 else "u4")
    return packed


def _colors(tissue_of: Mapping[str, str], categories: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the colours of tissues and datasets, in the order of the categories; none where there is one tissue."""
    if len(set(tissue_of.values())) < 2:
        return {}
    by = {"dataset": dataset_colors(tissue_of), "tissue": tissue_colors(tissue_of)}
    return {name: [colors[value] for value in categories[name]["values"]] for name, colors in by.items()}


def _examples(obs: pd.DataFrame, key: NDArray[np.int64]) -> list[int]:
    """Choose genes to start with: those of the most datasets whose copies agree best, one point each."""
    if "agreement" not in obs or "n_datasets" not in obs:
        return []
    agreement = obs["agreement"].to_numpy(dtype=np.float64)
    copies = obs["n_datasets"].to_numpy()
    shared = np.flatnonzero(np.isfinite(agreement) & (copies > 1))
    order = shared[np.lexsort((key[shared], -agreement[shared], -copies[shared]))]
    _, first = np.unique(key[order], return_index=True)
    return [int(p) for p in order[np.sort(first)][:N_EXAMPLES]]


def _notes(adata: AnnData, k: int) -> list[str]:
    notes = [
        "Map: UMAP on cosine neighbours. Distances between far groups mean little; "
        "the lists of nearest genes do not use the map.",
        f"Nearest genes: {k} inside the dataset and {k} in other datasets, shown with their cosines, ranked by these "
        "less what is typical for the two datasets, so that genes of all datasets come up.",
        "Partners: genes with the largest co-expression statistic z of a gene in one dataset. z grows with the number "
        "of cells, so that datasets of many cells have larger ones.",
        "Enrichment: hypergeometric tail over the genes of the atlas, those in no gene set included; "
        "q by Benjamini and Hochberg over the gene sets with at least three genes here.",
    ]
    notes += [f"{label}: {about}" for label, about in (CATEGORIES["held_out"], *NUMBERS.values())]
    if "clusters" in adata.uns:
        notes.append(f"Clusters: {adata.uns['clusters']}.")
    return notes
