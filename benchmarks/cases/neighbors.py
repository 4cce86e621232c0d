"""What a list of nearest genes should be ranked by: cosine, or one of the corrections of :mod:`musegnn.vectors`.

For our vectors and for aligned PCA, on hold-outs that had no part in the choice (evaluation seeds 0, 3, 4, 5): joint
MRR of held-out genes; mixing among the ten nearest rows; and the share of the ten nearest genes that have a biological
process in common with the gene (GO, experimental evidence, 5 to 60 genes of the group), other copies of it left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from benchmarks.quality import groups
from benchmarks.quality.vectors import make_model
from benchmarks.registry import Check, Measurement

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from musegnn.graph import GraphData
    from musegnn.vectors import Similarity

    Vectors = Mapping[str, NDArray[np.floating]]

SPLITS, QUICK_SPLITS = (0, 3, 4, 5), (0,)
RANKINGS: tuple[Similarity, ...] = ("cosine", "balanced", "csls")
LISTED = 10
SET_SIZES = (5, 60)


def similarity(unit: NDArray[np.float64], group: NDArray[np.int64], by: Similarity) -> NDArray[np.float64]:
    """Return the similarity of all rows that a list is ranked by, shape (n, n)."""
    from musegnn.vectors import neighborhood_similarity, scale_locally, typical_similarity

    cosine = unit @ unit.T
    if by == "balanced":
        return cosine - typical_similarity(unit, group)[group][:, group]
    if by == "csls":
        return scale_locally(cosine, neighborhood_similarity(unit, group), group, np.arange(len(unit)))
    return cosine


def related(keys: NDArray[np.str_], sets: Mapping[str, Collection[str]]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which rows have a gene of any set, shape (n,), and which two rows have one in common, shape (n, n)."""
    names, code = np.unique(keys, return_inverse=True)
    members = [np.flatnonzero(np.isin(names, list(genes))) for genes in sets.values()]
    members = [rows for rows in members if SET_SIZES[0] <= len(rows) <= SET_SIZES[1]]
    rows = np.concatenate([np.zeros(0, np.int64), *members])
    columns = np.repeat(np.arange(len(members)), [len(m) for m in members])
    table = csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(len(names), len(members)))
    share = (table @ table.T).toarray() > 0
    known = np.diff(table.indptr) > 0
    return known[code], share[np.ix_(code, code)]


def score(
    graphs: Sequence[GraphData], vectors: Vectors, sets: Mapping[str, Collection[str]], by: Similarity
) -> dict[str, float]:
    """Return the measures of one ranking."""
    from musegnn.evaluation.joint import retrieve_jointly
    from musegnn.evaluation.retrieval import summarize_pairs
    from musegnn.vectors import unit_rows

    joint = summarize_pairs(retrieve_jointly(graphs, vectors, by=by))["overall"]["mrr"]
    keys = np.concatenate([t.keys for t in graphs])
    group = np.repeat(np.arange(len(graphs)), [t.n_genes for t in graphs])
    ranked = similarity(unit_rows(np.concatenate([vectors[t.name] for t in graphs])), group, by)
    np.fill_diagonal(ranked, -np.inf)
    nearest = np.argsort(-ranked, axis=1, kind="stable")[:, :LISTED]
    other = (group[nearest] != group[:, None]).mean(axis=1)
    expected = 1 - (np.bincount(group)[group] - 1) / (len(group) - 1)
    known, share = related(keys, sets)
    ranked[keys[:, None] == keys] = -np.inf
    ranked[:, ~known] = -np.inf
    nearest = np.argsort(-ranked[known], axis=1, kind="stable")[:, :LISTED]
    found = np.take_along_axis(share[known], nearest, axis=1).mean() if known.any() else np.nan
    return {"joint_mrr": joint, "mixing": float((other / expected).mean()), "related": float(found)}


class NeighborLists:
    """Rankings of nearest genes."""

    name = "neighbors"

    def gate(self, *, quick: bool) -> Iterator[Check]:
        """Check that a correction takes out an offset of each dataset."""
        random = np.random.default_rng(0)
        latent, group = random.normal(size=(50, 24)), np.repeat([0, 1], 50)
        x = np.concatenate([np.concatenate([latent, latent]), 5 * np.eye(2)[group]], axis=1)
        unit = x / np.linalg.norm(x, axis=1, keepdims=True)
        for by in RANKINGS[1:]:
            ranked = similarity(unit, group, by)
            np.fill_diagonal(ranked, -np.inf)
            found = float((ranked.argmax(axis=1) == (np.arange(100) + 50) % 100).mean())
            yield Check(claim=f"{by} finds copies in datasets that lie apart", holds=found > 0.9, got=f"{found:.2f}")

    def measure(self, *, quick: bool) -> Iterator[Measurement]:
        """Rank by each similarity on every group and hold-out."""
        from musegnn.evaluation.baselines.alignment import pca_vectors
        from musegnn.evaluation.baselines.candidates import PCA_DIMS, best_alignment
        from musegnn.evaluation.gene_sets import read_gmt

        path = groups.gene_sets()
        for name in groups.present()[-1:] if quick else groups.present():
            found: dict[tuple[str, str], list[dict[str, float]]] = {}
            store = groups.store(name)
            with threadpool_limits(1):
                for split in QUICK_SPLITS if quick else SPLITS:
                    model = make_model({}, name, split, 0, store).train()
                    graphs = model.graphs
                    sets = {} if path is None else model.gene_sets(read_gmt(path))
                    components = {t.name: pca_vectors(model.records[t.name].profile, max(PCA_DIMS)) for t in graphs}
                    spaces = {
                        "musegnn": model.vectors(),
                        "aligned PCA": best_alignment(graphs, components, PCA_DIMS)[1],
                    }
                    for space, vectors in spaces.items():
                        for by in RANKINGS:
                            found.setdefault((space, by), []).append(score(graphs, vectors, sets, by))
            for (space, by), rows in found.items():
                for measure in rows[0]:
                    yield Measurement(
                        shape=f"{name} {space} {by}",
                        metric=measure,
                        value=float(np.mean([row[measure] for row in rows])),
                        unit=f"splits {', '.join(f'{row[measure]:.4g}' for row in rows)}",
                        baseline="" if by == "cosine" else "cosine",
                        baseline_value=None
                        if by == "cosine"
                        else float(np.mean([row[measure] for row in found[space, "cosine"]])),
                        larger_is_better=True,
                    )


CASE = NeighborLists()
