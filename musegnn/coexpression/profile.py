"""Residual profiles of genes: compressed without loss by their Gram matrix, or their leading directions.

Sums over cells are taken for groups of ranges, each by one task, and added in the order of the groups.

Legend: n cells, N genes, R columns of a profile, l columns of a sketch, W columns of ``kernels/residual_gram``.
"""

from __future__ import annotations

from operator import add
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from musegnn.coexpression.pairs import extracted_blocks
from musegnn.coexpression.tasks import load
from musegnn.kernels.gram import accumulate_dense_gram
from musegnn.kernels.residual_gram import ResidualGram
from musegnn.kernels.residuals import NoiseModel, dense_residuals
from musegnn.random import stream

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

DENSE_CELLS = (256, 512)
DENSE_NUMBERS = 1 << 22
GROUP_RANGES = 16
OVERSAMPLING = 16
SPARSE = 0.3


class GramSums(NamedTuple):
    """Products of residuals of all pairs of genes (N, N), residuals (N,), and the number of cells; float64."""

    gram: NDArray[np.float64]
    total: NDArray[np.float64]
    n_cells: int


class SparseGramSums(NamedTuple):
    """Sums (N, W) and (N,) of :class:`~musegnn.kernels.residual_gram.ResidualGram`, and the number of cells."""

    cross: NDArray[np.float64]
    total: NDArray[np.float64]
    n_cells: int


class SketchSums(NamedTuple):
    """Product (N, l) of the Gram matrix with a sketch, that of the sketched cells (l, l), residuals, and cells."""

    product: NDArray[np.float64]
    inner: NDArray[np.float64]
    total: NDArray[np.float64]
    n_cells: int


class Sketch(NamedTuple):
    """Directions among the genes, shape (N, l), float64."""

    directions: NDArray[np.float64]


Sums = TypeVar("Sums", GramSums, SparseGramSums, SketchSums)


def _residuals(model: NoiseModel, extracted: Sequence[Path]) -> Iterator[NDArray[np.float64]]:
    """Compute clipped residuals of all genes, shape (b, N), a few cells at a time."""
    fewest, most = DENSE_CELLS
    rows = max(fewest, min(most, DENSE_NUMBERS // max(len(model.rate), 1)))
    for block, depth in extracted_blocks(extracted, len(model.rate)):
        for start in range(0, len(depth), rows):
            part = slice(start, start + rows)
            yield dense_residuals(block[part], depth[part], model)


def gram_group(model: Path, extracted: Sequence[Path]) -> GramSums:
    """Sum the products of the residuals of all pairs of genes over some ranges of cells."""
    noise = load(model, NoiseModel)
    n_genes = len(noise.rate)
    gram, total, n_cells = np.zeros((n_genes, n_genes)), np.zeros(n_genes), 0
    for rows in _residuals(noise, extracted):
        accumulate_dense_gram(rows, gram)
        total += rows.sum(axis=0)
        n_cells += len(rows)
    return GramSums(gram, total, n_cells)


def sparse_gram_group(model: Path, extracted: Sequence[Path]) -> SparseGramSums:
    """Sum over some ranges what the products need of the counts above zero."""
    noise = load(model, NoiseModel)
    sums, n_cells = ResidualGram(noise), 0
    for block, depth in extracted_blocks(extracted, len(noise.rate)):
        sums.add(block, depth)
        n_cells += len(depth)
    return SparseGramSums(sums.cross, sums.total, n_cells)


def prefers_sparse(detected: NDArray[np.int64], n_levels: int, n_cells: int) -> bool:
    """Return whether the Gram matrix costs less from counts above zero and the histogram of depths than from all cells.

    Genes are detected in `detected` of the `n_cells`, shape (N,), which have `n_levels` distinct depths.
    """
    return 2 * n_levels <= n_cells and float(detected.mean()) <= SPARSE * n_cells


def sketch_group(model: Path, extracted: Sequence[Path], sketch: Path) -> SketchSums:
    """Multiply the Gram matrix of the residuals of some ranges with a sketch, without making it."""
    omega = load(sketch, Sketch).directions
    product, inner = np.zeros(omega.shape), np.zeros((omega.shape[1],) * 2)
    total, n_cells = np.zeros(len(omega)), 0
    for rows in _residuals(load(model, NoiseModel), extracted):
        cells = rows @ omega
        product += rows.T @ cells
        inner += cells.T @ cells
        total += rows.sum(axis=0)
        n_cells += len(rows)
    return SketchSums(product, inner, total, n_cells)


def add_groups(paths: Sequence[Path], kind: type[Sums]) -> Sums:
    """Add the sums of several groups, in their order."""
    sums = load(paths[0], kind)
    for path in paths[1:]:
        sums = kind(*map(add, sums, load(path, kind)))
    return sums


def gram_profile(paths: Sequence[Path]) -> NDArray[np.float32]:
    """Return the lossless compressed profile, shape (N, R), from the files of :func:`gram_group`."""
    return _compress_centred(*add_groups(paths, GramSums))


def sparse_gram_profile(paths: Sequence[Path], model: Path, depth: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the same from the files of :func:`sparse_gram_group` and the depths of all cells, shape (n,)."""
    sums = add_groups(paths, SparseGramSums)
    whole = ResidualGram(load(model, NoiseModel))
    whole.cross, whole.total = sums.cross, sums.total
    return _compress_centred(*whole.values(depth), sums.n_cells)


def _compress_centred(gram: NDArray[np.float64], total: NDArray[np.float64], n_cells: int) -> NDArray[np.float32]:
    mean = total / n_cells
    return compress(gram - n_cells * np.outer(mean, mean))


def first_sketch(n_genes: int, rank: int, seed: int) -> Sketch:
    """Draw the directions that a randomised profile starts from, standard normal."""
    columns = min(n_genes, rank + OVERSAMPLING)
    return Sketch(stream(seed, "profile_sketch").standard_normal((n_genes, columns)))


def second_sketch(sketch: Path, paths: Sequence[Path]) -> Sketch:
    """Return an orthonormal basis of the range found from the files of :func:`sketch_group`."""
    sums = add_groups(paths, SketchSums)
    omega = load(sketch, Sketch).directions
    basis, _ = np.linalg.qr(sums.product - np.outer(sums.total, sums.total @ omega) / sums.n_cells)
    return Sketch(basis)


def randomized_profile(basis: Path, paths: Sequence[Path], rank: int) -> NDArray[np.float32]:
    """Return the leading directions of the profile within the basis, shape (N, rank).

    Randomised range finding with one product by the Gram matrix, then the exact compression within that range (Halko,
    Martinsson and Tropp 2011, SIAM Rev. 53:217, algorithms 4.1 and 5.3).
    """
    sums = add_groups(paths, SketchSums)
    directions = load(basis, Sketch).directions
    shift = directions.T @ sums.total
    small = _columns(sums.inner - np.outer(shift, shift) / sums.n_cells)
    return _with_signs(directions @ small[:, :rank])


def compress(gram: NDArray[np.float64]) -> NDArray[np.float32]:
    """Find few columns with the same inner products as N profiles: ``result @ result.T`` is `gram`, to rounding.

    So any linear map of the whole profile is one of the result, ``U sqrt(lambda)`` with descending eigenvalues; those
    lost in rounding are left out. The entry of largest magnitude in each column is positive. Shape (N, R), R <= N.

    Raises
    ------
    ValueError
        When `gram` is not square or not finite.

    Examples
    --------
    >>> compress(np.array([[4.0, 0.0], [0.0, 1.0]])).tolist()
    [[2.0, 0.0], [0.0, 1.0]]
    """
    if gram.ndim != 2 or gram.shape[0] != gram.shape[1] or not np.isfinite(gram).all():
        msg = f"gram must be square and finite, got shape {gram.shape}"
        raise ValueError(msg)
    return _with_signs(_columns(gram))


def _columns(gram: NDArray[np.float64]) -> NDArray[np.float64]:
    values, vectors = np.linalg.eigh(0.5 * (gram + gram.T))
    values, vectors = values[::-1], vectors[:, ::-1]
    kept = values > len(gram) * np.finfo(np.float64).eps * max(float(values[0]), 0.0) if len(values) else values > 0.0
    columns: NDArray[np.float64] = vectors[:, kept] * np.sqrt(values[kept])
    return columns


def _with_signs(columns: NDArray[np.float64]) -> NDArray[np.float32]:
    largest = np.abs(columns).argmax(axis=0)
    signs = np.sign(columns[largest, np.arange(columns.shape[1])])
    result: NDArray[np.float32] = (columns * signs).astype(np.float32)
    return result
