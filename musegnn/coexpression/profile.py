"""Residual profiles of genes: whole, compressed without loss by their Gram matrix, or their leading directions.

Sums over cells are taken for groups of shards, each by one task, and added in the order of the groups.

Legend: n cells, N genes, R columns of a compressed profile, l columns of a sketch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from musegnn.coexpression.pairs import extracted_blocks
from musegnn.coexpression.residuals import pearson_residuals
from musegnn.coexpression.sctransform import SCTModel
from musegnn.coexpression.tasks import load
from musegnn.kernels.gram import accumulate_dense_gram
from musegnn.kernels.residual_gram import ResidualGram
from musegnn.random import stream

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from musegnn.coexpression.tasks import Arrays

DENSE_CELLS = (256, 512)
DENSE_NUMBERS = 1 << 22
GROUP_SHARDS = 16
OVERSAMPLING = 16
SPARSE = 0.3


def model_arrays(model: SCTModel, clip: float) -> Arrays:
    """Return a model and the bound on its residuals as plain arrays, for a file that tasks read."""
    scalars = np.array([model.min_variance, model.n_cells, clip], dtype=np.float64)
    return {"intercept": model.intercept, "theta": model.theta, "scalars": scalars}


def read_model(path: Path) -> SCTModel:
    """Read the model from a file of :func:`model_arrays`."""
    about = load(path)
    min_variance, n_cells, _ = about["scalars"].tolist()
    return SCTModel(intercept=about["intercept"], theta=about["theta"], min_variance=min_variance, n_cells=int(n_cells))


def _clip(model: Path) -> float:
    return float(load(model)["scalars"][2])


def _residuals(model: Path, extracted: Sequence[Path]) -> Iterator[NDArray[np.float64]]:
    """Compute clipped residuals of all genes, shape (b, N), a few cells at a time."""
    fitted, clip = read_model(model), _clip(model)
    fewest, most = DENSE_CELLS
    rows = max(fewest, min(most, DENSE_NUMBERS // max(fitted.n_genes, 1)))
    for block, depth in extracted_blocks(extracted, fitted.n_genes):
        for start in range(0, len(depth), rows):
            part = slice(start, start + rows)
            yield pearson_residuals(block[part], depth[part], fitted, clip=clip)


def gram_group(model: Path, extracted: Sequence[Path]) -> Arrays:
    """Sum the products of the residuals of all pairs of genes over some shards.

    Returns
    -------
    dict
        ``gram`` (N, N), ``total`` (N,) and the number of ``cells``, float64.
    """
    gram = total = None
    n_cells = 0
    for rows in _residuals(model, extracted):
        if gram is None:
            gram, total = np.zeros((rows.shape[1],) * 2), np.zeros(rows.shape[1])
        accumulate_dense_gram(rows, gram)
        total += rows.sum(axis=0)
        n_cells += len(rows)
    n_genes = len(load(model)["theta"])
    return {
        "gram": np.zeros((n_genes, n_genes)) if gram is None else gram,
        "total": np.zeros(n_genes) if total is None else total,
        "cells": np.array(float(n_cells)),
    }


def sparse_gram_group(model: Path, extracted: Sequence[Path]) -> Arrays:
    """Sum over some shards what :class:`~musegnn.kernels.residual_gram.ResidualGram` needs of the counts above zero.

    Returns
    -------
    dict
        ``cross`` (N, W), ``total`` (N,) and the number of ``cells``, float64.
    """
    fitted, clip = read_model(model), _clip(model)
    sums = ResidualGram(fitted.noise(clip))
    n_cells = 0
    for block, depth in extracted_blocks(extracted, fitted.n_genes):
        sums.add(block, depth)
        n_cells += len(depth)
    return {"cross": sums.cross, "total": sums.total, "cells": np.array(float(n_cells))}


def prefers_sparse(detected: NDArray[np.int64], n_levels: int, n_cells: int) -> bool:
    """Return whether the Gram matrix costs less from counts above zero and the histogram of depths than from all cells.

    Parameters
    ----------
    detected
        Cells in which each of the N genes is detected, shape (N,).
    n_levels
        Number of distinct depths U.
    n_cells
        Number of cells n.
    """
    return 2 * n_levels <= n_cells and float(detected.mean()) <= SPARSE * n_cells


def full_group(model: Path, extracted: Sequence[Path]) -> Arrays:
    """Keep the residuals of some shards themselves, ``values`` (N, b), float32: for small data."""
    parts = [rows.T.astype(np.float32) for rows in _residuals(model, extracted)]
    empty = np.zeros((len(load(model)["theta"]), 0), np.float32)
    return {"values": np.concatenate([empty, *parts], axis=1)}


def sketch_group(model: Path, extracted: Sequence[Path], sketch: Path) -> Arrays:
    """Multiply the Gram matrix of the residuals of some shards with ``sketch`` (N, l), without making it.

    Returns
    -------
    dict
        ``product`` (N, l), ``inner`` (l, l) of the sketched cells, ``total`` (N,) and the number of ``cells``.
    """
    omega = load(sketch)["sketch"]
    product, inner = np.zeros(omega.shape), np.zeros((omega.shape[1],) * 2)
    total, n_cells = np.zeros(len(omega)), 0
    for rows in _residuals(model, extracted):
        cells = rows @ omega
        product += rows.T @ cells
        inner += cells.T @ cells
        total += rows.sum(axis=0)
        n_cells += len(rows)
    return {"product": product, "inner": inner, "total": total, "cells": np.array(float(n_cells))}


def add_groups(paths: Sequence[Path]) -> Arrays:
    """Add the arrays of several groups, name by name, in their order."""
    first, *others = paths
    sums = load(first)
    for path in others:
        for name, values in load(path).items():
            sums[name] = sums[name] + values
    return sums


def gram_profile(paths: Sequence[Path]) -> NDArray[np.float32]:
    """Return the lossless compressed profile, shape (N, R), from the files of :func:`gram_group`."""
    sums = add_groups(paths)
    return _compress_centred(sums["gram"], sums["total"], float(sums["cells"]))


def sparse_gram_profile(paths: Sequence[Path], model: Path, depth: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the same from the files of :func:`sparse_gram_group` and the depths of all cells, shape (n,)."""
    sums = add_groups(paths)
    whole = ResidualGram(read_model(model).noise(_clip(model)))
    whole.cross, whole.total = sums["cross"], sums["total"]
    return _compress_centred(*whole.values(depth), float(sums["cells"]))


def _compress_centred(gram: NDArray[np.float64], total: NDArray[np.float64], n_cells: float) -> NDArray[np.float32]:
    mean = total / n_cells
    return compress(gram - n_cells * np.outer(mean, mean))


def full_profile(paths: Sequence[Path]) -> NDArray[np.float32]:
    """Return the centred residuals, shape (N, n), from the files of :func:`full_group`."""
    values = np.concatenate([load(path)["values"] for path in paths], axis=1)
    mean = values.mean(axis=1, dtype=np.float64, keepdims=True)
    centred: NDArray[np.float32] = (values - mean).astype(np.float32)
    return centred


def first_sketch(n_genes: int, rank: int, seed: int) -> Arrays:
    """Draw the directions that a randomised profile starts from, shape (N, l), standard normal."""
    columns = min(n_genes, rank + OVERSAMPLING)
    return {"sketch": stream(seed, "profile_sketch").standard_normal((n_genes, columns))}


def second_sketch(sketch: Path, paths: Sequence[Path]) -> Arrays:
    """Return an orthonormal basis of the range found from the files of :func:`sketch_group`."""
    sums = add_groups(paths)
    omega = load(sketch)["sketch"]
    basis, _ = np.linalg.qr(sums["product"] - np.outer(sums["total"], sums["total"] @ omega) / sums["cells"])
    return {"sketch": basis}


def randomized_profile(basis: Path, paths: Sequence[Path], rank: int) -> NDArray[np.float32]:
    """Return the leading directions of the profile within the basis, shape (N, rank).

    Randomised range finding with one product by the Gram matrix, then the exact compression within that range (Halko,
    Martinsson and Tropp 2011, SIAM Rev. 53:217, algorithms 4.1 and 5.3).
    """
    sums = add_groups(paths)
    directions = load(basis)["sketch"]
    shift = directions.T @ sums["total"]
    small = _columns(sums["inner"] - np.outer(shift, shift) / sums["cells"])
    return _with_signs(directions @ small[:, :rank])


def compress(gram: NDArray[np.float64]) -> NDArray[np.float32]:
    """Find few columns with the same inner products.

    Parameters
    ----------
    gram
        Inner products of N profiles, symmetric, positive semidefinite up to rounding, shape (N, N).

    Returns
    -------
    numpy.ndarray
        ``U sqrt(lambda)`` with descending eigenvalues, those lost in rounding left out; the entry of largest
        magnitude in each column is positive. Shape (N, R), R <= N, float32. ``result @ result.T`` is `gram`, so
        any linear map of the whole profile is one of the result.

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
