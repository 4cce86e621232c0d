"""A run in a few sentences and one table, for people who want to know what was found and how sure it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from musegnn.evaluation.table import lay_out
from musegnn.text import some_of

if TYPE_CHECKING:
    from collections.abc import Sequence

FEWEST = 5
"""Hidden genes that a pair of datasets must share before it says anything."""
FOUND = 3.0
"""Times chance from which genes count as found."""
ERRORS = 3.0
"""Standard errors by which the rank of hidden genes must exceed chance to count as found."""
ROWS = 20
UNALIGNED = frozenset(["W501", "W502", "W503"])


def sentences(
    evaluation: dict[str, Any],  # JSON
    problems: Sequence[tuple[str, str]] = (),
    graphs: Sequence[dict[str, Any]] = (),
) -> list[str]:
    """Return sentences: is the space real and better than a baseline, what aligns, and how sure graphs and genes are.

    Parameters
    ----------
    evaluation
        Content of ``evaluation.json``.
    problems
        Code and dataset of silent failures of training (:func:`musegnn.training.diagnostics.problems`).
    graphs
        Reports of the graphs (:meth:`musegnn.MuSeGNN.graph_reports`). Nothing is said of the certainty of genes where
        no graph knows it.
    """
    said = [_shared_space(evaluation), _alignment(evaluation, problems), _certainty(evaluation)]
    return said + _uncertain_genes(graphs)


def dataset_table(evaluation: dict[str, Any], graphs: Sequence[dict[str, Any]]) -> list[str]:  # JSON
    """Return a table with one row per dataset: its size, and where and how often its hidden genes are found.

    `graphs` are reports of the graphs (:meth:`musegnn.MuSeGNN.graph_reports`).
    """
    rows = []
    for graph in graphs[:ROWS]:
        times, partner = _best_partner(evaluation, graph["dataset"])
        found = "-" if times is None else f"{times:.0f} x chance" if times >= FOUND else "at chance"
        size = [f"{graph[key]:,}" for key in ("n_cells", "n_genes", "n_edges")]
        share = graph["uncertain_share"]
        uncertain = "-" if share is None else f"{100 * share:.0f} %"
        rows.append([graph["dataset"], graph["tissue"], *size, uncertain, found, partner or "-"])
    header = ["dataset", "tissue", "cells", "genes", "edges", "uncertain genes", "hidden genes found", "best in"]
    more = [f"and {len(graphs) - ROWS} more datasets: see report.html"] if len(graphs) > ROWS else []
    return [*lay_out(header, rows), *more]


def _shared_space(evaluation: dict[str, Any]) -> str:
    subject = evaluation["subject"]
    joint = evaluation["models"][subject]["joint"]
    overall = joint and joint["retrieval"]["held_out"]["overall"]
    if not overall or not overall["mrr"] or not overall["chance_mrr"]:
        return "No gene that was hidden from training is in two datasets: nothing says how well they share a space."
    times = overall["mrr"] / overall["chance_mrr"]
    baseline = evaluation["models"].get("pca_procrustes", {}).get("joint")
    compared = evaluation["joint_comparisons"].get("pca_procrustes")
    said = ""
    if baseline and compared:
        other = baseline["retrieval"]["held_out"]["overall"]["mrr"] / overall["chance_mrr"]
        verdicts = {"better": "better than", "worse": "worse than"}
        verdict = verdicts.get(compared["verdict"], "not clearly different from")
        said = f", {verdict} aligned PCA ({other:.1f} times, p = {compared['p_value']:.2g})"
    sure = "finds" if times >= FOUND else "hardly finds"
    found = f"{times:.1f} times as well as chance{said}"
    return f"A gene that was hidden from training {sure} its copy in another dataset: {found}."


def _alignment(evaluation: dict[str, Any], problems: Sequence[tuple[str, str]]) -> str:
    names = [dataset["name"] for dataset in evaluation["datasets"]]
    if len(names) == 1:
        return "There is one dataset, so there is nothing to compare it with."
    failed = {dataset for code, dataset in problems if code in UNALIGNED}
    best = {name: _best_partner(evaluation, name)[0] for name in names}
    good = [name for name in names if name not in failed and (best[name] or 0.0) >= FOUND]
    unknown = [name for name in names if name not in failed and best[name] is None]
    bad = [name for name in names if name not in good and name not in unknown]
    if not bad and not unknown:
        return f"All {len(names)} datasets are aligned with another one: genes may be compared between them."
    parts = [f"{len(good)} of {len(names)} datasets are aligned with another one ({some_of(good, 6) or 'none'})"]
    if bad:
        verb, them = ("is", "it") if len(bad) == 1 else ("are", "them")
        parts.append(f"{some_of(bad, 6)} {verb} not: look at genes within {them}, not across")
    if unknown:
        parts.append(f"{some_of(unknown, 6)} shared too few hidden genes to tell")
    return "; ".join(parts) + "."


def _certainty(evaluation: dict[str, Any]) -> str:
    edges = evaluation["models"][evaluation["subject"]]["held_out_edges"]
    value = edges and edges["overall"]["cosine"]["positive"]
    if value is None:
        return "No edges were hidden, so nothing says how well neighbours in the map are co-expressed."
    strength = "strongly" if value >= 0.8 else "partly" if value >= 0.6 else "hardly"
    return (
        f"Neighbours in the map are {strength} co-expressed: a hidden edge is nearer than a pair without one in "
        f"{100 * value:.0f} % of cases (50 % by chance)."
    )


def _uncertain_genes(graphs: Sequence[dict[str, Any]]) -> list[str]:
    known = [graph for graph in graphs if graph["uncertain_share"] is not None]
    if not known:
        return []
    n_genes = sum(graph["n_genes"] for graph in known)
    uncertain = sum(graph["uncertain_share"] * graph["n_genes"] for graph in known)
    shares = {graph["dataset"]: graph["uncertain_share"] for graph in known}
    most = max(shares, key=lambda name: shares[name])
    where = f", most of all in {most} ({100 * shares[most]:.0f} %)" if len(known) > 1 and uncertain else ""
    return [
        f"{100 * uncertain / n_genes:.0f} % of genes are uncertain (certainty below .5){where}: other cells of the "
        "same kind would mostly show other partners of theirs. Tables mark them with a ?."
    ]


def _best_partner(evaluation: dict[str, Any], name: str) -> tuple[float | None, str]:
    """Return how many times chance the genes of a dataset are found in the best of the others, and which that is."""
    sizes = {dataset["name"]: dataset["n_genes"] for dataset in evaluation["datasets"]}
    found: list[tuple[float, str]] = []
    for pair in evaluation["models"][evaluation["subject"]]["retrieval"]["pairs"]:
        scores = pair["held_out"]
        if name not in (pair["first"], pair["second"]) or scores["n_queries"] < FEWEST or scores["mrr"] is None:
            continue
        other = pair["second"] if pair["first"] == name else pair["first"]
        # Under chance the rank among N genes is uniform, and the variance of its reciprocal is about pi^2 / (6 N).
        error = np.pi / np.sqrt(6.0 * sizes[other] * scores["n_queries"])
        sure = scores["mrr"] > scores["chance_mrr"] + ERRORS * error
        found.append((scores["mrr"] / scores["chance_mrr"] if sure else 1.0, other))
    times, partner = max(found, default=(None, ""))
    return (None if times is None else float(times)), partner if times is not None and times > 1.0 else ""
