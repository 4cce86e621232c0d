"""Tables and curves of the report page, from evaluation, history and graph reports."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from musegnn.evaluation.dataset_pairs import PAIR_GROUPS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAX_ROUNDS = 500
NOT_MEASURES = (
    "round",
    "kind",
    "dataset",
    "partner",
    "seconds",
    "n_shared",
    "n_genes",
    "n_anchors",
    "n_held_out",
    "chance_mrr",
)
MEASURES = ("loss", "reconstruction", "similarity", "contrast", "alignment")
SEED_MEASURES = {
    "held_out_mrr": "held-out MRR",
    "joint_mrr": "joint MRR",
    "positive_edges": "positive edges",
    "modules": "modules",
    "function": "gene sets",
    "transfer": "transfer",
}
CORRECTIONS = {
    "balanced": ("balanced", "cosine less what is typical for the two datasets, as lists of nearest genes are"),
    "csls": ("CSLS", "cross-domain similarity local scaling, which also takes out what is typical for the two genes"),
}
EDGE_SCORES = {
    "cosine": ("all", "cosine", "Cosine of the two genes"),
    "positive": ("positive", "positive", "Cosine, positive edges only"),
    "negative": ("negative", "negative", "Cosine, negative edges only; below 0.5 when negative edges point apart"),
}


def loss_curves(history: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Arrange logged metrics as one curve per measure and dataset.

    Returns
    -------
    dict
        ``total`` (last round), ``lines`` (names of datasets, sorted) and ``measures``, each with ``label``, ``every``
        (1, or n when only every n-th of its rounds is kept, at most 500 and always the last), ``rounds`` and
        ``values`` (lines x rounds, NaN where nothing was logged; the mean where several records are of one round).
    """
    found: dict[str, dict[int, dict[str, list[float]]]] = {}
    for row in history:
        if row.get("kind") == "process":
            continue
        line = str(row.get("dataset", "all"))
        for name, value in row.items():
            if name not in NOT_MEASURES and isinstance(value, int | float):
                found.setdefault(name, {}).setdefault(int(row["round"]), {}).setdefault(line, []).append(float(value))
    lines = sorted({line for rounds in found.values() for values in rounds.values() for line in values})
    order = {name: place for place, name in enumerate(MEASURES)}
    measures = []
    for name in sorted(found, key=lambda n: (order.get(n, len(order)), n)):
        known = sorted(found[name])
        every = math.ceil(len(known) / MAX_ROUNDS)
        kept = sorted({*known[::every], known[-1]})
        values = [[_mean(found[name][r].get(line, ())) for r in kept] for line in lines]
        measures.append({"label": name.replace("_", " "), "every": every, "rounds": kept, "values": values})
    total = max((int(row["round"]) for row in history), default=0)
    return {"total": total, "lines": lines, "measures": measures}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def graph_rows(reports: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one row per dataset with what the table shows; ``dropped`` is a list of ``count``, ``what`` and ``why``.

    Numbers that a report lacks are shown as unknown.
    """
    numbers = ("n_cells", "n_genes", "n_edges", "density", "negative_share", "mean_degree")
    rows = []
    for given in reports:
        build = given.get("report", {})
        row: dict[str, Any] = {name: str(given[name]) for name in ("dataset", "modality", "tissue", "species")}
        row |= {name: _finite(given.get(name)) for name in numbers}
        row["n_clamped"] = _finite(build.get("negative_variance"))
        row["dropped"] = [
            {"count": int(count), "what": what, "why": str(why).replace("_", " ")}
            for what in ("cells", "genes")
            for why, count in sorted(build.get(f"{what}_dropped", {}).items())
        ]
        passed_over = int(build.get("genes_kept", 0)) - int(build.get("genes_selected", 0))
        if passed_over > 0:
            row["dropped"].append({"count": passed_over, "what": "genes", "why": "good, but not selected"})
        if given.get("isolated"):
            row["dropped"].append(
                {"count": int(given["isolated"]), "what": "genes", "why": "kept, but without an edge"}
            )
        row["warnings"] = [str(w) for w in (*given.get("problems", []), *build.get("warnings", []))]
        rows.append(row)
    return rows


def evaluation_tables(evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Arrange the evaluation as tables of models x measures.

    Returns
    -------
    list of dict
        Each with ``title``, ``note``, ``measures`` (``label``, ``title``, ``better``: 1 more, -1 less, 0 neither),
        ``rows`` (``model``, ``about``, ``ours``, ``values``) and where its first measure is drawn as bars ``chance``,
        its value at random.
    """
    if not evaluation:
        return []
    tables = [
        _joint_retrieval(evaluation),
        _mixing(evaluation),
        _retrieval(evaluation),
        _edges(evaluation),
        _edges_by_dataset(evaluation),
        _predicted(evaluation, "modules"),
        _predicted(evaluation, "function"),
        _predicted(evaluation, "transfer"),
        _seeds(evaluation),
        _published(evaluation),
    ]
    return [table for table in tables if table["rows"]]


def _finite(value: object) -> float | int | None:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not math.isfinite(value):
        return None
    return int(value) if float(value).is_integer() else float(value)


def _measure(label: str, title: str, better: int = 1) -> dict[str, Any]:
    return {"label": label, "title": title, "better": better}


def _row(evaluation: Mapping[str, Any], name: str, values: Sequence[object]) -> dict[str, Any]:
    about = evaluation["models"].get(name, {}).get("description", "")
    return {
        "model": name.replace("_", " "),
        "about": about,
        "ours": name == evaluation.get("subject"),
        "values": [v if isinstance(v, str) else _finite(v) for v in values],
    }


def _joint_retrieval(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    joint = {name: m["joint"]["retrieval"] for name, m in evaluation["models"].items() if m.get("joint")}
    note = (
        "Genes that took no part in alignment, looked for among the rows of all datasets, those of their own included. "
    )
    table = _found_again(evaluation, joint, evaluation.get("joint_comparisons", {}), note)
    for by, (label, about) in CORRECTIONS.items():
        found = [m["joint"].get(f"retrieval_{by}") for m in evaluation["models"].values() if m.get("joint")]
        if found and None not in found:
            at = len(table["measures"]) - 1  # the verdict stays last
            table["measures"].insert(at, _measure(label, f"The overall value where genes are ranked by {about}"))
            for row, scores in zip(table["rows"], found, strict=True):
                row["values"].insert(at, _finite(scores["held_out"]["overall"]["mrr"]))
    return {"title": "Do the datasets share one space?", **table}


def _retrieval(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    pairs = {name: m["retrieval"] for name, m in evaluation["models"].items()}
    note = "Genes that took no part in alignment, looked for among all genes of the other dataset, both ways. "
    table = _found_again(evaluation, pairs, evaluation["comparisons"], note)
    return {"title": "Is a gene found again in another dataset?", **table}


def _found_again(
    evaluation: Mapping[str, Any], scores: Mapping[str, Any], comparisons: Mapping[str, Any], note: str
) -> dict[str, Any]:
    if not scores:
        return {"rows": []}
    first = next(iter(scores.values()))["held_out"]
    groups = ["overall", *(g for g in PAIR_GROUPS if first.get(g, {}).get("n_pairs"))]
    k = evaluation["top_k"]
    measures = [
        *(_measure(g.replace("_", " "), f"Mean reciprocal rank, mean over pairs of datasets: {g}") for g in groups),
        _measure(f"recall@{k}", f"Share of genes whose counterpart is among the {k} nearest"),
        _measure("anchors", "Mean reciprocal rank of genes that training aligned: memory, not generalisation", 0),
        _measure(f"{evaluation['subject']} is", "Paired test over held-out genes", 0),
    ]
    rows = []
    for name, found in scores.items():
        held_out, anchors = found["held_out"], found["anchors"]
        verdict = comparisons.get(name)
        result = f"{verdict['verdict']}, p = {verdict['p_value']:.2g}" if verdict else ""
        values = [
            *(held_out[g]["mrr"] for g in groups),
            held_out["overall"]["recall"],
            anchors["overall"]["mrr"],
            result,
        ]
        rows.append(_row(evaluation, name, values))
    chance = first["overall"]["chance_mrr"]
    note += (
        f"Mean reciprocal rank over {first['overall']['n_pairs']} pairs of datasets and "
        f"{first['overall']['n_queries']} questions; by chance {_text(chance)}, and "
        f"{_text(first['overall']['chance_recall'])} for recall."
    )
    return {"note": note, "measures": measures, "rows": rows, "chance": _finite(chance)}


def _mixing(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    measures = [
        _measure("mixing", "Share of a row's 30 nearest rows that are of other datasets, over its expectation"),
        _measure("within tissue", "The same among the rows of one tissue"),
        _measure("across modality", "The same for rows of another modality"),
        _measure("across species", "The same for rows of another species"),
        _measure(
            "conservation", "Place of a gene's copy among all genes, by whether its ten nearest genes are the same"
        ),
        _measure("AUROC", "A gene's ten nearest genes, ranked by similarity to its copy in the other dataset"),
        _measure("clusters to datasets", "Normalised mutual information of Leiden clusters and datasets", -1),
        _measure("clusters to genes", "Normalised mutual information of Leiden clusters and genes"),
    ]
    rows = []
    for name, model in evaluation["models"].items():
        joint = model.get("joint")
        if joint:
            kept = joint["conservation"]["overall"]
            values = [joint["mixing"][m] for m in ("overall", "within_tissue", "across_modality", "across_species")]
            values += [kept["specificity"], kept["auroc"]]
            values += [joint["islands"][m] for m in ("dataset_nmi", "identity_nmi")]
            rows.append(_row(evaluation, name, values))
    note = (
        "Mixing is 1 where datasets are in random order and 0 where they lie apart. Conservation is of held-out genes, "
        "0.5 by chance."
    )
    return {
        "title": "Do datasets mix, and do genes keep their neighbours?",
        "note": note,
        "measures": measures,
        "rows": rows,
    }


def _edges(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    measures = [
        *(_measure(label, title) for _, label, title in EDGE_SCORES.values()),
        _measure("abs cosine", "Absolute cosine: finds negative edges too"),
        _measure("decoder", "Score of the trained decoder"),
        _measure("effective rank", "Dimensions in use: exp of the entropy of the squared singular values", 0),
        _measure("mean cosine", "Over all pairs of vectors; near 1 when the space has collapsed", 0),
    ]
    rows = []
    for name, model in evaluation["models"].items():
        if model["held_out_edges"] is None:
            continue
        scores, space = model["held_out_edges"]["overall"], model["space"] or {}
        values = [
            *(scores["cosine"][which] for which, _, _ in EDGE_SCORES.values()),
            scores["abs_cosine"]["all"],
            scores.get("decoder", {}).get("all"),
            space.get("effective_rank"),
            space.get("mean_cosine"),
        ]
        rows.append(_row(evaluation, name, values))
    degree = [
        _average([d["degree_auc"][which] for d in evaluation["datasets"]]) for which, _, _ in EDGE_SCORES.values()
    ]
    rows.append(_row(evaluation, "degree alone", [*degree, *[None] * (len(measures) - len(degree))]))
    note = "Edges hidden from training against non-edges of like degree: area under the ROC curve, mean over datasets."
    return {"title": "Do the vectors keep the graphs?", "note": note, "measures": measures, "rows": rows}


def _edges_by_dataset(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    datasets = [str(d["name"]) for d in evaluation["datasets"]]
    measures = [_measure("mean", "Mean over datasets"), *(_measure(d, f"Held-out edges of {d}") for d in datasets)]
    rows = []
    for name, model in evaluation["models"].items():
        if model["held_out_edges"] is None:
            continue
        scores = model["held_out_edges"]
        values = [scores["overall"]["cosine"]["all"], *(scores["datasets"][d]["cosine"]["all"] for d in datasets)]
        rows.append(_row(evaluation, name, values))
    note = "Area under the ROC curve of the cosine, as above."
    return {"title": "The same by dataset", "note": note, "measures": measures, "rows": rows}


def _published(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    measures = [
        _measure("ASW", "Silhouette of datasets within clusters (batch mixing)"),
        _measure("AUC", "All edges from the cosine, training edges included"),
        _measure("iLISI", "Datasets mixed in the neighbourhood of a gene"),
        _measure("GC", "Largest connected share of each cluster"),
        _measure("CGR", "Share of repeated genes within clusters; rewards few clusters"),
        _measure("NO", "Overlap of neighbourhoods within clusters"),
        _measure("clusters", "Mean number of Leiden clusters", 0),
        _measure("NMI to genes", "Mutual information of clusters and gene identity", 0),
        _measure("pairwise ASW", "ASW of the genes that two datasets share, mean over pairs"),
        _measure("pairwise iLISI", "iLISI of the genes that two datasets share, mean over pairs"),
        _measure("pairwise GC", "GC of the genes that two datasets share, mean over pairs"),
    ]
    k = evaluation.get("settings", {}).get("min_datasets", 2)
    rows, notes = [], [f"Means over Leiden resolutions, on genes of at least {k} datasets where a measure needs them."]
    for name, model in evaluation["models"].items():
        scores = model["published"]
        if scores is None:
            continue
        if scores["absent"] and scores["absent"] not in notes:
            notes.append(str(scores["absent"]))
        at = scores["resolutions"]
        values = [
            _average([r["shared"]["asw"] for r in at]),
            scores["auc"],
            scores["subsets"]["shared"]["ilisi"],
            _average([r["shared"]["gc"] for r in at]),
            *(_average([r[key] for r in at]) for key in ("cgr", "no", "n_clusters", "identity_nmi")),
            _average([r["pairwise"]["asw"] for r in at]),
            scores["subsets"]["pairwise"]["ilisi"],
            _average([r["pairwise"]["gc"] for r in at]),
        ]
        rows.append(_row(evaluation, name, values))
    title = "The measures of the published method"
    return {"title": title, "note": " ".join(notes), "measures": measures, "rows": rows}


def _predicted(evaluation: Mapping[str, Any], part: Literal["modules", "function", "transfer"]) -> dict[str, Any]:
    found = evaluation.get(part, {"models": {}})
    measures = [
        _measure("AUROC", "Area under the ROC curve for genes that the predictor has not seen"),
        _measure("permuted", "The same with vectors dealt to genes at random: the control", 0),
    ]
    columns = ["auroc", "permuted"]
    if part == "modules":
        title = "Does a dataset know the modules of the others?"
        n = sum(found.get("n_modules", {}).values())
        note = f"Co-expression modules of other datasets ({n} in all), predicted from the vectors of each dataset."
    else:
        title = "Do the vectors know what genes do?"
        note = f"{found.get('n_sets', 0)} gene sets, predicted from the vectors of each dataset."
        measures += [
            _measure("difference", f"{evaluation.get('subject')} minus this model, mean over sets", 0),
            _measure("p", "Wilcoxon's signed-rank test over sets", 0),
        ]
        columns += ["difference", "p_value"]
    if part == "transfer":
        title = "Does what one dataset knows of genes hold in another?"
        note = f"{found.get('n_sets', 0)} gene sets, predicted by a regression that was trained on the other datasets."
        measures.insert(1, _measure("within", "The same, trained within the dataset"))
        columns.insert(1, "within")
    rows = [_row(evaluation, name, [m[c] for c in columns]) for name, m in found["models"].items()]
    return {"title": title, "note": note, "measures": measures, "rows": rows, "chance": 0.5}


def _seeds(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    found = evaluation.get("seeds", {"models": {}, "seeds": []})
    measures, labels = [], [m for m in SEED_MEASURES if any(m in v for v in found["models"].values())]
    for label in labels:
        measures += [
            _measure(SEED_MEASURES[label], "Mean over seeds"),
            _measure("sd", "Standard deviation over seeds", 0),
        ]
    measures += [_measure("stability", "Jaccard index of the ten nearest genes over pairs of seeds", 0)]
    measures += [_measure("p of MRR", f"Paired t-test over seeds, against {evaluation.get('subject')}", 0)]
    rows = []
    for name, values in found["models"].items():
        cells = [values.get(m, {}).get(part) for m in labels for part in ("mean", "deviation")]
        p_value = found["differences"].get(name, {}).get("held_out_mrr", {}).get("p_value")
        rows.append(_row(evaluation, name, [*cells, found["stability"].get(name), p_value]))
    note = f"{len(found['seeds'])} training seeds on the same hold-outs."
    return {"title": "Do other seeds agree?", "note": note, "measures": measures, "rows": rows}


def _average(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else None


def _text(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3g}"
