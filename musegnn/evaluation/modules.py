"""Co-expression modules of one dataset as labels for the vectors of another.

Modules are found as WGCNA does: soft threshold, topological overlap, average linkage, and a cut of the tree. The
genes of a module then make a gene set, which vectors of *other* datasets have to predict for genes that the
predictor has not seen. A space in which datasets correspond carries the modules of one over to the next.

Legend: N genes of a dataset, d dimensions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.cluster.hierarchy import average, fcluster
from scipy.sparse import csr_matrix
from scipy.spatial.distance import squareform

from musegnn.evaluation.gene_sets import FunctionScores, function_scores

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from musegnn.graph import GraphData

    Floats = NDArray[np.float64]

POWER = 6
MIN_SIZE = 20
CUTS = 50
MAX_GENES = 5000


def coexpression_modules(estimates: csr_matrix, *, power: int = POWER, min_size: int = MIN_SIZE) -> NDArray[np.int64]:
    """Return the module of each gene, (N,) int64, numbered from 0 by falling size; -1 for genes in no module.

    The tree is cut at one height: among those with the largest number of modules, the height h with the largest ``(1 -
    h)`` times the number of genes in modules; this is not WGCNA's dynamic cut.

    Parameters
    ----------
    estimates
        Co-expression estimates, symmetric, shape (N, N), between -1 and 1. Of more than ``MAX_GENES`` genes only the
        most connected are sorted into modules, as their overlaps are a dense matrix.
    power
        Exponent of the soft threshold; negative estimates count as 0 ("signed hybrid").
    min_size
        Smallest number of genes of a module.

    References
    ----------
    Zhang and Horvath, "A general framework for weighted gene co-expression network analysis", Statistical Applications
    in Genetics and Molecular Biology 4 (2005), section 2 and equation 4.
    """
    label = np.full(estimates.shape[0], -1, dtype=np.int64)
    strength = np.clip(estimates.data, 0.0, 1.0) ** power
    soft = csr_matrix((strength, estimates.indices, estimates.indptr), estimates.shape)
    degree = np.asarray(soft.sum(axis=1)).ravel() - soft.diagonal()
    linked = np.sort(np.argsort(-degree, kind="stable")[: min(MAX_GENES, np.count_nonzero(degree))])
    if len(linked) < min_size:
        return label
    adjacency = soft[linked][:, linked].toarray()
    np.fill_diagonal(adjacency, 0.0)
    distance = np.maximum(1.0 - topological_overlap(adjacency), 0.0)  # an overlap of 1 may round to more
    np.fill_diagonal(distance, 0.0)
    tree = average(squareform(distance, checks=False))
    best, best_merit = label[linked], (0, 0.0)
    for height in np.unique(np.quantile(tree[:, 2], np.linspace(0.0, 1.0, CUTS))):
        cluster = fcluster(tree, height, criterion="distance") - 1
        size = np.bincount(cluster)
        large = size >= min_size
        merit = (int(large.sum()), float((1.0 - height) * size[large].sum()))
        if merit > best_merit:
            number = np.full(len(size), -1)
            number[np.argsort(-size, kind="stable")[: merit[0]]] = np.arange(merit[0])
            best, best_merit = number[cluster], merit
    label[linked] = best
    return label


def topological_overlap(adjacency: Floats) -> Floats:
    """Compute the topological overlap of genes, (N, N).

    ``(sum_u a_iu a_uj + a_ij) / (min(k_i, k_j) + 1 - a_ij)`` with ``k_i = sum_u a_iu``, 1 on the diagonal, for a
    symmetric `adjacency` a between 0 and 1 with diagonal 0.
    """
    degree = adjacency.sum(axis=1)
    overlap = (adjacency @ adjacency + adjacency) / (np.minimum.outer(degree, degree) + 1.0 - adjacency)
    np.fill_diagonal(overlap, 1.0)
    symmetric: Floats = (overlap + overlap.T) / 2  # a product of matrices is symmetric up to rounding
    return symmetric


def module_sets(graphs: Sequence[GraphData], estimates: Mapping[str, csr_matrix]) -> dict[str, dict[str, list[str]]]:
    """Return the modules of every dataset as gene sets: gene keys by dataset and name of the module."""
    sets: dict[str, dict[str, list[str]]] = {}
    for graph in graphs:
        label = coexpression_modules(estimates[graph.name])
        sets[graph.name] = {
            f"{graph.name} {k}": graph.keys[label == k].tolist() for k in range(int(label.max(initial=-1)) + 1)
        }
    return sets


def module_scores(
    graphs: Sequence[GraphData],
    vectors: Mapping[str, NDArray[np.floating]],
    modules: Mapping[str, Mapping[str, list[str]]],
    *,
    seed: int = 0,
    permute: bool = False,
) -> FunctionScores:
    """Score how well the vectors of a dataset predict the modules of the other datasets, by dataset and module.

    `modules` is the result of :func:`module_sets`; the other parameters are those of
    :func:`musegnn.evaluation.gene_sets.function_scores`.
    """
    found: dict[tuple[str, str], float] = {}
    for graph in graphs:
        others = {name: genes for where, sets in modules.items() if where != graph.name for name, genes in sets.items()}
        found |= function_scores([graph], vectors, others, seed=seed, permute=permute).auroc
    return FunctionScores(found)


def module_document(
    graphs: Sequence[GraphData],
    spaces: Mapping[str, Mapping[str, NDArray[np.floating]]],
    modules: Mapping[str, Mapping[str, list[str]]],
    *,
    seed: int,
) -> dict[str, Any]:  # JSON
    """Score models by the modules of other datasets.

    Returns
    -------
    dict
        ``n_modules`` by dataset; and per model ``auroc`` and ``permuted`` (the control).
    """
    return {
        "n_modules": {name: len(sets) for name, sets in modules.items()},
        "models": {
            name: {
                "auroc": module_scores(graphs, vectors, modules, seed=seed).mean,
                "permuted": module_scores(graphs, vectors, modules, seed=seed, permute=True).mean,
            }
            for name, vectors in spaces.items()
        },
    }
