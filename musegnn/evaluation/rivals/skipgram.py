"""Skip-gram rivals: genes as words, with Word2Vec of gensim.

*Gene2vec*: every positive edge is a sentence of two genes (Du et al., BMC Genomics 20, 2019: window 1). *node2vec*:
sentences are random walks over the positive edges of one dataset (Grover and Leskovec, KDD 2016, with p = q = 1).
*layered node2vec*: walks over all datasets at once, which pass from a gene to the same gene of another dataset now and
then; genes that are held out cannot be passed through. It stands for the family of OhmNet and GIANT, which tie the
layers of a multi-layer network by a penalty instead of by steps.

Legend: N genes, d dimensions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numba
import numpy as np

from musegnn.errors import MissingDependencyError
from musegnn.evaluation.rivals.graphs import PositiveGraph, layered_graph, positive_graph
from musegnn.random import stream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from musegnn.training.data import GraphData

    Floats = NDArray[np.float64]

WALKS, LENGTH, WINDOW, EPOCHS, NEGATIVE = 10, 40, 5, 2, 5
PAIR_EPOCHS = 20
PAIRS = 200_000
PASS = 0.2


def gene2vec(graph: GraphData, *, dim: int, seed: int) -> Floats:
    """Embed the genes of one dataset by skip-gram on co-expressed pairs, shape (N, d).

    Parameters
    ----------
    graph
        The dataset.
    dim, seed
        d; and the seed of vectors and negative samples.
    """
    edges = positive_graph(graph)
    pairs = np.column_stack([edges.rows, edges.indices])
    order = stream(seed, "gene2vec", graph.name).permutation(len(pairs))[:PAIRS]
    return _skip_gram(pairs[order], graph.n_genes, dim=dim, seed=seed, window=1, epochs=PAIR_EPOCHS)


def node2vec(graph: GraphData, *, dim: int, seed: int) -> Floats:
    """Embed the genes of one dataset by skip-gram on random walks, shape (N, d).

    Parameters
    ----------
    graph
        The dataset.
    dim, seed
        d; and the seed of walks, vectors and negative samples.
    """
    edges = positive_graph(graph)
    nobody = PositiveGraph(np.zeros(graph.n_genes + 1, dtype=np.int64), np.zeros(0, dtype=np.int64))
    walks = _walks(edges, nobody, seed=seed)
    return _skip_gram(walks, graph.n_genes, dim=dim, seed=seed, window=WINDOW, epochs=EPOCHS)


def layered_node2vec(graphs: Sequence[GraphData], *, dim: int, seed: int) -> dict[str, Floats]:
    """Embed the genes of all datasets in one space by skip-gram on walks that pass between datasets.

    Parameters
    ----------
    graphs
        The datasets.
    dim, seed
        d; and the seed of walks, vectors and negative samples.

    Returns
    -------
    dict
        By dataset name, shape (N, d).
    """
    edges, copies = layered_graph(graphs)
    walks = _walks(edges, copies, seed=seed)
    vectors = _skip_gram(walks, len(edges.indptr) - 1, dim=dim, seed=seed, window=WINDOW, epochs=EPOCHS)
    parts = np.split(vectors, np.cumsum([graph.n_genes for graph in graphs])[:-1])
    return {graph.name: part for graph, part in zip(graphs, parts, strict=True)}


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
    """Train Word2Vec; a gene in no sentence gets the zero vector."""
    try:
        from gensim.models import Word2Vec
    except ImportError:
        msg = "gensim is not installed, which trains the skip-gram rivals"
        raise MissingDependencyError(msg, code="E403", fix="pip install 'musegnn[baselines]'") from None

    words = [[str(word) for word in sentence if word >= 0] for sentence in sentences.tolist()]
    model = Word2Vec(
        words,
        vector_size=dim,
        window=window,
        min_count=1,
        sg=1,
        negative=NEGATIVE,
        sample=0,
        epochs=epochs,
        seed=seed,
        workers=1,
    )
    vectors = np.zeros((n, dim))
    for word, row in model.wv.key_to_index.items():
        vectors[int(word)] = model.wv.vectors[row]
    return vectors
