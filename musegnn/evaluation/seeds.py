"""One evaluation over several training seeds: means, deviations, paired tests, and stability of neighbours.

The hold-outs stay the same; a seed decides initial weights, dropout, partners and whatever else is drawn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import ttest_1samp

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MEASURES = (
    "held_out_mrr",
    "joint_mrr",
    "mixing",
    "conservation",
    "recall",
    "anchor_mrr",
    "positive_edges",
    "all_edges",
    "effective_rank",
    "modules",
    "function",
    "transfer",
)
TESTED = ("held_out_mrr", "joint_mrr", "positive_edges", "modules", "function", "transfer")


def model_measures(document: Mapping[str, Any]) -> dict[str, dict[str, float]]:  # JSON
    """Return what is averaged over seeds, by model and measure of ``MEASURES``; absent measures are left out."""
    found: dict[str, dict[str, float]] = {}
    for name, model in document["models"].items():
        held_out, anchors = (model["retrieval"][which]["overall"] for which in ("held_out", "anchors"))
        edges, space, joint = model["held_out_edges"], model["space"] or {}, model["joint"] or {}
        cosine = edges["overall"]["cosine"] if edges else {}
        values = {
            "held_out_mrr": held_out["mrr"],
            "recall": held_out["recall"],
            "anchor_mrr": anchors["mrr"],
            "positive_edges": cosine.get("positive"),
            "all_edges": cosine.get("all"),
            "effective_rank": space.get("effective_rank"),
        }
        if joint:
            values["joint_mrr"] = joint["retrieval"]["held_out"]["overall"]["mrr"]
            values["mixing"] = joint["mixing"]["overall"]
            values["conservation"] = joint["conservation"]["overall"]["specificity"]
        found[name] = values
    for part in ("modules", "function", "transfer"):
        for name, values in document.get(part, {}).get("models", {}).items():
            found.setdefault(name, {})[part] = values["auroc"]
    return {name: {m: v for m, v in values.items() if v is not None} for name, values in found.items()}


def summarize_seeds(documents: Sequence[Mapping[str, Any]], seeds: Sequence[int]) -> dict[str, Any]:  # JSON
    """Average the measures of every model over seeds and compare the subject with the others, seed by seed.

    Returns
    -------
    dict
        ``seeds``; ``models``: by model and measure ``mean`` and ``deviation`` (of the sample; nan for one seed);
        ``differences``: by baseline and measure of ``TESTED`` ``mean`` (subject minus baseline) and ``p_value`` of the
        paired t-test over seeds (nan where all differences are equal).
    """
    subject = documents[0]["subject"]
    by_seed = [model_measures(document) for document in documents]
    models: dict[str, dict[str, dict[str, float]]] = {}
    differences: dict[str, dict[str, dict[str, float]]] = {}
    for name in by_seed[0]:
        for measure in MEASURES:
            values = [found[name][measure] for found in by_seed if measure in found.get(name, {})]
            if len(values) < len(documents):
                continue
            spread = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
            models.setdefault(name, {})[measure] = {"mean": float(np.mean(values)), "deviation": spread}
            if name != subject and measure in TESTED and measure in by_seed[0][subject]:
                difference = [found[subject][measure] - found[name][measure] for found in by_seed]
                differences.setdefault(name, {})[measure] = paired_difference(difference)
    return {"seeds": list(seeds), "models": models, "differences": differences}


def paired_difference(difference: Sequence[float]) -> dict[str, float]:
    """Compute the mean of differences and its two-sided p-value by Student's t-test; nan for one or for equal ones."""
    varied = len(difference) > 1 and np.ptp(difference) > 0.0
    p_value = float(ttest_1samp(difference, 0.0).pvalue) if varied else float("nan")
    return {"mean": float(np.mean(difference)), "p_value": p_value}
