r"""Decoders of few parameters, fitted to vectors that stay as they are.

The logit of an edge is linear in powers of the inner product, so the cross-entropy over all pairs is that of a logistic
regression, which Newton's method (iteratively reweighted least squares) minimises. Above ``MAX_ROWS`` genes, as many
rows of the graph stand for all.

Legend: N genes, d dimensions, p powers of the inner product.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.special import expit

from musegnn.model.decoder import InnerDecoder, SignedDecoder
from musegnn.random import stream

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from musegnn.graph import GraphData
    from musegnn.model.decoder import Decoder

    Floats = NDArray[np.float64]

MAX_ROWS, BLOCK = 500, 250
STEPS = 15
PENALTY = 1e-8


def fit_decoder(decoder: Decoder, z: Floats, graph: GraphData) -> None:
    """Fit an :class:`InnerDecoder` or a :class:`SignedDecoder` to a graph in place; leave other decoders as they are.

    `z` are the vectors, shape (N, d); held-out pairs do not count.
    """
    if not isinstance(decoder, InnerDecoder | SignedDecoder) or graph.edges.n_edges == 0 or not z.any():
        return
    if isinstance(decoder, SignedDecoder):
        decoder.set_coefficients(torch.from_numpy(_newton(z, graph, 2)), z.shape[1])
    else:
        decoder.set_coefficients(torch.from_numpy(_newton(z, graph, 1)))


def _newton(z: Floats, graph: GraphData, powers: int) -> Floats:
    """Return the coefficients of 1, s, .., s^p, shape (p + 1,), for s = z_i . z_j."""
    n = len(z)
    rows = np.arange(n) if n <= MAX_ROWS else np.sort(stream(0, "decoder_fit", graph.name).permutation(n)[:MAX_ROWS])
    blocks = [rows[k : k + BLOCK] for k in range(0, len(rows), BLOCK)]
    size = float(np.abs(z[rows[:BLOCK]] @ z.T).max())  # powers of s / size are of one order
    pairs = [_pairs(z, block, graph, size, powers) for block in blocks]
    beta = np.zeros(powers + 1)
    n_pairs = sum(len(target) for _, target in pairs)
    share = np.clip(sum(target.sum() for _, target in pairs) / max(n_pairs, 1), 1e-9, 1 - 1e-9)
    beta[0] = np.log(share / (1 - share))
    ridge = PENALTY * n_pairs * np.eye(powers + 1)
    before = _loss(beta, pairs, ridge)
    for _ in range(STEPS):
        gradient, hessian = ridge @ beta, ridge.copy()
        for x, target in pairs:
            p = expit(x @ beta)
            gradient += x.T @ (p - target)
            hessian += x.T @ (x * (p * (1 - p))[:, None])
        step = np.linalg.solve(hessian, gradient)
        while (after := _loss(beta - step, pairs, ridge)) > before and np.abs(step).max() > 1e-9:
            step /= 2
        beta, improved = beta - step, before - after
        before = after
        if improved <= 1e-12 * n_pairs:
            break
    scaled: Floats = beta / size ** np.arange(powers + 1)
    return scaled


def _pairs(z: Floats, rows: NDArray[np.int64], graph: GraphData, size: float, powers: int) -> tuple[Floats, Floats]:
    """Return 1, s, .., s^p and whether there is an edge, for the pairs of some genes with all others."""
    edges, n = graph.edges, len(z)
    target, counts = np.zeros((len(rows), n)), np.ones((len(rows), n), dtype=bool)
    at = np.full(n, -1)
    at[rows] = np.arange(len(rows))
    counts[at[rows], rows] = False
    ends = graph.held_out.all
    for first, second in (ends, ends[::-1]):
        here = at[first] >= 0
        counts[at[first[here]], second[here]] = False
    for r in rows.tolist():
        target[at[r], edges.indices[edges.indptr[r] : edges.indptr[r + 1]]] = 1.0
    s = (z[rows] @ z.T)[counts] / size
    return np.stack([s**k for k in range(powers + 1)], axis=1), target[counts]


def _loss(beta: Floats, pairs: list[tuple[Floats, Floats]], ridge: Floats) -> float:
    total = float(beta @ ridge @ beta) / 2
    for x, target in pairs:
        logit = x @ beta
        total += float((np.logaddexp(0.0, logit) - target * logit).sum())
    return total
