"""The published metrics of a joint space, without self-loops.

Each takes the pooled rows of all datasets: vectors, dataset labels, cluster labels. AUC, the sixth, is
:func:`musegnn.evaluation.edge_prediction.graph_auc`.

Legend: n pooled rows, d dimensions, k neighbours, B datasets, C clusters, V gene keys.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from sklearn.metrics import normalized_mutual_info_score, silhouette_samples

from musegnn.vectors import in_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

Result = TypeVar("Result")
LISI_NEIGHBORS = 90
BISECTIONS = 100
BLOCK_ROWS = 1024


def of_each(work: Callable[[int], Result], n: int) -> list[Result]:
    """Return what `work` gives for 0 to n - 1, computed as by :func:`musegnn.vectors.in_threads`."""
    found: dict[int, Result] = {}
    in_threads(lambda k: found.__setitem__(k, work(k)), range(n))
    return [found[k] for k in range(n)]


def mean_of_defined(values: Sequence[float] | Floats) -> float:
    """Average the finite values; nan when none is."""
    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    return float(known.mean()) if len(known) else float("nan")


def batch_silhouette(x: NDArray[np.floating], dataset: Ints, cluster: Ints) -> float:
    """Compute ASW, from 0 (datasets lie apart within clusters) to 1 (mixed); nan when every cluster is skipped.

    Per cluster, the mean of ``1 - abs(s)`` with s the silhouette of the dataset labels (Euclidean); then the mean over
    clusters. Clusters of one dataset, and clusters where every row is its own dataset, are skipped.

    References
    ----------
    Luecken et al., Nature Methods 19 (2022), batch ASW; MuSe-GNN metric ASW.
    """
    scores = []
    for label in np.unique(cluster):
        rows = np.flatnonzero(cluster == label)
        n_datasets = len(np.unique(dataset[rows]))
        if 1 < n_datasets < len(rows):
            scores.append(float(np.mean(1 - np.abs(silhouette_samples(x[rows], dataset[rows])))))
    return float(np.mean(scores)) if scores else float("nan")


def lisi(distance: Floats, neighbor_label: Ints, *, perplexity: float) -> Floats:
    """Compute the local inverse Simpson index: the effective number of labels around each row.

    Neighbours weigh ``p_j ~ exp(-beta d_j)``, with beta such that the entropy of p is ``ln(perplexity)``; the index is
    ``1 / sum_labels (sum_{j in label} p_j)^2``.

    Parameters
    ----------
    distance, neighbor_label
        Distance to each neighbour and its label, shape (n, k); inf and -1 where there is none.
    perplexity
        Effective number of neighbours, less than k.

    Returns
    -------
    numpy.ndarray
        Between 1 and the number of labels, shape (n,). 1 for rows with fewer than k neighbours, as scib sets.

    References
    ----------
    Korsunsky et al., Nature Methods 16 (2019).
    """
    result = np.ones(len(distance))
    full = (neighbor_label >= 0).all(axis=1)
    if not full.any():
        return result
    d = distance[full] - distance[full].min(axis=1, keepdims=True)  # cancels in p, and keeps exp from underflow
    low, high = np.zeros(len(d)), np.full(len(d), np.inf)
    beta = np.ones(len(d))
    weight = np.empty_like(d)
    for _ in range(BISECTIONS):
        weight = np.exp(-d * beta[:, None])
        total = weight.sum(axis=1)
        entropy = np.log(total) + beta * (d * weight).sum(axis=1) / total
        wide = entropy > np.log(perplexity)
        low, high = np.where(wide, beta, low), np.where(wide, high, beta)
        last, beta = beta, np.where(np.isinf(high), np.minimum(beta * 2, 1e300), (low + high) / 2)
        if (beta == last).all():
            break
    weight /= weight.sum(axis=1, keepdims=True)
    label = neighbor_label[full]
    simpson = np.zeros(len(d))
    for value in np.unique(label):
        simpson += np.where(label == value, weight, 0.0).sum(axis=1) ** 2
    result[full] = 1 / simpson
    return result


def integration_lisi(distance: Floats, position: Ints, dataset: Ints) -> float:
    """Compute iLISI: the median effective number of datasets around a row, scaled to 0 (one) to 1 (all alike).

    ``(median - 1) / (B - 1)`` at a perplexity of a third of the neighbours; nan for one dataset. The neighbours decide
    the variant: those along the connectivity graph (:func:`~musegnn.evaluation.neighbor_graph.path_nearest`) give the
    published value, which takes connectivities for lengths; plain nearest neighbours give the value of the original
    LISI. `distance` and `position` of the k nearest other rows have shape (n, k), the published k is 90; -1 is no
    position.
    """
    names, label = np.unique(dataset, return_inverse=True)
    if len(names) < 2:
        return float("nan")
    neighbor_label = np.where(position >= 0, label[position], -1)
    index = lisi(distance, neighbor_label, perplexity=distance.shape[1] // 3)
    return float((np.median(index) - 1) / (len(names) - 1))


def graph_connectivity(graph: csr_matrix, cluster: Ints) -> float:
    """Compute GC: the mean share of a cluster in its largest connected part; nan without rows."""
    shares = []
    for label in np.unique(cluster):
        rows = np.flatnonzero(cluster == label)
        _, part = connected_components(graph[rows][:, rows], connection="strong")
        shares.append(np.bincount(part).max() / len(rows))
    return float(np.mean(shares)) if shares else float("nan")


def common_gene_ratio(gene: NDArray[np.str_], cluster: Ints) -> float:
    """Compute CGR: how far clusters hold the same genes of several datasets.

    ``sum_c (n_c / n) (1 - unique genes in c / n_c)``. It is largest for one giant cluster, where it reaches
    :func:`common_gene_bound`; read it with the number of clusters.
    """
    _, gene_code = np.unique(gene, return_inverse=True)
    pairs = np.unique(np.stack([cluster, gene_code], axis=1), axis=0)
    return float(1 - len(pairs) / len(gene))


def common_gene_bound(gene: NDArray[np.str_]) -> float:
    """Compute the CGR of one cluster that holds everything, which is the largest possible."""
    return 1 - len(np.unique(gene)) / len(gene)


def neighborhood_overlap(neighborhood: csr_matrix, dataset: Ints, cluster: Ints) -> float:
    """Compute NO: how similar the graph neighbourhoods are of genes that share a cluster.

    ``sum_c (n_c / n) mean J(a, b)`` over the ordered pairs of rows of c from different datasets, 0 where there is no
    such pair; J is the Jaccard index of the two sets of neighbours' gene keys (0 for two empty sets). `neighborhood`
    (n, V) stores entry (a, v) when gene key v is a neighbour of row a.
    """
    ones = np.ones(neighborhood.nnz, dtype=np.float32)  # counts of shared keys stay exact below 2^24
    sets = csr_matrix((ones, neighborhood.indices, neighborhood.indptr), shape=neighborhood.shape)
    labels = np.unique(cluster)
    parts = np.zeros(len(labels))

    def overlap(place: int) -> None:
        rows = np.flatnonzero(cluster == labels[place])
        blocks = [rows[start : start + BLOCK_ROWS] for start in range(0, len(rows), BLOCK_ROWS)]
        sums = [_summed_jaccard(sets, dataset, a, b) for a in blocks for b in blocks]
        summed, count = np.sum(sums, axis=0)
        if count:
            parts[place] = len(rows) / len(dataset) * summed / count

    in_threads(overlap, range(len(labels)))
    return float(sum(parts.tolist()))


def _summed_jaccard(sets: csr_matrix, dataset: Ints, a: Ints, b: Ints) -> tuple[float, int]:
    """Sum and count the Jaccard indices of the pairs of rows from a and from b that are of different datasets."""
    # graphs are dense enough for a dense product to win by far
    shared = (sets[a].toarray() @ sets[b].toarray().T).astype(np.float64)
    size = np.diff(sets.indptr)
    union = size[a, None] + size[None, b] - shared
    jaccard = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    different = dataset[a, None] != dataset[None, b]
    return float(jaccard[different].sum()), int(different.sum())


def label_information(label: NDArray[Any], cluster: Ints) -> float:
    """Compute the normalised mutual information of clusters and labels: 0 for one cluster, 1 for equal partitions."""
    _, code = np.unique(label, return_inverse=True)
    return float(normalized_mutual_info_score(code, cluster))
