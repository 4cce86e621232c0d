"""Datasets for the case `edge-rules`: those beside the checkout, else the example atlas.

Legend: n cells, N genes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from anndata import read_h5ad
from scipy.sparse import csr_matrix, vstack

from musegnn.atlas_file import load_atlas
from musegnn.coexpression.build import build_dataset
from musegnn.coexpression.edges import BIN_WIDTH, edges_from_mask, select_edges
from musegnn.config import DatasetConfig, EdgeConfig, GraphConfig
from musegnn.data_store import open_matrix
from musegnn.data_store.records import PairTable
from musegnn.errors import NoEdgesError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from musegnn.graph import EdgeSet

ROOT = Path(__file__).resolve().parents[2]
SPATIAL = ("dlpfc", "olfactory")
LABELS = {
    "hs_brain_dlpfc_151673": "layer",
    "hs_brain_dlpfc_151674": "layer",
    "dlpfc_151673": "layer",
    "dlpfc_151674": "layer",
    "mm_intestine_10x_moor": "zone",
}
RULES: dict[str, EdgeConfig | None] = {
    "pvalue": EdgeConfig(rule="pvalue"),
    "bh": EdgeConfig(rule="bh"),
    "by": EdgeConfig(rule="by"),
    "default": EdgeConfig(),
    "default max_degree=50": EdgeConfig(max_degree=50),
    "top_k k=50": EdgeConfig(rule="top_k"),
    "min_abs_est 0.1": EdgeConfig(rule="min_abs_est"),
    "shared_axes": EdgeConfig(rule="shared_axes"),
    "strongest z, 10 per gene": None,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Counts in memory.

    Attributes
    ----------
    name, modality
        Of the dataset.
    counts
        Cells with counts x genes, shape (n, N), int32.
    depth
        Total counts over all genes that are not mitochondrial, shape (n,), float64.
    genes
        Names, shape (N,).
    labels
        Region of each cell where the file has one, shape (n,).
    """

    name: str
    modality: str
    counts: csr_matrix
    depth: NDArray[np.float64]
    genes: NDArray[np.str_]
    labels: NDArray[np.str_] | None

    @property
    def shape(self) -> str:
        """Name and size, as rows of results have it."""
        return f"{self.name} {self.counts.shape[0]}x{self.counts.shape[1]}"


def find_datasets() -> list[DatasetConfig]:
    """List the real datasets: the folder ``shared/data``, or the example atlas without it."""
    folder = Path(os.environ.get("MUSEGNN_SHARED", ROOT.parent / "shared")) / "data"
    files = sorted(folder.glob("*.h5ad"))
    if not files:
        return list(load_atlas(ROOT / "examples" / "atlas" / "atlas.yaml").datasets)
    return [_describe(path) for path in files]


def _describe(path: Path) -> DatasetConfig:
    species, tissue = path.stem.split("_")[:2]
    spatial = any(word in path.stem for word in SPATIAL)
    modality = "scatac" if "atac" in path.stem else "spatial" if spatial else "scrna"
    return DatasetConfig.model_validate(
        {"name": path.stem, "path": path, "modality": modality, "tissue": tissue, "species": species}
    )


def load_all(dataset: DatasetConfig) -> Counts:
    """Read all genes that are not mitochondrial."""
    spatial = dataset.spatial_key if dataset.modality == "spatial" else None
    source = open_matrix(dataset.path, layer=dataset.layer, gene_id_key=dataset.gene_id_key, spatial_key=spatial)
    counted = ~np.char.startswith(np.char.upper(source.gene), "MT-")
    counts = csr_matrix(vstack([block for _, block in source.blocks(16384)], format="csr")[:, counted])
    depth = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()
    column, labels = LABELS.get(dataset.name), None
    if column is not None:
        obs = read_h5ad(dataset.path, backed="r").obs
        labels = obs[column].astype(str).to_numpy(dtype=np.str_)[depth > 0] if column in obs else None
    return Counts(
        name=dataset.name,
        modality=dataset.modality,
        counts=counts[depth > 0],
        depth=depth[depth > 0],
        genes=source.gene[counted],
        labels=labels,
    )


def load_selected(dataset: DatasetConfig, n_genes: int) -> Counts:
    """Read the genes that a build selects."""
    spatial = dataset.spatial_key if dataset.modality == "spatial" else None
    source = open_matrix(dataset.path, layer=dataset.layer, gene_id_key=dataset.gene_id_key, spatial_key=spatial)
    record = build_dataset(source, dataset, GraphConfig(n_genes=n_genes))
    everything = load_all(dataset)
    position = {gene: j for j, gene in enumerate(everything.genes.tolist())}
    chosen = np.array([position[gene] for gene in np.asarray(record.genes.gene).tolist()])
    return Counts(
        name=everything.name,
        modality=everything.modality,
        counts=csr_matrix(everything.counts[:, chosen]),
        depth=everything.depth,
        genes=everything.genes[chosen],
        labels=everything.labels,
    )


def tabulate(z: NDArray[np.float64], estimate: NDArray[np.float64] | None = None, z_store: float = 1.96) -> PairTable:
    """Store a symmetric matrix of statistics, shape (N, N), NaN where not tested, as a build does."""
    n = len(z)
    tested = np.isfinite(z) & ~np.eye(n, dtype=np.bool_)
    keep = tested & (np.abs(z) >= z_store)
    rows, columns = np.nonzero(keep)
    magnitude = np.abs(z[np.triu(tested, 1)])
    estimates = np.zeros(len(rows)) if estimate is None else estimate[rows, columns]
    return PairTable(
        indptr=np.concatenate([[0], np.cumsum(keep.sum(axis=1))]).astype(np.int64),
        indices=columns.astype(np.int32),
        z=z[rows, columns].astype(np.float32),
        estimate=estimates.astype(np.float32),
        n_tests=len(magnitude),
        z_store=z_store,
        histogram=np.bincount(np.minimum(magnitude / BIN_WIDTH, 800).astype(np.int64), minlength=801).astype(np.int64),
    )


def edges_of(pairs: PairTable, n_cells: int, config: EdgeConfig | None) -> EdgeSet | None:
    """Apply a rule, or take the strongest pairs, 10 edges per gene on average; ``None`` for a graph without edges."""
    if config is None:
        wanted = min(10 * pairs.n_genes, len(pairs.z))
        stored = edges_of(pairs, n_cells, EdgeConfig(rule="pvalue", p_value=0.0499))
        if stored is None or wanted == 0:
            return None
        return edges_from_mask(stored, np.abs(stored.z) >= np.sort(np.abs(pairs.z))[-wanted])
    try:
        return select_edges(pairs, n_cells, config)
    except NoEdgesError:
        return None


def signed_pairs(edges: EdgeSet | None) -> NDArray[np.int64]:
    """Return one number per edge, ascending: the pair, negative for negative edges."""
    if edges is None:
        return np.zeros(0, dtype=np.int64)
    upper = edges.rows < edges.indices
    code = edges.rows[upper] * edges.n_genes + edges.indices[upper]
    return np.sort(np.where(edges.z[upper] < 0, -code, code))
