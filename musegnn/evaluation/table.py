"""The evaluation as text for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from musegnn.evaluation.task import PAIR_GROUPS

if TYPE_CHECKING:
    from collections.abc import Sequence

ABSENT = "-"
SEED_MEASURES = ("held_out_mrr", "positive_edges", "modules", "function")
EDGE_SETS = ("all", "positive", "negative")


def to_table(evaluation: dict[str, Any]) -> str:  # JSON
    """Write the evaluation as short tables, one row per model.

    Parameters
    ----------
    evaluation
        Result of :func:`musegnn.evaluation.evaluate.evaluate`, or the content of ``evaluation.json``.

    Returns
    -------
    str
        Lines of at most 120 characters for the names used by :func:`musegnn.evaluation.evaluate.evaluate_model`.
    """
    parts = [_retrieval(evaluation), _edges(evaluation), _published(evaluation)]
    if "modules" in evaluation:
        parts.append(_modules(evaluation))
    if "function" in evaluation:
        parts.append(_function(evaluation))
    if "seeds" in evaluation:
        parts.append(_seeds(evaluation))
    return "\n\n".join("\n".join(part) for part in parts)


def _retrieval(evaluation: dict[str, Any]) -> list[str]:
    names = [name.replace("across_", "x ").replace("_", " ") for name in PAIR_GROUPS]
    header = ["model", "overall", *names, f"recall@{evaluation['top_k']}", "anchors", f"{evaluation['subject']} is"]
    rows, chance = [], [ABSENT] * (len(PAIR_GROUPS) + 2)
    for name, model in evaluation["models"].items():
        held_out, anchors = model["retrieval"]["held_out"], model["retrieval"]["anchors"]
        groups = ["overall", *PAIR_GROUPS]
        chance = [_number(held_out[g]["chance_mrr"]) for g in groups] + [_number(held_out["overall"]["chance_recall"])]
        comparison = evaluation["comparisons"].get(name)
        verdict = f"{comparison['verdict']} (p {comparison['p_value']:.2g})" if comparison else ""
        rows.append(
            [
                name,
                *(_number(held_out[g]["mrr"]) for g in groups),
                _number(held_out["overall"]["recall"]),
                _number(anchors["overall"]["mrr"]),
                verdict,
            ]
        )
        anchor_chance = _number(anchors["overall"]["chance_mrr"])
    if rows:
        rows.append(["(chance)", *chance, anchor_chance, ""])
    return ["Held-out genes found in another dataset, mean reciprocal rank", *_lay_out(header, rows)]


def _edges(evaluation: dict[str, Any]) -> list[str]:
    header = ["model", "cosine", "positive", "negative", "abs cosine", "decoder", "effective rank", "mean cosine"]
    rows = []
    for name, model in evaluation["models"].items():
        if model["held_out_edges"] is None:
            continue
        scores, space = model["held_out_edges"]["overall"], model["space"] or {}
        rows.append(
            [
                name,
                *(_number(scores["cosine"][which]) for which in EDGE_SETS),
                _number(scores["abs_cosine"]["all"]),
                _number(scores.get("decoder", {}).get("all")),
                _number(space.get("effective_rank"), 1),
                _number(space.get("mean_cosine")),
            ]
        )
    control = [_average([d["degree_auc"][which] for d in evaluation["datasets"]]) for which in EDGE_SETS]
    rows.append(["(degree alone)", *control, *([""] * 4)])
    title = "Held-out edges against degree-matched non-edges, AUROC (profiles still hold them); shape of the space"
    return [title, *_lay_out(header, rows)]


def _published(evaluation: dict[str, Any]) -> list[str]:
    header = ["model", "ASW", "AUC", "iLISI", "GC", "CGR", "bound", "NO", "clusters", "gene NMI"]
    header += ["pair ASW", "iLISI", "GC"]
    rows, notes = [], []
    for name, model in evaluation["models"].items():
        scores = model["published"]
        if scores is None:
            continue
        if scores["absent"] and scores["absent"] not in notes:
            notes.append(scores["absent"])
        at = scores["resolutions"]
        rows.append(
            [
                name,
                _average([r["shared"]["asw"] for r in at]),
                _number(scores["auc"]),
                _number(scores["subsets"]["shared"]["ilisi"]),
                _average([r["shared"]["gc"] for r in at]),
                _average([r["cgr"] for r in at]),
                _number(scores["cgr_bound"]),
                _average([r["no"] for r in at]),
                _average([r["n_clusters"] for r in at], 0),
                _average([r["identity_nmi"] for r in at]),
                _average([r["pairwise"]["asw"] for r in at]),
                _number(scores["subsets"]["pairwise"]["ilisi"]),
                _average([r["pairwise"]["gc"] for r in at]),
            ]
        )
    k = evaluation.get("settings", {}).get("min_datasets", 2)
    title = f"Published metrics on genes of at least {k} datasets, and of each pair; mean over Leiden resolutions"
    return [title, *_lay_out(header, rows), *notes]


def _modules(evaluation: dict[str, Any]) -> list[str]:
    found = evaluation["modules"]
    rows = [[name, *(_number(m[k]) for k in ("auroc", "permuted"))] for name, m in found["models"].items()]
    title = f"Modules of other datasets predicted for unseen genes, mean AUROC over {sum(found['n_modules'].values())}"
    return [title, *_lay_out(["model", "AUROC", "permuted"], rows)]


def _function(evaluation: dict[str, Any]) -> list[str]:
    found = evaluation["function"]
    header = ["model", "AUROC", "permuted", f"{evaluation['subject']} is better by", "p"]
    rows = [
        [name, *(_number(m[k]) for k in ("auroc", "permuted", "difference")), _number(m["p_value"], 4)]
        for name, m in found["models"].items()
    ]
    title = f"Gene sets predicted for unseen genes, mean AUROC over {found['n_sets']} sets"
    return [title, *_lay_out(header, rows)]


def _seeds(evaluation: dict[str, Any]) -> list[str]:
    found = evaluation["seeds"]
    shown = [m for m in SEED_MEASURES if any(m in measures for measures in found["models"].values())]
    header = ["model", *(name.replace("_", " ") for name in shown), "stability", "MRR difference", "p"]
    rows = []
    for name, measures in found["models"].items():
        difference = found["differences"].get(name, {}).get("held_out_mrr", {})
        rows.append(
            [
                name,
                *(_spread(measures.get(m)) for m in shown),
                _number(found["stability"].get(name)),
                _number(difference.get("mean")),
                _number(difference.get("p_value"), 4),
            ]
        )
    n = len(found["seeds"])
    return [
        f"Means over {n} training seeds, standard deviation in brackets; paired t-test over seeds",
        *_lay_out(header, rows),
    ]


def _spread(value: dict[str, float | None] | None) -> str:
    if value is None:
        return ABSENT
    return f"{_number(value['mean'])} ({_number(value['deviation'])})"


def _number(value: float | None, digits: int = 3) -> str:
    return ABSENT if value is None else f"{value:.{digits}f}"


def _average(values: Sequence[float | None], digits: int = 3) -> str:
    defined = [v for v in values if v is not None]
    return _number(float(np.mean(defined)) if defined else None, digits)


def _lay_out(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    return [
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in (header, *rows)
    ]
