"""Prediction of gene sets from vectors, for genes that the predictor has not seen.

For every dataset and every gene set of enough of its genes, a ridge regression on the vectors is trained on four
fifths of the genes and ranks the rest. Five folds score every gene once; the AUROC of a set compares its members
with other genes. Folds follow gene keys, so that a gene is in the same fold of every dataset. The strength of the
ridge is chosen by leave-one-out error within the training genes, per set.

*Transfer* trains the ridge on the rows of all other datasets instead, still on the genes of the other folds: no
copy of a predicted gene is a training row.

Legend: N genes of a dataset, d dimensions, S gene sets.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.stats import rankdata, wilcoxon

from musegnn.errors import InputError
from musegnn.random import stream
from musegnn.text import one_line, read_text

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from musegnn.graph import GraphData

FOLDS = 5
MIN_GENES = 10
MAX_SHARE = 0.3
IDENTIFIER = re.compile(r"[A-Za-z-]+[:_]?\d+")
SIZE_BEHIND = re.compile(r"\s*\(\d+\)$")
ALPHAS = (1.0, 10.0, 100.0, 1000.0, 10000.0)


@dataclass(frozen=True, slots=True)
class FunctionScores:
    """AUROC of gene sets, by dataset and set."""

    auroc: Mapping[tuple[str, str], float]

    @property
    def by_set(self) -> dict[str, float]:
        """Mean of each set over the datasets that have it."""
        values: dict[str, list[float]] = {}
        for (_, name), value in self.auroc.items():
            values.setdefault(name, []).append(value)
        return {name: float(np.mean(found)) for name, found in values.items()}

    @property
    def mean(self) -> float:
        """Mean of the means of sets; nan without sets."""
        return float(np.mean(list(self.by_set.values()))) if self.auroc else float("nan")


def read_gmt(path: Path) -> dict[str, frozenset[str]]:
    """Read a .gmt file: per line a name, a description and genes, separated by tabs; weights after a comma are ignored.

    Raises
    ------
    InputError
        E279 when the file cannot be read or holds no gene set.
    """
    try:
        lines = read_text(path).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        msg = f"the gene sets cannot be read ({one_line(error)})"
        raise InputError(msg, code="E279", where=str(path), fix="name a .gmt file") from None
    fields = [line.split("\t") for line in lines]
    members = {row[0]: (field.partition(",")[0].strip() for field in row[2:]) for row in fields if len(row) > 2}
    sets = {name: frozenset(gene for gene in genes if gene) for name, genes in members.items()}
    if not sets:
        msg = "expected lines of a name, a description and genes between tabs"
        raise InputError(msg, code="E279", where=str(path), fix="name a .gmt file")
    return sets


def set_titles(path: Path) -> dict[str, str]:
    """Return what people call each set of a .gmt file that :func:`read_gmt` has read, by its name.

    A set named by an identifier, such as ``GO:0042221``, is called by its description with the identifier, without the
    size that may stand behind it; any other set by its name.
    """
    rows = [line.split("\t")[:2] for line in path.read_text(encoding="utf-8").splitlines() if line.count("\t") > 1]
    titles = {}
    for name, about in rows:
        described = IDENTIFIER.fullmatch(name) and about and not about.startswith(("http://", "https://"))
        titles[name] = f"{SIZE_BEHIND.sub('', about)} ({name})" if described else name
    return titles


def function_scores(
    graphs: Sequence[GraphData],
    vectors: Mapping[str, NDArray[np.floating]],
    sets: Mapping[str, Collection[str]],
    *,
    seed: int = 0,
    permute: bool = False,
) -> FunctionScores:
    """Score how well vectors predict gene sets within each dataset.

    Parameters
    ----------
    vectors
        Vectors by dataset name, shape (N, d).
    sets
        Gene keys by name. A set counts in a dataset that has at least ``MIN_GENES`` of its genes and in which these are
        at most ``MAX_SHARE`` of the genes.
    permute
        Whether to assign the vectors of a dataset to its genes at random: the control, 0.5 in expectation.
    """
    auroc: dict[tuple[str, str], float] = {}
    for graph in graphs:
        usable = _usable(graph.keys, sets)
        if not usable:
            continue
        x = _dealt(vectors[graph.name], graph.name, seed, permute=permute)
        labels = np.column_stack(list(usable.values()))
        fold = _folds(graph.keys, seed)
        scores = _predict(_Rows(x, labels, fold), x, fold)
        auroc |= _by_set(graph.name, usable, _fold_auroc(labels, scores, fold))
    return FunctionScores(auroc)


def transfer_scores(
    graphs: Sequence[GraphData],
    vectors: Mapping[str, NDArray[np.floating]],
    sets: Mapping[str, Collection[str]],
    *,
    seed: int = 0,
    permute: bool = False,
) -> FunctionScores:
    """Score how well vectors of the other datasets predict gene sets in each dataset; none for a single dataset.

    Sets, folds, genes and parameters are those of :func:`function_scores`; the vectors must share one space.
    """
    x = {t.name: _dealt(vectors[t.name], t.name, seed, permute=permute) for t in graphs}
    fold = {t.name: _folds(t.keys, seed) for t in graphs}
    auroc: dict[tuple[str, str], float] = {}
    for graph in graphs:
        usable = _usable(graph.keys, sets)
        others = [t for t in graphs if t.name != graph.name]
        if not usable or not others:
            continue
        labels = np.column_stack(list(usable.values()))
        train = _Rows(
            np.concatenate([x[t.name] for t in others]),
            np.concatenate([_members(t.keys, [sets[name] for name in usable]) for t in others]),
            np.concatenate([fold[t.name] for t in others]),
        )
        scores = _predict(train, x[graph.name], fold[graph.name])
        auroc |= _by_set(graph.name, usable, _fold_auroc(labels, scores, fold[graph.name]))
    return FunctionScores(auroc)


def function_document(
    graphs: Sequence[GraphData],
    spaces: Mapping[str, Mapping[str, NDArray[np.floating]]],
    sets: Mapping[str, Collection[str]],
    *,
    subject: str,
    seed: int,
    score: Callable[..., FunctionScores] = function_scores,
) -> dict[str, Any]:  # JSON
    """Score models by gene sets and compare the model `subject` with the others.

    Parameters
    ----------
    spaces
        Vectors by model and dataset name, shape (N, d).
    score
        :func:`function_scores` or :func:`transfer_scores`.

    Returns
    -------
    dict
        ``n_sets``; and per model ``auroc``, ``permuted`` (the control), ``difference`` (subject minus model) and
        ``p_value`` of Wilcoxon's signed-rank test over sets.
    """
    scores = {name: score(graphs, vectors, sets, seed=seed) for name, vectors in spaces.items()}
    reference = scores[subject].by_set
    models = {}
    for name, found in scores.items():
        difference = np.array([reference[k] - value for k, value in found.by_set.items() if k in reference])
        tested = name != subject and np.any(difference)
        models[name] = {
            "auroc": found.mean,
            "permuted": score(graphs, spaces[name], sets, seed=seed, permute=True).mean,
            "difference": float(difference.mean()) if len(difference) else float("nan"),
            "p_value": float(wilcoxon(difference).pvalue) if tested else float("nan"),
        }
    return {"n_sets": len(reference), "folds": FOLDS, "models": models}


def _usable(keys: NDArray[np.str_], sets: Mapping[str, Collection[str]]) -> dict[str, NDArray[np.float64]]:
    """Return the members (N,) of each set that is neither too small nor too large here."""
    member = _members(keys, list(sets.values()))
    size = member.sum(axis=0)
    fits = (size >= MIN_GENES) & (size <= MAX_SHARE * len(keys))
    return {name: member[:, k] for k, name in enumerate(sets) if fits[k]}


def _members(keys: NDArray[np.str_], sets: Sequence[Collection[str]]) -> NDArray[np.float64]:
    """Return 1 where a gene is in a set, else 0: (N, S)."""
    row = {key: k for k, key in enumerate(keys.tolist())}
    result = np.zeros((len(keys), len(sets)))
    for s, genes in enumerate(sets):
        result[[row[key] for key in genes if key in row], s] = 1.0
    return result


def _folds(keys: NDArray[np.str_], seed: int) -> NDArray[np.int64]:
    draws = (stream(seed, "function_fold", key).integers(FOLDS) for key in keys.tolist())
    return np.fromiter(draws, dtype=np.int64, count=len(keys))


class _Rows(NamedTuple):
    """Training rows; those of the predicted fold are left out."""

    x: NDArray[np.float64]
    labels: NDArray[np.float64]
    fold: NDArray[np.int64]


def _dealt(x: NDArray[np.floating], name: str, seed: int, *, permute: bool) -> NDArray[np.float64]:
    """Return the vectors of a dataset in float64, in random order if `permute`."""
    order = stream(seed, "permuted_function", name).permutation(len(x)) if permute else slice(None)
    return np.asarray(x, dtype=np.float64)[order]


def _predict(rows: _Rows, x: NDArray[np.float64], fold: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return scores (N, S) of vectors by ridge regressions that have not seen the genes of their fold."""
    from sklearn.linear_model import RidgeCV

    scores = np.zeros((len(x), rows.labels.shape[1]))
    for k in range(FOLDS):
        train, test = rows.fold != k, fold == k
        if not test.any() or not train.any():
            continue
        centre, spread = rows.x[train].mean(axis=0), rows.x[train].std(axis=0)
        spread[spread == 0.0] = 1.0
        model = RidgeCV(ALPHAS, alpha_per_target=True).fit((rows.x[train] - centre) / spread, rows.labels[train])
        scores[test] = model.predict((x[test] - centre) / spread).reshape(int(test.sum()), -1)
    return scores


def _by_set(dataset: str, usable: Mapping[str, object], auroc: NDArray[np.float64]) -> dict[tuple[str, str], float]:
    found = zip(usable, auroc.tolist(), strict=True)
    return {(dataset, name): value for name, value in found if np.isfinite(value)}


def _fold_auroc(
    labels: NDArray[np.float64], scores: NDArray[np.float64], fold: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Average the AUROC of each set, (S,), over folds with members and others; the scale of scores differs by fold."""
    values = np.full((FOLDS, labels.shape[1]), np.nan)
    for k in range(FOLDS):
        label, rank = labels[fold == k], rankdata(scores[fold == k], axis=0)
        inside, outside = label.sum(axis=0), (1 - label).sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            values[k] = ((label * rank).sum(axis=0) - inside * (inside + 1) / 2) / (inside * outside)
    known = np.isfinite(values)
    total = np.where(known, values, 0.0).sum(axis=0)
    mean: NDArray[np.float64] = np.full(labels.shape[1], np.nan)
    np.divide(total, known.sum(axis=0), out=mean, where=known.any(axis=0))
    return mean
