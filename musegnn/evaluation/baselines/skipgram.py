"""Skip-gram baselines: genes as tokens, with Word2Vec of gensim.

*Gene2vec*: every positive edge is a sentence of two genes (Du et al., BMC Genomics 20, 2019: window 1). *node2vec*:
sentences are random walks over the positive edges of one dataset (Grover and Leskovec, KDD 2016, with p = q = 1).
*layered node2vec*: walks over all datasets at once, which pass from a gene to the same gene of another dataset now
and then; genes that are held out cannot be passed through. *hierarchical node2vec*: walks within datasets, and a
penalty that draws the vector of a gene in a dataset to that of its parent in a tree of datasets, tissues and the
whole (Zitnik and Leskovec, "Predicting multicellular function through multi-layer tissue networks", Bioinformatics
33, 2017, as in GIANT); genes that are held out have no parent.

Legend: N genes, d dimensions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba
import numpy as np

from musegnn.errors import MissingDependencyError
from musegnn.evaluation.baselines.graphs import PositiveGraph, layered_graph, positive_graph
from musegnn.random import stream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from musegnn.graph import GraphData

    Floats = NDArray[np.float64]

WALKS, LENGTH, WINDOW, EPOCHS, NEGATIVE = 10, 40, 5, 2, 5
PAIR_EPOCHS = 20
PENALTY_EPOCHS, PULL, SWEEPS = 8, 1.0, 5
RATE = 0.025
PAIRS = 200_000
PASS = 0.2


def gene2vec(graph: GraphData, *, dim: int, seed: int) -> Floats:
    """Embed the genes of one dataset by skip-gram on co-expressed pairs, (N, d)."""
    edges = positive_graph(graph)
    pairs = np.column_stack([edges.rows, edges.indices])
    order = stream(seed, "gene2vec", graph.name).permutation(len(pairs))[:PAIRS]
    return _skip_gram(pairs[order], graph.n_genes, dim=dim, seed=seed, window=1, epochs=PAIR_EPOCHS)


def node2vec(graph: GraphData, *, dim: int, seed: int) -> Floats:
    """Embed the genes of one dataset by skip-gram on random walks, (N, d)."""
    walks = _walks(positive_graph(graph), _nobody(graph.n_genes), seed=seed)
    return _skip_gram(walks, graph.n_genes, dim=dim, seed=seed, window=WINDOW, epochs=EPOCHS)


def layered_node2vec(graphs: Sequence[GraphData], *, dim: int, seed: int) -> dict[str, Floats]:
    """Embed the genes of all datasets in one space by skip-gram on walks that pass between datasets: (N, d) by name."""
    edges, copies = layered_graph(graphs)
    walks = _walks(edges, copies, seed=seed)
    vectors = _skip_gram(walks, len(edges.indptr) - 1, dim=dim, seed=seed, window=WINDOW, epochs=EPOCHS)
    parts = np.split(vectors, np.cumsum([graph.n_genes for graph in graphs])[:-1])
    return {graph.name: part for graph, part in zip(graphs, parts, strict=True)}


def hierarchical_node2vec(graphs: Sequence[GraphData], *, dim: int, seed: int) -> dict[str, Floats]:
    """Embed the genes of all datasets by skip-gram on walks, with a penalty between a gene's vectors: (N, d) by name.

    Epochs of skip-gram alternate with the proximal step of the penalty: parents become the mean of their children and
    their own parent, then ``f = (f + mu f_parent) / (1 + mu)`` in every dataset. All copies of a gene that is not held
    out start from the same vector. Datasets of one tissue have one parent, and all tissues have the root.
    """
    models = []
    for graph in graphs:
        model = _word2vec(dim=dim, seed=seed, window=WINDOW)
        walks = _words(_walks(positive_graph(graph), _nobody(graph.n_genes), seed=seed))
        model.build_vocab(walks)
        place = np.array([int(word) for word in model.wv.index_to_key], dtype=np.int64)
        for row, gene in enumerate(place.tolist()):
            copy = "" if graph.trainable[gene] else graph.name
            draws = stream(seed, "hierarchical_node2vec", str(graph.keys[gene]), copy)
            model.wv.vectors[row] = draws.uniform(-0.5 / dim, 0.5 / dim, dim)
        models.append((graph, model, walks, place))
    rates = np.linspace(RATE, RATE / 100, PENALTY_EPOCHS + 1)
    for epoch in range(PENALTY_EPOCHS):
        for _, model, walks, _ in models:
            model.train(
                walks,
                total_examples=len(walks),
                epochs=1,
                start_alpha=float(rates[epoch]),
                end_alpha=float(rates[epoch + 1]),
            )
        tied = [(g.tissue, g.keys[place], model.wv.vectors, g.trainable[place]) for g, model, _, place in models]
        draw_together(tied)
    return {graph.name: _gene_vectors(model, graph.n_genes) for graph, model, _, _ in models}


def draw_together(leaves: Sequence[tuple[str, NDArray[np.str_], NDArray[np.float32], NDArray[np.bool_]]]) -> None:
    """Move the vectors of each gene towards its parent's, in place.

    `leaves` holds, per dataset, the name of its parent; keys of n genes; their vectors, (n, d), which change; and which
    of them have a parent.
    """
    keys = np.unique(np.concatenate([key[tied] for _, key, _, tied in leaves]))
    parents = sorted({parent for parent, *_ in leaves})
    dim = leaves[0][2].shape[1]
    total, count = np.zeros((len(parents), len(keys), dim)), np.zeros((len(parents), len(keys), 1))
    rows = [np.searchsorted(keys, key[tied]) for _, key, _, tied in leaves]
    for (parent, _, vectors, tied), row in zip(leaves, rows, strict=True):
        total[parents.index(parent), row] += vectors[tied]
        count[parents.index(parent), row] += 1.0
    known = count > 0
    middle = np.divide(total, count, out=np.zeros_like(total), where=known)
    for _ in range(SWEEPS):
        root = middle.sum(axis=0) / np.maximum(known.sum(axis=0), 1)
        middle = np.where(known, (total + root) / (count + 1.0), 0.0)
    for (parent, _, vectors, tied), row in zip(leaves, rows, strict=True):
        vectors[tied] = (vectors[tied] + PULL * middle[parents.index(parent), row]) / (1.0 + PULL)


def _nobody(n: int) -> PositiveGraph:
    return PositiveGraph(np.zeros(n + 1, dtype=np.int64), np.zeros(0, dtype=np.int64))


def _walks(edges: PositiveGraph, copies: PositiveGraph, *, seed: int) -> NDArray[np.int64]:
    n = len(edges.indptr) - 1
    random = stream(seed, "walks")
    starts = np.concatenate([random.permutation(n) for _ in range(WALKS)])
    draws = random.random((len(starts), LENGTH, 2), dtype=np.float32)
    walks: NDArray[np.int64] = _walk(edges.indptr, edges.indices, copies.indptr, copies.indices, starts, draws, PASS)
    return walks


@numba.njit(cache=True)
def _walk(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int64],
    copy_ptr: NDArray[np.int64],
    copies: NDArray[np.int64],
    starts: NDArray[np.int64],
    draws: NDArray[np.float32],
    share: float,
) -> NDArray[np.int64]:
    """Walk from each start; a step goes to a copy with probability `share` where there is one; -1 past a dead end."""
    walks = np.full((len(starts), draws.shape[1]), -1, dtype=np.int64)
    for k in range(len(starts)):
        here = starts[k]
        walks[k, 0] = here
        for step in range(1, draws.shape[1]):
            first, size = indptr[here], indptr[here + 1] - indptr[here]
            n_copies = copy_ptr[here + 1] - copy_ptr[here]
            if n_copies > 0 and (draws[k, step, 0] < share or size == 0):
                here = copies[copy_ptr[here] + int(draws[k, step, 1] * n_copies)]
            elif size > 0:
                here = indices[first + int(draws[k, step, 1] * size)]
            else:
                break
            walks[k, step] = here
    return walks


def _skip_gram(sentences: NDArray[np.int64], n: int, *, dim: int, seed: int, window: int, epochs: int) -> Floats:
    model = _word2vec(dim=dim, seed=seed, window=window)
    words = _words(sentences)
    model.build_vocab(words)
    model.train(words, total_examples=len(words), epochs=epochs)
    return _gene_vectors(model, n)


def _words(sentences: NDArray[np.int64]) -> list[list[str]]:
    return [[str(word) for word in sentence if word >= 0] for sentence in sentences.tolist()]


def _word2vec(*, dim: int, seed: int, window: int) -> Any:  # a class of gensim, which has no types
    try:
        from gensim.models import Word2Vec
    except ImportError:
        msg = "gensim is not installed, which trains the skip-gram baselines"
        raise MissingDependencyError(msg, code="E430", fix="pip install 'musegnn[baselines]'") from None

    return Word2Vec(
        vector_size=dim, window=window, min_count=1, sg=1, negative=NEGATIVE, sample=0, seed=seed, workers=1
    )


def _gene_vectors(model: Any, n: int) -> Floats:  # as above
    """Return the vectors by gene, (N, d); a gene in no sentence gets the zero vector."""
    vectors = np.zeros((n, model.vector_size))
    for word, row in model.wv.key_to_index.items():
        vectors[int(word)] = model.wv.vectors[row]
    return vectors
