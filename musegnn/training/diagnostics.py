"""What can go wrong in silence: a space that collapses, anchor genes memorised, a dataset that nothing aligns.

At every checkpoint each dataset is compared with its partner of the round, on the vectors that the losses had, and
maps without rounds with a few partners: how well genes that training was told are the same find each other among all
genes, and how well shared genes do that it was not told of. Nothing of this enters a loss or decides a setting.

Linear maps fitted to some hundred anchor genes place these better than others in any case, most of all between datasets
that share little, so that alone is no failure. It is one when held-out genes are at chance beyond doubt: when their
mean reciprocal rank, two standard errors added, stays below twice chance. Under chance the rank among N genes is
uniform, and the variance of its reciprocal is about ``pi^2 / (6 N)``.

Legend: N genes of a dataset, d dimensions of the embedding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from musegnn.ranking import chance_level, retrieval_scores
from musegnn.vectors import unit_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from musegnn.graph import ComparedGraph

COLLAPSED_RANK, COLLAPSED_COSINE = 0.125, 0.9
KNOWN_ANCHORS = 0.3
FOUND, AT_CHANCE = 1.5, 2.0
MIN_QUERIES = 20
FITS = 0.5
LAST_ROUNDS = 0.5


@dataclass(frozen=True, slots=True)
class Problem:
    """A silent failure of training: code W501 to W504, dataset, observation and remedy."""

    code: str
    dataset: str
    text: str
    remedy: str

    def __str__(self) -> str:
        """Write it in one line."""
        return f"{self.code}: {self.dataset}: {self.text}; {self.remedy}"


def compare_pair(
    a: ComparedGraph, b: ComparedGraph, z_a: NDArray[np.floating], z_b: NDArray[np.floating], round_: int
) -> dict[str, Any] | None:
    """Return how well genes of dataset `a` are found among those of its partner; ``None`` when none is shared.

    `z_a` and `z_b` are vectors, shapes (N_a, d) and (N_b, d). The record of kind ``watch`` holds mean reciprocal ranks
    ``anchor_mrr`` and ``held_out_mrr`` (without the latter when no shared gene is held out), ``chance_mrr`` and numbers
    of genes.
    """
    _, in_a, in_b = np.intersect1d(a.keys, b.keys, assume_unique=True, return_indices=True)
    if len(in_a) == 0:
        return None
    reciprocal, _ = retrieval_scores(unit_rows(z_a[in_a]) @ unit_rows(z_b).T, in_b)
    known = a.trainable[in_a] & b.trainable[in_b]
    record: dict[str, Any] = {
        "kind": "watch",
        "round": round_,
        "dataset": a.name,
        "partner": b.name,
        "chance_mrr": chance_level(len(b.keys))[0],
        "n_genes": len(b.keys),
        "n_anchors": int(known.sum()),
        "n_held_out": int((~known).sum()),
    }
    if known.any():
        record["anchor_mrr"] = float(reciprocal[known].mean())
    if not known.all():
        record["held_out_mrr"] = float(reciprocal[~known].mean())
    return record


def problems(history: Iterable[Mapping[str, Any]], *, dim: int) -> list[Problem]:
    """Return the silent failures that the records of a run show, ordered by code and dataset.

    Of each dataset, the newest shape of its space counts, and its comparisons in the later half of the rounds.
    """
    history = list(history)
    rows = [row for row in history if row["kind"] in {"space", "watch"}]
    newest = max((row["round"] for row in rows), default=0)
    spaces = {row["dataset"]: row for row in rows if row["kind"] == "space"}
    watched: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["kind"] == "watch" and row["round"] >= LAST_ROUNDS * newest:
            watched.setdefault(row["dataset"], []).append(row)
    found = [problem for row in spaces.values() if (problem := _collapse(row, dim)) is not None]
    found += [problem for name, seen in watched.items() if (problem := _retrieval(name, seen)) is not None]
    drifts = {row["dataset"]: row for row in history if row["kind"] == "drift"}
    found += [problem for row in drifts.values() if (problem := _drift(row)) is not None]
    return sorted(found, key=lambda problem: (problem.code, problem.dataset))


def _collapse(row: Mapping[str, Any], dim: int) -> Problem | None:
    rank, cosine = float(row["effective_rank"]), float(row["mean_cosine"])
    if rank >= COLLAPSED_RANK * dim and cosine <= COLLAPSED_COSINE:
        return None
    return Problem(
        "W501",
        row["dataset"],
        f"the vectors collapse: effective rank {rank:.1f} of {dim}, mean cosine {cosine:.2f}",
        "raise training.loss.alignment, which pushes genes apart, lower training.loss.similarity and reconstruction",
    )


def _drift(row: Mapping[str, Any]) -> Problem | None:
    """Return whether the genes of an added dataset are found far less well than those of its run."""
    which = "held_out" if row["n_held_out"] >= MIN_QUERIES else "anchors"
    own, run = row[which], row[f"run_{which}"]
    if own is None or run is None or own >= FITS * run:
        return None
    text = f"fits badly: its genes are found {own:.1f} times as well as chance, those of the run {run:.1f} times"
    return Problem("W504", row["dataset"], text, "check its genes and species, or train it together with the others")


def _retrieval(name: str, seen: Sequence[Mapping[str, Any]]) -> Problem | None:
    queries = np.array([row["n_held_out"] for row in seen], dtype=np.float64)
    if queries.sum() < MIN_QUERIES:
        return None
    held_out, chance = (_weighted(seen, key, queries) for key in ("held_out_mrr", "chance_mrr"))
    anchors = _weighted(seen, "anchor_mrr", np.array([row["n_anchors"] for row in seen], dtype=np.float64))
    told = f"genes that training knows are found at {anchors:.2f}, genes that it does not at {held_out:.3f}"
    n_genes = _weighted(seen, "n_genes", queries)
    error = float(np.sqrt(np.pi**2 / (6.0 * n_genes * queries.sum())))
    if anchors >= KNOWN_ANCHORS and held_out + 2.0 * error < AT_CHANCE * chance:
        remedy = "train fewer rounds, lower lr_dataset and lr_shared, raise model.feature_dropout, or share more genes"
        return Problem("W502", name, f"anchor genes are memorised: {told} (chance {chance:.3f})", remedy)
    if held_out < FOUND * chance:
        remedy = "give it more cells or genes, edges.rule: shared_axes for scATAC, or leave it out"
        return Problem("W503", name, f"nothing aligns it: {told} (chance {chance:.3f})", remedy)
    return None


def _weighted(seen: Sequence[Mapping[str, Any]], key: str, weight: NDArray[np.float64]) -> float:
    values = np.array([row.get(key, 0.0) for row in seen])
    return float((values * weight).sum() / max(weight.sum(), 1.0))
