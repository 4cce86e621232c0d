"""Data of the report page as plain values, and their packing for the browser.

The payload is ``base64(deflate(uint32 length of header | header as JSON | arrays))``. Arrays are little-endian,
stored as byte planes (all lowest bytes first), which deflate shrinks well. Scores have 16 bits: ``65535 (cosine +
1) / 2``; lists of scores, most of which fall along a row, are stored as differences modulo 2^16.

Legend: P points (one gene in one dataset each), k neighbours.
"""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from musegnn.analysis.colors import dataset_colors, tissue_colors
from musegnn.analysis.neighbors import typical_cosines
from musegnn.analysis.report.tables import evaluation_tables, graph_rows, loss_curves
from musegnn.vectors import nearest_split, unit_rows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

REQUIRED = ("gene", "gene_id", "gene_key", "dataset", "modality", "tissue", "species", "cluster")
CATEGORIES = {
    "dataset": "Dataset",
    "modality": "Modality",
    "tissue": "Tissue",
    "species": "Species",
    "cluster": "Cluster",
    "condition": "Condition",
    "held_out": "Held out",
}
NUMBERS = {"n_datasets": "Datasets", "agreement": "Agreement", "degree": "Degree"}
N_EXAMPLES = 12
TYPICAL_DIGITS = 5


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
    """

    adata: AnnData
    evaluation: Mapping[str, Any]  # JSON
    history: Sequence[Mapping[str, Any]]  # JSON
    graphs: Sequence[Mapping[str, Any]]  # JSON
    config: str
    title: str = "Gene atlas"

    def __post_init__(self) -> None:
        """Refuse embeddings that are not annotated."""
        missing = [name for name in REQUIRED if name not in self.adata.obs]
        if "X_umap" not in self.adata.obsm:
            missing.append("X_umap")
        if missing:
            msg = f"expected annotated embeddings, got none of: {', '.join(missing)}; call annotate(adata) first"
            raise ValueError(msg)


class _Packer:
    """Collects arrays and describes them in the header."""

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []
        self.blobs: list[bytes] = []

    def add(self, name: str, values: NDArray[Any], dtype: str, *, delta: bool = False) -> None:
        """Append one array; with `delta`, rows of mostly falling values are stored as differences."""
        array = np.ascontiguousarray(values, dtype="<" + dtype)
        if delta:
            array = np.concatenate([array[:, :1], array[:, :-1] - array[:, 1:]], axis=1)
        planes = array.reshape(-1, 1).view(np.uint8).reshape(-1, array.dtype.itemsize).T
        self.entries.append({"name": name, "type": dtype, "shape": list(array.shape), "delta": delta})
        self.blobs.append(np.ascontiguousarray(planes).tobytes())


def pack(data: ReportData, *, k: int) -> str:
    """Return the data as base64 text, with `k` neighbours per point inside its dataset and `k` in others."""
    packer = _Packer()
    obs, points = data.adata.obs, data.adata.n_obs
    unit = unit_rows(data.adata.X, dtype=np.float32)
    x = np.asarray(data.adata.obsm["X_umap"], dtype=np.float64)
    low, span = (x.min(axis=0), np.ptp(x, axis=0)) if points else (np.zeros(2), np.zeros(2))
    for name, column in zip("xy", (x - low).T, strict=True):
        size = span["xy".index(name)]
        packer.add(name, np.round(65535 * column / size) if size > 0 else np.zeros(points), "u2")
    texts = {name: obs[name].astype(str).to_numpy(dtype=object) for name in ("gene", "gene_id", "gene_key")}
    genes, gene_code = _codes(texts["gene"])
    ids, id_code = _codes(texts["gene_id"])
    keys, key_code = _codes(texts["gene_key"])
    packer.add("gene", gene_code, "u4")
    packer.add("gene_id", id_code, "u4")
    packer.add("key", key_code, "u4")
    tissue_of = dict(zip(obs["dataset"].astype(str), obs["tissue"].astype(str), strict=True))
    tissue_of = dict(sorted(tissue_of.items()))
    categories = _pack_categories(packer, data.adata, list(dataset_colors(tissue_of)))
    numbers = _pack_numbers(packer, data.adata)
    datasets = categories["dataset"]["values"]
    typical = typical_cosines(data.adata).loc[datasets, datasets].to_numpy(np.float32)
    place = {name: code for code, name in enumerate(datasets)}
    _pack_neighbors(packer, unit, obs["dataset"].astype(str).map(place).to_numpy(), typical, k)
    packer.add("copy_score", _score_code(copy_scores(unit, key_code)), "u2")
    history = loss_curves(data.history)
    for number, curve in enumerate(history["measures"]):
        packer.add(f"rounds:{number}", np.asarray(curve.pop("rounds")), "f4")
        packer.add(f"history:{number}", np.asarray(curve.pop("values")), "f4")
    header = {
        "title": data.title,
        "n": points,
        "n_keys": len(keys),
        "dim": unit.shape[1],
        "k": k,
        "span": span.tolist(),
        "genes": genes,
        "ids": ids,
        "categories": categories,
        "colors": _colors(tissue_of, categories),
        "typical": np.round(typical, TYPICAL_DIGITS).ravel().tolist(),
        "numbers": numbers,
        "examples": _examples(data.adata, texts["gene_key"]),
        "history": history,
        "evaluation": evaluation_tables(data.evaluation),
        "graphs": graph_rows(data.graphs),
        "config": data.config,
        "notes": _notes(data.adata, k),
        "arrays": packer.entries,
    }
    text = json.dumps(header, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    body = b"".join([len(text).to_bytes(4, "little"), text, *packer.blobs])
    return base64.b64encode(zlib.compress(body, 9)).decode("ascii")


def copy_scores(unit: NDArray[np.float32], key: NDArray[np.integer]) -> NDArray[np.float32]:
    """Return the cosines of every point to its copies, flat: points in order, for each its copies in order."""
    order = np.argsort(key, kind="stable")
    ends = np.flatnonzero(np.diff(key[order])) + 1
    scores: list[NDArray[np.float32]] = [np.zeros(0, np.float32)] * len(key)
    for members in np.split(order, ends) if len(order) else []:
        cosine = np.clip(unit[members] @ unit[members].T, -1.0, 1.0)
        for n, point in enumerate(members.tolist()):
            scores[point] = np.delete(cosine[n], n)
    return np.concatenate([np.zeros(0, np.float32), *scores])


def _codes(names: NDArray[np.object_]) -> tuple[list[str], NDArray[np.intp]]:
    values, codes = np.unique(names, return_inverse=True)
    return [str(v) for v in values], codes


def _score_code(score: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.asarray(np.round((np.nan_to_num(score, nan=-1.0).astype(np.float64) + 1.0) * (65535 / 2)))


def _pack_neighbors(
    packer: _Packer, unit: NDArray[np.float32], group: NDArray[np.int64], typical: NDArray[np.float32], k: int
) -> None:
    """Pack the neighbours with their cosines; what is typical for two datasets counts in the ranking alone."""
    for name, found in zip(("within", "across"), nearest_split(unit, group, k, typical=typical), strict=True):
        cosine = found.score + typical[group[:, None], group[found.index]]
        packer.add(f"{name}_index", found.index + 1, "u4")
        packer.add(f"{name}_score", _score_code(np.clip(cosine, -1.0, 1.0)), "u2", delta=True)


def _colors(tissue_of: Mapping[str, str], categories: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the colours of tissues and datasets, in the order of the categories; none where there is one tissue."""
    if len(set(tissue_of.values())) < 2:
        return {}
    by = {"dataset": dataset_colors(tissue_of), "tissue": tissue_colors(tissue_of)}
    return {name: [colors[value] for value in categories[name]["values"]] for name, colors in by.items()}


def _pack_categories(packer: _Packer, adata: AnnData, datasets: Sequence[str]) -> dict[str, Any]:
    """Pack the categories of the points; datasets in the order given, others as in `adata`, or sorted."""
    packed = {}
    for name, label in CATEGORIES.items():
        if name not in adata.obs:
            continue
        column = adata.obs[name]
        if name == "held_out":
            column = column.map({True: "held out", False: "in training"})
        text = column.astype(str).to_numpy(dtype=object)
        known = [str(c) for c in column.cat.categories] if hasattr(column, "cat") else sorted(set(text))
        values = [v for v in (datasets if name == "dataset" else known) if v in set(text)]
        if name not in REQUIRED and len(values) < 2:
            continue
        place = {value: code for code, value in enumerate(values)}
        packer.add(name, np.array([place[v] for v in text], dtype=np.uint16), "u2")
        packed[name] = {"label": label, "values": [v or "none" for v in values]}
    return packed


def _pack_numbers(packer: _Packer, adata: AnnData) -> list[dict[str, Any]]:
    packed = []
    for name, label in NUMBERS.items():
        if name not in adata.obs:
            continue
        values = adata.obs[name].to_numpy(dtype=np.float64)
        known = values[np.isfinite(values)]
        if not len(known) or np.ptp(known) == 0.0:
            continue
        integer = bool((known == np.round(known)).all())
        low, high = (known.min(), known.max()) if integer and name != "degree" else np.quantile(known, [0.01, 0.99])
        packed.append({"name": name, "label": label, "low": float(low), "high": float(high), "integer": integer})
        packer.add(f"n:{name}", values, "f4")
    return packed


def _examples(adata: AnnData, keys: NDArray[np.object_]) -> list[int]:
    """Choose genes to start with: those of the most datasets whose copies agree best, one point each."""
    if "agreement" not in adata.obs or "n_datasets" not in adata.obs:
        return []
    agreement = adata.obs["agreement"].to_numpy(dtype=np.float64)
    copies = adata.obs["n_datasets"].to_numpy()
    shared = np.flatnonzero(np.isfinite(agreement) & (copies > 1))
    order = shared[np.lexsort((shared, -agreement[shared], -copies[shared]))]
    _, first = np.unique(keys[order], return_index=True)
    return [int(p) for p in order[np.sort(first)][:N_EXAMPLES]]


def _notes(adata: AnnData, k: int) -> list[str]:
    notes = [
        "Map: UMAP on exact cosine neighbours. Distances between far groups mean little; "
        "the lists of nearest genes do not use the map.",
        f"Nearest genes: {k} inside the dataset and {k} in other datasets, shown with their cosines, ranked by these "
        "less what is typical for the two datasets, so that genes of all datasets come up.",
        "Agreement: mean cosine of a gene to the same gene in other datasets. Degree: neighbours in its own graph.",
    ]
    if "clusters" in adata.uns:
        notes.append(f"Clusters: {adata.uns['clusters']}.")
    return notes
