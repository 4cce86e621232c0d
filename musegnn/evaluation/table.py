"""The evaluation as one short table for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

ABSENT = "-"
BASELINES = {"pca_procrustes": "aligned PCA", "relations": "raw features"}
ABOUT = "How far datasets share one space, on genes and edges that training did not see: more is better, mixing up to 1"
MORE = (
    "All models, kinds of pairs and p-values: evaluation.json, and report.html (`musegnn report RUN` writes it again)."
)


def to_table(evaluation: dict[str, Any]) -> str:  # JSON
    """Return the main measures of the joint space as text: one row per model, baselines and chance for comparison.

    Measures that no shown model has are left out.
    """
    subject = evaluation["subject"]
    shown = {subject: "musegnn" if subject == "trained" else subject, **BASELINES}
    rows = {label: _measures(evaluation, name) for name, label in shown.items() if name in evaluation["models"]}
    rows["chance"] = _chance(evaluation, subject)
    names = [name for name in rows["chance"] if any(row[name] is not None for row in list(rows.values())[:-1])]
    cells = [[label, *(_number(row[name], name) for name in names)] for label, row in rows.items()]
    return "\n".join([ABOUT, "", *lay_out(["", *names], cells), "", MORE])


def _measures(evaluation: dict[str, Any], name: str) -> dict[str, float | None]:
    model = evaluation["models"][name]
    joint, edges = model["joint"], model["held_out_edges"]
    return {
        "joint MRR": joint and joint["retrieval"]["held_out"]["overall"]["mrr"],
        "mixing within tissue": joint and joint["mixing"]["within_tissue"],
        "held-out edges": edges and edges["overall"]["cosine"]["positive"],
        "conservation": joint and joint["conservation"]["overall"]["specificity"],
        "transfer": evaluation.get("transfer", {"models": {}})["models"].get(name, {}).get("auroc"),
    }


def _chance(evaluation: dict[str, Any], subject: str) -> dict[str, float | None]:
    joint = evaluation["models"][subject]["joint"]
    found = joint and joint["retrieval"]["held_out"]["overall"]["chance_mrr"]
    others = {"mixing within tissue": 1.0, "held-out edges": 0.5, "conservation": 0.5, "transfer": 0.5}
    return {"joint MRR": found, **others}


def _number(value: float | None, measure: str) -> str:
    return ABSENT if value is None else f"{value:.{4 if measure == 'joint MRR' else 2}f}"


def lay_out(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return lines of aligned columns, the first to the left and the others to the right."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    return [
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in (header, *rows)
    ]
