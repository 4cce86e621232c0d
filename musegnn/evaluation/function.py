"""Do vectors know what genes do: gene sets, predicted for genes that the predictor has not seen.

For every dataset and every gene set of enough of its genes, a ridge regression on the vectors is trained on four fifths
of the genes and ranks the rest; five such folds give every gene one score, and the AUROC of the scores tells members
from others. The folds follow gene keys, so that a gene is in the same fold of every dataset. The strength of the ridge
is chosen by leave-one-out error within the training genes, per set.

Legend: N genes of a dataset, d dimensions, S gene sets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from musegnn.errors import InputError
from musegnn.random import stream

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from musegnn.evaluation.task import DatasetTask

FOLDS = 5
MIN_GENES = 10
MAX_SHARE = 0.3
ALPHAS = (1.0, 10.0, 100.0, 1000.0, 10000.0)


@dataclass(frozen=True, slots=True)
class FunctionScores:
    """AUROC of gene sets.

    Attributes
    ----------
    auroc
        By dataset and set.
    """

    auroc: Mapping[tuple[str, str], float]

    @property
    def mean(self) -> float:
        """Mean over sets, each the mean over the datasets that have it; nan when there is none."""
        by_set: dict[str, list[float]] = {}
        for (_, name), value in self.auroc.items():
            by_set.setdefault(name, []).append(value)
        return float(np.mean([np.mean(values) for values in by_set.values()])) if by_set else float("nan")


def read_gmt(path: Path) -> dict[str, frozenset[str]]:
    """Read gene sets: per line a name, a description and genes, separated by tabs.

    Raises
    ------
    InputError
        E270 when the file cannot be read or holds no gene set.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        msg = f"the gene sets cannot be read ({' '.join(str(error).split())})"
        raise InputError(msg, code="E270", where=str(path), fix="name a .gmt file") from None
    fields = [line.split("\t") for line in lines]
    sets = {row[0]: frozenset(gene for gene in row[2:] if gene) for row in fields if len(row) > 2}
    if not sets:
        msg = "expected lines of a name, a description and genes between tabs"
        raise InputError(msg, code="E270", where=str(path), fix="name a .gmt file")
    return sets


def function_scores(
    tasks: Sequence[DatasetTask],
    vectors: Mapping[str, NDArray[np.floating]],
    sets: Mapping[str, Collection[str]],
    *,
    seed: int = 0,
    permute: bool = False,
) -> FunctionScores:
    """Score how well vectors predict gene sets.

    Parameters
    ----------
    tasks
        The datasets.
    vectors
        By dataset name, shape (N, d).
    sets
        Gene keys by the name of the set. A set counts in a dataset when it has at least ``MIN_GENES`` of its genes and
        at most ``MAX_SHARE`` of them.
    seed
        Of folds, and of the permutation.
    permute
        Deal the vectors of a dataset to its genes at random: the control, which has to give .5.

    Returns
    -------
    FunctionScores
        Empty when no set is large enough.
    """
    auroc: dict[tuple[str, str], float] = {}
    for task in tasks:
        members = {name: np.isin(task.gene_key, list(genes)) for name, genes in sets.items()}
        usable = {name: mask for name, mask in members.items() if mask.sum() >= MIN_GENES and mask.mean() <= MAX_SHARE}
        if not usable:
            continue
        x = np.asarray(vectors[task.name], dtype=np.float64)
        if permute:
            x = x[stream(seed, "permuted_function", task.name).permutation(len(x))]
        labels = np.column_stack(list(usable.values())).astype(np.float64)
        fold = _folds(task.gene_key, seed)
        scores = _predict(x, labels, fold)
        for k, name in enumerate(usable):
            auroc[task.name, name] = _mean_fold_auroc(labels[:, k], scores[:, k], fold)
    return FunctionScores({key: value for key, value in auroc.items() if np.isfinite(value)})


def _folds(keys: NDArray[np.str_], seed: int) -> NDArray[np.int64]:
    draws = (stream(seed, "function_fold", key).integers(FOLDS) for key in keys.tolist())
    return np.fromiter(draws, dtype=np.int64, count=len(keys))


def _predict(x: NDArray[np.float64], labels: NDArray[np.float64], fold: NDArray[np.int64]) -> NDArray[np.float64]:
    """Give the scores (N, S) of each gene by a ridge regression that has not seen its fold."""
    from sklearn.linear_model import RidgeCV

    scores = np.zeros_like(labels)
    for k in range(FOLDS):
        train, test = fold != k, fold == k
        if not test.any() or not train.any():
            continue
        centre, spread = x[train].mean(axis=0), x[train].std(axis=0)
        spread[spread == 0.0] = 1.0
        model = RidgeCV(ALPHAS, alpha_per_target=True).fit((x[train] - centre) / spread, labels[train])
        scores[test] = model.predict((x[test] - centre) / spread).reshape(int(test.sum()), -1)
    return scores


def _mean_fold_auroc(label: NDArray[np.float64], score: NDArray[np.float64], fold: NDArray[np.int64]) -> float:
    """Average over folds, whose scores have scales of their own; folds without members or others are left out."""
    from sklearn.metrics import roc_auc_score

    found = [
        float(roc_auc_score(label[fold == k], score[fold == k]))
        for k in range(FOLDS)
        if 0 < label[fold == k].sum() < (fold == k).sum()
    ]
    return float(np.mean(found)) if found else float("nan")
