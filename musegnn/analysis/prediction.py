"""Which genes belong to a gene set by their vectors: cross-validated scores, AUROC and calibrated probabilities.

Ridge regression of membership on the vectors, five folds over genes; the score of a gene comes from the folds that it
is not in. A logistic curve of the scores, fitted on the other folds, turns scores into probabilities.

Legend: K genes, d dimensions, S sets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import rankdata

from musegnn.errors import InputError
from musegnn.random import stream

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from anndata import AnnData
    from numpy.typing import NDArray

    from musegnn.progress import Progress

    Floats = NDArray[np.float64]

FOLDS = 5
MIN_SET = 10
RIDGE = 0.1
"""Strength of the ridge, in units of the mean eigenvalue of the covariance of the vectors."""
BINS = 10


class Prediction(NamedTuple):
    """Result of :func:`predict`.

    Attributes
    ----------
    sets
        One row per set, best first: ``set``, ``n`` (members among the genes), ``auroc``, ``auroc_sd`` (over folds),
        ``brier`` and ``brier_base`` (mean squared error of the probabilities, and of the share of members as the
        probability of every gene), ``calibration_error`` (mean distance of predicted and observed shares over ten bins
        of probability).
    genes
        One row per set and gene, likeliest first within a set: ``set``, ``gene``, ``gene_key``, ``member``, ``score``
        and ``probability``.
    """

    sets: pd.DataFrame
    genes: pd.DataFrame


def predict(
    vectors: AnnData,
    sets: Mapping[str, Collection[str]],
    *,
    seed: int = 0,
    min_set: int = MIN_SET,
    progress: Progress | None = None,
) -> Prediction:
    """Score every gene for every set of enough genes, by genes that the score did not see.

    Parameters
    ----------
    vectors
        One row per gene, with ``gene`` and ``gene_key`` in ``obs`` (:func:`musegnn.analysis.consensus.consensus`).
    sets
        Gene keys of each set.
    seed
        Seed of the folds.
    min_set
        Smallest number of members, and of genes that are none, that a set must have.

    Raises
    ------
    InputError
        E279 when no set has enough genes.
    """
    key = vectors.obs["gene_key"].to_numpy(dtype=str)
    member = {name: np.isin(key, list(genes)) for name, genes in sets.items()}
    member = {name: is_in for name, is_in in member.items() if min_set <= is_in.sum() <= len(key) - min_set}
    if not member:
        msg = f"no set has {min_set} of the {len(key)} genes"
        raise InputError(msg, code="E279", where="predict", fix="give sets with names of this species, or larger ones")
    fold = stream(seed, "predict_folds").permutation(np.arange(len(key)) % FOLDS)
    truth = np.stack(list(member.values()), axis=1)
    scores = _ridge_scores(np.asarray(vectors.X, dtype=np.float64), truth.astype(np.float64), fold)
    summaries, parts = [], []
    for s, name in enumerate(member):
        probability = _probabilities(scores[:, s], truth[:, s], fold)
        summaries.append({"set": name, **_quality(scores[:, s], probability, truth[:, s], fold)})
        order = np.lexsort((key, -probability))
        columns = {"gene": vectors.obs["gene"].to_numpy(dtype=str), "gene_key": key, "member": truth[:, s]}
        part = pd.DataFrame(columns | {"score": scores[:, s], "probability": probability}).iloc[order]
        part.insert(0, "set", name)
        parts.append(part)
        if progress is not None:
            progress("predict", s + 1, len(member), name)
    table = pd.DataFrame(summaries).sort_values(["auroc", "set"], ascending=[False, True], ignore_index=True)
    return Prediction(table, pd.concat(parts, ignore_index=True))


def _ridge_scores(x: Floats, y: Floats, fold: NDArray[np.intp]) -> Floats:
    """Return the score of each gene for each set by the genes of the other folds, (K, S)."""
    scores = np.empty_like(y)
    for k in range(FOLDS):
        train, test = fold != k, fold == k
        centre, level = x[train].mean(axis=0), y[train].mean(axis=0)
        z = x[train] - centre
        gram = z.T @ z
        ridge = RIDGE * np.trace(gram) / len(gram)
        weights = np.linalg.solve(gram + ridge * np.eye(len(gram)), z.T @ (y[train] - level))
        scores[test] = (x[test] - centre) @ weights + level
    return scores


def _probabilities(score: Floats, truth: NDArray[np.bool_], fold: NDArray[np.intp]) -> Floats:
    """Return probabilities from logistic curves of the scores of the other folds."""
    probability = np.empty_like(score)
    for k in range(FOLDS):
        train, test = fold != k, fold == k
        slope, offset = _logistic(score[train], truth[train])
        probability[test] = expit(slope * score[test] + offset)
    return probability


def _logistic(score: Floats, truth: NDArray[np.bool_]) -> tuple[float, float]:
    """Fit slope and offset with the targets of Platt, which keep them finite where scores separate members."""
    n_in, n_out = int(truth.sum()), int((~truth).sum())
    target = np.where(truth, (n_in + 1.0) / (n_in + 2.0), 1.0 / (n_out + 2.0))
    centre, scale = score.mean(), score.std() or 1.0
    x = (score - centre) / scale

    def loss(parameters: Floats) -> tuple[float, Floats]:
        linear = parameters[0] * x + parameters[1]
        error = expit(linear) - target
        value = np.logaddexp(0.0, linear) - target * linear
        return float(value.sum()), np.array([(error * x).sum(), error.sum()])

    start = np.array([0.0, np.log((n_in + 1.0) / (n_out + 1.0))])
    slope, offset = minimize(loss, start, jac=True, method="BFGS").x
    return float(slope / scale), float(offset - slope * centre / scale)


def _quality(score: Floats, probability: Floats, truth: NDArray[np.bool_], fold: NDArray[np.intp]) -> dict[str, float]:
    by_fold = [_auroc(score[fold == k], truth[fold == k]) for k in range(FOLDS)]
    base = truth.mean()
    order = np.argsort(probability, kind="stable")
    bins = np.array_split(order, min(BINS, len(order)))
    error = sum(len(b) * abs(probability[b].mean() - truth[b].mean()) for b in bins) / len(order)
    return {
        "n": int(truth.sum()),
        "auroc": float(np.nanmean(by_fold)),
        "auroc_sd": float(np.nanstd(by_fold, ddof=1)),
        "brier": float(np.mean((probability - truth) ** 2)),
        "brier_base": float(base * (1.0 - base)),
        "calibration_error": float(error),
    }


def _auroc(score: Floats, truth: NDArray[np.bool_]) -> float:
    n_in, n_out = int(truth.sum()), int((~truth).sum())
    if n_in == 0 or n_out == 0:
        return float("nan")
    return float((rankdata(score)[truth].sum() - n_in * (n_in + 1) / 2) / (n_in * n_out))
