"""Prediction of edges from vectors: the area under the ROC curve (AUROC) of edges against non-edges.

Legend: N genes, d dimensions, K pairs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import rankdata

from musegnn.vectors import unit_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from musegnn.graph import GraphData, HeldOutPairs

    Floats = NDArray[np.float64]
    PairScore = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.floating]]


def auroc(positive: NDArray[np.floating], negative: NDArray[np.floating]) -> float:
    """Compute the probability that a positive scores above a negative, ties counting one half; nan without pairs."""
    k, m = len(positive), len(negative)
    if k == 0 or m == 0:
        return float("nan")
    ranks = rankdata(np.concatenate([positive, negative]))
    return float((ranks[:k].sum() - k * (k + 1) / 2) / (k * m))


def pair_cosine(vectors: NDArray[np.floating]) -> PairScore:
    """Return the function from rows and columns, each (K,), to the cosines of their vectors, (K,) float64."""
    unit = unit_rows(vectors)

    def score(rows: NDArray[np.int64], cols: NDArray[np.int64]) -> Floats:
        result: Floats = np.einsum("kd,kd->k", unit[rows], unit[cols])
        return result

    return score


def held_out_auc(score: PairScore, pairs: HeldOutPairs) -> dict[str, float]:
    """Compute the AUROC of held-out edges against held-out non-edges.

    Returns
    -------
    dict
        AUROC of ``all`` edges, of ``positive`` and of ``negative`` edges alone, each against all non-edges. Under a
        signed score such as the cosine, negative edges that are well placed lie *below* 0.5. nan where there are none.
    """
    rows = np.concatenate([pairs.rows, pairs.negative_rows])  # one call, as a decoder may encode the dataset for each
    cols = np.concatenate([pairs.columns, pairs.negative_columns])
    edge, other = np.split(np.asarray(score(rows, cols), dtype=np.float64), [len(pairs.rows)])
    return {
        "all": auroc(edge, other),
        "positive": auroc(edge[pairs.sign > 0], other),
        "negative": auroc(edge[pairs.sign < 0], other),
    }


def degree_auc(graph: GraphData) -> dict[str, float]:
    """Compute :func:`held_out_auc` of degrees in the training graph: near 0.5 where non-edges match edges in degree.

    The score of a pair is ``ln(1 + degree_i) + ln(1 + degree_j)``.
    """
    weight = np.log1p(np.diff(graph.edges.indptr).astype(np.float64))
    return held_out_auc(lambda rows, cols: weight[rows] + weight[cols], graph.held_out)


def graph_auc(vectors: NDArray[np.floating], indptr: NDArray[np.int64], indices: NDArray[np.int32]) -> float:
    """Compute the AUROC of the cosine over all N (N - 1) / 2 pairs of genes of one dataset, edges of training included.

    nan for an empty or a complete graph. This is the metric AUC of MuSe-GNN (Liu et al., 2023) without self-loops; the
    sigmoid of the cosine, which is used there, is monotone.
    """
    unit = unit_rows(vectors)
    n = len(unit)
    adjacent = np.zeros((n, n), dtype=bool)
    adjacent[np.repeat(np.arange(n), np.diff(indptr)), indices] = True
    upper = np.triu_indices(n, k=1)
    cosine = (unit @ unit.T)[upper]
    edge = adjacent[upper]
    return auroc(cosine[edge], cosine[~edge])
