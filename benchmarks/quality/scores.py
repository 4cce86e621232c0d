"""Score vectors, or any similarity of genes, on one split of one group of datasets.

Scores are taken on what no model saw in training: held-out genes, held-out edges, and for gene sets the genes of a
fold. A result is flat: one number per measure, plus the scores of single gene sets, which tests need.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.quality.vectors import edge_means

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from musegnn.evaluation.retrieval import PairRetrieval, Similarity
    from musegnn.graph import GraphData

    Spaces = Mapping[str, NDArray[np.floating]]
    Sets = Mapping[str, Sequence[str]]

RESOLUTIONS = (0.5, 1.0, 2.0)
SIX = ("asw", "auc", "ilisi", "gc", "cgr", "no")


@dataclass(frozen=True, slots=True)
class Result:
    """Measures of one model.

    Attributes
    ----------
    measures
        Numbers by measure; measures that the model does not have, or that are undefined, are absent.
    by_set
        By ``within`` and ``transfer``, the AUROC of each gene set.
    """

    measures: dict[str, float] = field(default_factory=dict)
    by_set: dict[str, dict[str, float]] = field(default_factory=dict)

    def add(self, measures: Mapping[str, float]) -> None:
        """Add the measures that are defined."""
        self.measures.update({name: float(value) for name, value in measures.items() if math.isfinite(value)})


class Scorer:
    """Scores models on one split.

    Parameters
    ----------
    graphs
        The datasets.
    sets
        Gene sets by name; empty where their file is not here.
    modules
        Co-expression modules by dataset and name.
    six
        Whether to compute the published six as well, which takes longer than all the rest.

    Attributes
    ----------
    reference
        Retrieval of the model that others are tested against, by ``pair`` and ``joint``, see :meth:`keep_as_reference`.
    """

    def __init__(
        self, graphs: Sequence[GraphData], *, sets: Sets, modules: Mapping[str, dict[str, list[str]]], six: bool
    ) -> None:
        self.reference: dict[str, list[PairRetrieval]] = {}
        self._latest: dict[str, list[PairRetrieval]] = {}
        self._graphs, self._sets, self._modules, self._six = graphs, sets, modules, six

    def keep_as_reference(self) -> None:
        """Take the model that was scored last as the reference that later models are tested against."""
        self.reference = self._latest

    def space(
        self,
        vectors: Spaces,
        *,
        raw: bool = False,
        whole: bool = True,
        sets: bool = True,
        edges_of: Sequence[GraphData] | None = None,
    ) -> Result:
        """Score vectors that lie in one space.

        Parameters
        ----------
        vectors
            By dataset name, each shape (N, d).
        raw
            For thousands of columns: without gene sets, modules and effective rank, which would take minutes.
        whole
            Score clusters, conservation and modules as well, which take most of the time.
        sets
            Score gene sets as well.
        edges_of
            The datasets whose held-out edges the vectors did not see, where these are not those of the scorer.
        """
        from musegnn.evaluation.baselines.candidates import vector_candidate
        from musegnn.evaluation.edge_prediction import pair_cosine
        from musegnn.evaluation.joint import conservation, mixing, retrieve_jointly
        from musegnn.evaluation.modules import module_scores
        from musegnn.vectors import effective_rank

        result = self.similarity(vector_candidate("", vectors).similarity)
        self._retrieved(result, "joint", retrieve_jointly(self._graphs, vectors))
        mixed = mixing(self._graphs, vectors)
        result.add(
            {"mixing" if name == "overall" else f"mixing_{name}": mixed[name] for name in mixed if name != "tissues"}
        )
        result.add({f"mixing {tissue}": value for tissue, value in mixed["tissues"].items()})
        edges = edge_means(edges_of or self._graphs, lambda name: pair_cosine(vectors[name]))
        result.add({f"edges_{which}": value for which, value in edges.items()})
        if sets and not raw:
            self.function(vectors, result)
        if not whole:
            return result
        for kind, found in conservation(self._graphs, vectors).items():
            result.add({_of_kind("conservation", kind): found["specificity"]})
        result.add(self._clusters(vectors))
        if not raw:
            result.add({"rank": effective_rank(np.concatenate([vectors[graph.name] for graph in self._graphs]))})
            if self._modules:
                result.add({"modules": module_scores(self._graphs, vectors, self._modules).mean})
        return result

    def similarity(self, similarity: Similarity) -> Result:
        """Score a similarity of the genes of two datasets, without vectors."""
        from musegnn.evaluation.retrieval import retrieve_all

        result = Result()
        self._latest = {}
        pairs = retrieve_all(self._graphs, similarity)
        self._retrieved(result, "pair", pairs)
        for pair in pairs:
            if len(pair.held_out.key):
                over = float(np.mean(pair.held_out.reciprocal_rank)) / pair.held_out.chance_mrr
                result.add({f"pair_over_chance {pair.first} {pair.second}": over})
        return result

    def function(self, vectors: Spaces, result: Result) -> None:
        """Add the prediction of gene sets within datasets and from the other datasets to a result."""
        from musegnn.evaluation.gene_sets import function_scores, transfer_scores

        if self._sets:
            for name, score in (("within", function_scores), ("transfer", transfer_scores)):
                found = score(self._graphs, vectors, self._sets)
                result.by_set[name] = found.by_set
                result.add({name: found.mean})

    def _retrieved(self, result: Result, name: str, pairs: list[PairRetrieval]) -> None:
        """Add MRR and its ratio to chance, by kind of pair, and the test against the reference."""
        from musegnn.evaluation.compare import compare_retrieval
        from musegnn.evaluation.retrieval import summarize_pairs

        for kind, found in summarize_pairs(pairs).items():
            if found["n_pairs"]:
                over = found["mrr"] / found["chance_mrr"]
                result.add({_of_kind(f"{name}_mrr", kind): found["mrr"], _of_kind(f"{name}_over_chance", kind): over})
        self._latest[name] = pairs
        if name in self.reference:
            compared = compare_retrieval(self.reference[name], pairs)
            if compared is not None:
                result.add({f"{name}_p": compared.p_value})

    def _clusters(self, vectors: Spaces) -> dict[str, float]:
        """Return what Leiden clusters follow, and where asked the published six; empty without igraph."""
        from musegnn.evaluation.joint import islands

        if self._six:
            from musegnn.evaluation.published_metrics import published_metrics

            found = published_metrics(self._graphs, vectors, resolutions=RESOLUTIONS, seed=0)
            return islands(found) | _published_six(found)
        return islands({"resolutions": self._cluster_labels(vectors)})

    def _cluster_labels(self, vectors: Spaces) -> list[dict[str, float]]:
        """Return the part of ``published_metrics`` that islands are made of."""
        from musegnn.evaluation.metrics import label_information
        from musegnn.evaluation.neighbor_graph import connectivities, has_leiden, leiden

        if not has_leiden():
            return []
        graph = connectivities(np.concatenate([np.asarray(vectors[t.name], dtype=np.float64) for t in self._graphs]))
        gene = np.concatenate([graph.keys for graph in self._graphs])
        dataset = np.repeat(np.arange(len(self._graphs)), [graph.n_genes for graph in self._graphs])
        rows = []
        for resolution in RESOLUTIONS:
            cluster = leiden(graph, resolution=resolution, seed=0)
            rows.append(
                {
                    "n_clusters": len(np.unique(cluster)),
                    "dataset_nmi": label_information(dataset, cluster),
                    "identity_nmi": label_information(gene, cluster),
                }
            )
        return rows


def _of_kind(measure: str, kind: str) -> str:
    return measure if kind == "overall" else f"{measure}_{kind}"


def _published_six(found: Mapping[str, Any]) -> dict[str, float]:  # JSON
    """Return the published six, of genes that two datasets have at least; means over resolutions."""
    from musegnn.evaluation.metrics import mean_of_defined

    rows = found["resolutions"]
    values = {"auc": found["auc"], "ilisi": found["subsets"]["shared"]["ilisi"]}
    values |= {name: mean_of_defined([row["shared"][name] for row in rows]) for name in ("asw", "gc")}
    values |= {name: mean_of_defined([row[name] for row in rows]) for name in ("cgr", "no")}
    return {f"six_{name}": values[name] for name in SIX}
