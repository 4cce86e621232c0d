"""Measures of one joint space: whether a gene lies beside its copies in other datasets.

All work on the pooled rows of all datasets and compare them by cosine, retrieval also by corrected cosines.
Similarities closer than ``TIE`` are equal, and equal ones count as if broken at random, so that rounding decides
nothing.

Legend: n pooled rows, T datasets, V genes, d dimensions, k neighbours.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import rankdata

from musegnn.evaluation.dataset_pairs import PAIR_GROUPS, pair_group, shared_genes
from musegnn.evaluation.metrics import mean_of_defined
from musegnn.evaluation.retrieval import pair_retrieval
from musegnn.evaluation.sample import sampling_error
from musegnn.ranking import TOP_K, chance_level, count_at_least, expected_scores
from musegnn.vectors import (
    Similarity,
    in_threads,
    neighborhood_similarity,
    scale_locally,
    typical_similarity,
    unit_rows,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from musegnn.evaluation.retrieval import PairRetrieval
    from musegnn.graph import GraphData

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

MIXING_NEIGHBORS = 30
CONSERVED_NEIGHBORS = 10
BLOCK_ROWS, BLOCK_ENTRIES = 512, 1 << 23
TIE = 1e-12


def retrieve_jointly(
    graphs: Sequence[GraphData],
    vectors: Mapping[str, NDArray[np.floating]],
    *,
    by: Similarity = "cosine",
    k: int = TOP_K,
    queries: NDArray[np.bool_] | None = None,
) -> list[PairRetrieval]:
    """Retrieve the copy of a gene in another dataset among the rows of all datasets.

    A query is the row of a gene in one dataset, its target the row of the same gene in another. Candidates are the
    target and all rows of other genes, those of the query's own dataset included; further copies of the gene are
    neither right nor wrong and are left out. A space where each dataset keeps to itself scores low.

    Parameters
    ----------
    vectors
        One space: vectors by dataset name, each shape (N, d).
    by
        Ranking of candidates: ``cosine``, or a correction of :mod:`musegnn.vectors`: ``balanced``, ``csls``.
    k
        Number of places that count as found.
    queries
        Pooled rows that are queries, shape (n,); ``None``: all.

    Returns
    -------
    list of PairRetrieval
        As of :func:`musegnn.evaluation.retrieval.retrieve_all`, with the chance levels of these candidates.
    """
    unit, dataset = _pool(graphs, vectors)
    n, starts = len(unit), np.searchsorted(dataset, np.arange(len(graphs)))
    _, gene, copies = np.unique(np.concatenate([t.keys for t in graphs]), return_inverse=True, return_counts=True)
    row_of = np.full((len(copies), len(graphs)), -1)  # of a gene in a dataset
    row_of[gene, dataset] = np.arange(n)
    asked = copies[gene] > 1 if queries is None else (copies[gene] > 1) & queries
    place = np.cumsum(asked) - 1
    scores = np.full((2, int(asked.sum()) + 1, len(graphs)), np.nan)  # of a query, for the target in a dataset
    place[~asked] = -1
    typical = typical_similarity(unit, dataset) if by == "balanced" else None
    near = neighborhood_similarity(unit, dataset) if by == "csls" else None
    chosen = np.flatnonzero(asked)
    step = _block_rows(n)

    def score(start: int) -> None:
        rows = chosen[start : start + step]
        similarity = unit[rows] @ unit.T
        if typical is not None:
            similarity -= typical[dataset[rows]][:, dataset]
        if near is not None:
            similarity = scale_locally(similarity, near, dataset, rows)
        targets = row_of[gene[rows]]
        query, where = np.nonzero(targets >= 0)
        own = similarity[query, targets[query, where]]
        similarity[query, targets[query, where]] = -np.inf
        bounds = np.stack([np.nextafter(own + TIE, np.inf), own - TIE], axis=1)
        above, not_below = count_at_least(similarity, np.repeat(query, 2), bounds.ravel()).reshape(-1, 2).T
        equal = not_below - above
        scores[:, place[rows[query]], where] = expected_scores(above, equal + 1, k=k)

    in_threads(score, range(0, len(chosen), step))
    chance = np.array([chance_level(n - c + 1, k=k) for c in range(len(graphs) + 1)])
    table = row_of[np.unique(gene[asked])]  # in the order of the keys
    found = []
    for i, j in combinations(range(len(graphs)), 2):
        rows_a, rows_b = table[(table[:, i] >= 0) & (table[:, j] >= 0)][:, [i, j]].T
        some = asked[rows_a] | asked[rows_b]
        rows_a, rows_b = rows_a[some], rows_b[some]
        forward, backward = scores[:, place[rows_a], j], scores[:, place[rows_b], i]
        genes, levels = (rows_a - starts[i], rows_b - starts[j]), chance[copies[gene[rows_a]]]
        both_ways = (forward[0], forward[1]), (backward[0], backward[1])
        found.append(pair_retrieval(graphs[i], graphs[j], genes, *both_ways, levels))
    return found


def joint_error(pairs: Sequence[PairRetrieval]) -> float:
    """Return the standard error of the overall held-out MRR over pairs of which some queries were drawn at random.

    The mean over pairs is a weighted mean over genes, which are the unit, since the copies of a gene depend on one
    another. As if they had been drawn from very many, the error is an upper bound.
    """
    scored = [p.held_out for p in pairs if len(p.held_out.key)]
    if not scored:
        return float("nan")
    weight = np.concatenate([np.full(len(s.key), 1 / len(s.key)) for s in scored])
    _, code = np.unique(np.concatenate([s.key for s in scored]), return_inverse=True)
    mass = np.bincount(code, weight).astype(np.float64)
    value = np.bincount(code, weight * np.concatenate([s.reciprocal_rank for s in scored])) / mass
    return sampling_error(value, np.inf, mass)


def mixing(
    graphs: Sequence[GraphData],
    vectors: Mapping[str, NDArray[np.floating]],
    *,
    k: int = MIXING_NEIGHBORS,
    rows: NDArray[np.bool_] | None = None,
) -> dict[str, Any]:  # JSON
    """Compute how many of the nearest rows are of other datasets, relative to a mixed space.

    For a row of dataset a with n_a of the n rows: the share of its k nearest other rows that are not of a, over
    ``(n - n_a) / (n - 1)``, which is the exact expectation when the n - 1 other rows are in random order. Then the mean
    over rows. 1 is a mixed space, 0 one where datasets lie apart; more than 1 means that rows avoid their own dataset.

    Parameters
    ----------
    rows
        Pooled rows that are averaged over, shape (n,), bool; ``None``: all.

    Returns
    -------
    dict
        ``overall`` and ``error``, its standard error, 0 over all rows; ``tissues``: for each tissue of at least two
        datasets, the same among the rows of that tissue alone; ``within_tissue``: its mean over the rows of all these
        tissues; ``across_modality`` and ``across_species``: the share of neighbours of another modality or species,
        over its expectation. nan where there is nothing to mix.
    """
    dataset = np.repeat(np.arange(len(graphs)), [t.n_genes for t in graphs])
    chosen = np.ones(len(dataset), dtype=np.bool_) if rows is None else rows
    counts = _neighbor_counts(graphs, vectors, k, chosen)
    tissues: dict[str, Floats] = {}
    for tissue in sorted({t.tissue for t in graphs}):
        inside = [t for t in graphs if t.tissue == tissue]
        within = np.array([t.tissue == tissue for t in graphs])[dataset]
        if len(inside) > 1:
            names = [t.name for t in inside]
            tissues[tissue] = _over_expectation(inside, _neighbor_counts(inside, vectors, k, chosen[within]), names)
    overall = _over_expectation(graphs, counts, [t.name for t in graphs])
    return {
        "overall": mean_of_defined(overall),
        "error": sampling_error(overall[np.isfinite(overall)], len(dataset)),
        "within_tissue": mean_of_defined(np.concatenate([np.empty(0), *tissues.values()])),
        "tissues": {tissue: mean_of_defined(values) for tissue, values in tissues.items()},
        "across_modality": mean_of_defined(_over_expectation(graphs, counts, [t.modality for t in graphs])),
        "across_species": mean_of_defined(_over_expectation(graphs, counts, [t.species for t in graphs])),
    }


def conservation(
    graphs: Sequence[GraphData],
    vectors: Mapping[str, NDArray[np.floating]],
    *,
    k: int = CONSERVED_NEIGHBORS,
    pairs: Iterable[tuple[int, int]] | None = None,
) -> dict[str, dict[str, float]]:
    """Compute how far a gene has the same neighbours in two datasets.

    For a held-out gene g that datasets a and b share: its k nearest genes in a, among the genes that b has as well. In
    b, each gene h ranks the copies of all shared genes but itself by their cosine with h; the AUROC of the copies of
    the k genes in this ranking is the score of h. A pair is scored in both directions, over all its held-out genes.
    No similarity between datasets takes part. `pairs` of datasets are compared; ``None``: all.

    Returns
    -------
    dict
        From ``overall`` and each group of pairs to ``auroc``, the score of the copy of g; ``specificity``, the share of
        the other genes of b whose score is lower, equal scores counting one half, so that 0.5 is chance; its standard
        ``error``, 0 over all pairs; ``n_pairs`` and ``n_queries``. Means over pairs; nan without pairs. Pairs that
        share fewer than k + 2 genes are left out.

    References
    ----------
    Crow, Suresh, Lee and Gillis, Nucleic Acids Research 50 (2022), conservation of co-expression.
    """
    unit = {t.name: unit_rows(vectors[t.name]) for t in graphs}
    everything = list(combinations(range(len(graphs)), 2))
    compared = everything if pairs is None else list(pairs)
    scores: list[tuple[str, NDArray[np.float64], int] | None] = [None] * len(compared)

    def score(start: int) -> None:
        a, b = (graphs[k] for k in compared[start])
        in_a, in_b = shared_genes(a, b)
        asked = np.flatnonzero(~(a.trainable[in_a] & b.trainable[in_b]))
        if len(asked) and len(in_a) >= k + 2:
            forward = _conserved(unit[a.name][in_a], unit[b.name], in_b, asked, k)
            backward = _conserved(unit[b.name][in_b], unit[a.name], in_a, asked, k)
            scores[start] = pair_group(a, b), (forward + backward) / 2, len(asked)

    in_threads(score, range(len(compared)))
    found = [one for one in scores if one is not None]
    result = {}
    for group in ("overall", *PAIR_GROUPS):
        chosen = [(values, n) for name, values, n in found if group in ("overall", name)]
        auroc, specificity = np.mean([v for v, _ in chosen], axis=0) if chosen else (np.nan, np.nan)
        result[group] = {
            "auroc": float(auroc),
            "specificity": float(specificity),
            "error": sampling_error(
                np.array([v[1] for v, _ in chosen]), len(chosen) * len(everything) / max(len(compared), 1)
            ),
            "n_pairs": len(chosen),
            "n_queries": sum(n for _, n in chosen),
        }
    return result


def islands(published: Mapping[str, Any]) -> dict[str, float]:
    """Average the mutual information of Leiden clusters with datasets and genes over resolutions; nan without clusters.

    ``dataset_nmi``, with datasets, is low where datasets meet; ``identity_nmi``, with genes, is high where the copies
    of a gene meet. `published` is the result of :func:`musegnn.evaluation.published_metrics.published_metrics`.
    """
    names = ("dataset_nmi", "identity_nmi", "n_clusters")
    return {name: mean_of_defined([row[name] for row in published["resolutions"]]) for name in names}


def _conserved(here: Floats, there: Floats, copy: Ints, asked: Ints, k: int) -> Floats:
    """Return mean AUROC and mean specificity of the queried of S shared genes.

    Unit rows of the shared genes in one dataset (S, d), of all N genes of the other, and the copies among these (S,).
    """
    cosine = here[asked] @ here.T
    cosine[np.arange(len(asked)), asked] = -np.inf
    nearest = np.zeros(cosine.shape)  # 1 for the k nearest
    np.put_along_axis(nearest, np.argpartition(cosine, -k, axis=1)[:, -k:], 1.0, axis=1)
    score = np.empty((len(asked), len(there)))
    place = np.full(len(there), -1)
    place[copy] = np.arange(len(copy))
    for rows in _blocks(np.arange(len(there))):
        cosine = there[rows] @ there[copy].T
        itself = place[rows, None] == np.arange(len(copy))
        cosine[itself] = -np.inf
        shared = itself.any(axis=1)
        rank = rankdata(cosine, axis=1) - shared[:, None]  # from 1; that of the gene itself is 0
        total, size = nearest @ rank.T, k - nearest @ itself.T
        score[:, rows] = (total - size * (size + 1) / 2) / (size * (len(copy) - shared - size))
    true = score[np.arange(len(asked)), copy[asked], None]
    below, equal = score < true - TIE, np.abs(score - true) <= TIE
    place_of_true = (below.sum(axis=1) + (equal.sum(axis=1) - 1) / 2) / (len(there) - 1)
    return np.array([true.mean(), place_of_true.mean()])


def _pool(graphs: Sequence[GraphData], vectors: Mapping[str, NDArray[np.floating]]) -> tuple[Floats, Ints]:
    """Return unit rows (n, d) of all datasets and the index of the dataset of each."""
    dataset = np.repeat(np.arange(len(graphs)), [t.n_genes for t in graphs])
    return unit_rows(np.concatenate([vectors[t.name] for t in graphs])), dataset


def _block_rows(n: int) -> int:
    return max(1, min(BLOCK_ROWS, BLOCK_ENTRIES // max(n, 1)))


def _blocks(rows: Ints) -> Iterator[Ints]:
    return (rows[start : start + BLOCK_ROWS] for start in range(0, len(rows), BLOCK_ROWS))


def _neighbor_counts(
    graphs: Sequence[GraphData], vectors: Mapping[str, NDArray[np.floating]], k: int, chosen: NDArray[np.bool_]
) -> Floats:
    """Return how many of the k nearest other rows of each row are in each dataset, expected over ties: (n, T).

    nan in rows that are not chosen.
    """
    unit, dataset = _pool(graphs, vectors)
    k = min(k, len(unit) - 1)
    counts = np.zeros((len(unit), len(graphs)))
    counts[~chosen] = np.nan
    wanted = np.flatnonzero(chosen) if k > 0 else np.arange(0)
    step = _block_rows(len(unit))

    def count(start: int) -> None:
        rows = wanted[start : start + step]
        cosine = unit[rows] @ unit.T
        cosine[np.arange(len(rows)), rows] = -np.inf
        last = np.partition(cosine, -k, axis=1)[:, -k]
        query, found = np.nonzero(cosine >= last[:, None] - TIE)
        above = cosine[query, found] > last[query] + TIE
        size = np.bincount(query, minlength=len(rows))
        n_above = np.bincount(query[above], minlength=len(rows))
        weight = np.where(above, 1.0, ((k - n_above) / np.maximum(size - n_above, 1))[query])
        np.add.at(counts, (rows[query], dataset[found]), weight)

    in_threads(count, range(0, len(wanted), step))
    return counts


def _over_expectation(graphs: Sequence[GraphData], counts: Floats, label: Sequence[str]) -> Floats:
    """Return the share of neighbours in datasets of another label over its expectation, (n,); nan without others."""
    sizes = np.array([t.n_genes for t in graphs])
    other = np.array([[one != two for two in label] for one in label])
    expected = np.repeat(other @ sizes / max(sizes.sum() - 1, 1), sizes)
    share = (counts * np.repeat(other, sizes, axis=0)).sum(axis=1) / np.maximum(counts.sum(axis=1), 1.0)
    result = np.full(len(counts), np.nan)
    np.divide(share, expected, out=result, where=expected > 0)
    return result
