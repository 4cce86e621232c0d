"""How well an added dataset fits its run, from what :func:`musegnn.training.extend.compare_with_run` noted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from musegnn.evaluation.table import lay_out

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def drift_report(history: Iterable[Mapping[str, Any]], name: str) -> dict[str, Any]:  # JSON
    """Return the drift report of an added dataset from the records of its run (:attr:`musegnn.MuSeGNN.history`).

    Returns
    -------
    dict
        ``partners``: for each dataset of the run that shares genes, numbers of shared genes, held out (``n_held_out``)
        and not (``n_anchors``), and how many times as well as chance the genes of the added one are found there, by
        mean reciprocal rank (``held_out``, ``anchors``). ``held_out`` and ``anchors``: means over these;
        ``run_held_out``, ``run_anchors``: the same between datasets of the run. ``None`` where undefined. Held-out
        genes are no targets of the fit; anchors are, so that they are always found too well.
    """
    rows = [row for row in history if row.get("dataset") == name]
    watched = {str(row["partner"]): row for row in rows if row["kind"] == "watch"}
    drifts = [row for row in rows if row["kind"] == "drift"]
    report: dict[str, Any] = {"dataset": name, "partners": []}
    for partner, row in watched.items():
        times = {part: row[key] / row["chance_mrr"] if key in row else None
                 for part, key in (("held_out", "held_out_mrr"), ("anchors", "anchor_mrr"))}  # fmt: skip
        counts = {key: row[key] for key in ("n_held_out", "n_anchors")}
        report["partners"].append({"dataset": partner, **counts, **times})
    means = ("held_out", "anchors", "run_held_out", "run_anchors")
    return report | {key: drifts[-1][key] if drifts else None for key in means}


def drift_text(report: Mapping[str, Any]) -> list[str]:  # JSON
    """Return a drift report as lines for a terminal."""
    parts = ("held_out", "anchors")
    rows = [
        [each["dataset"], str(each["n_held_out"] + each["n_anchors"]), *(_times(each[part]) for part in parts)]
        for each in report["partners"]
    ]
    rows.append(["mean", "", *(_times(report[part]) for part in parts)])
    rows.append(["within the run", "", *(_times(report[f"run_{part}"]) for part in parts)])
    header = [f"{report['dataset']} in", "shared genes", "hidden genes found", "others found"]
    return [*lay_out(header, rows), "Found: mean reciprocal rank of the gene's copy, in multiples of chance."]


def _times(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} x chance"
