"""Settings that earlier versions had: their files are read as long as they hold the defaults."""

from __future__ import annotations

from typing import Any

REMOVED: dict[str, dict[str, tuple[Any, str]]] = {
    "edges": {
        "n0": (3000, "3000 cells are a constant of the default rule"),
        "mean_degree": (10.0, "set `edges.degree`"),
        "k": (50, "set `edges.degree`"),
        "min_mean_degree": (2.0, "2 is a constant of the default rule; `edges.rule: bh` fills no graph up"),
    },
    "graph": {
        "sct_cells": ("all", "all cells are used"),
        "sct_genes": (2000, "2000 genes are fitted one by one"),
        "negative_variance": ("clamp", "such genes are tested with the Poisson variance"),
        "chebyshev_order": (None, "it follows from the range of depths"),
        "profile": ("gram", "set `graph.profile_rank` for the leading directions alone"),
        "device": ("auto", "use the option `--device` of the command that builds"),
        "block_rows": (16384, "it is an argument of `musegnn.cluster.build.build_graphs`"),
    },
    "model": {
        "decoder_width": (32, "the `pairwise` decoder has 32 hidden units"),
        "edge_dropout": (0.0, "use `model.feature_dropout`"),
    },
    "training": {
        "order": ("parallel", "the published code's order comes with `published: true`"),
        "weight_decay": (0.0, "there is no weight decay"),
        "dtype": ("float32", "give `dtype` to musegnn.MuSeGNN"),
        "partners": ("cycle", "every dataset is partner once per round"),
        "exchange": ("exact", "gradients go back to the owners of vectors"),
        "reduce": ("fixed", "sums are in fixed point"),
    },
    "training.loss": {
        "alignment_temperature": (0.07, "use `training.loss.temperature`, of both contrasts"),
        "n_alignment": (None, "all shared genes are compared"),
        "normalize": ("sum", "the similarity is the mean over shared genes"),
        "include_diagonal": (False, "the published code's entries come with `training.published`"),
        "exclude_neighbours": (True, "the published code's negatives come with `published: true`"),
    },
    "evaluation": {
        "leiden_resolutions": ([0.5, 1.0, 2.0], "metrics are averaged over these"),
        "min_datasets": (2, "shared genes are those of two datasets"),
    },
}
"""Settings of earlier versions, by section: the only value still accepted, as YAML holds it, and what replaces it."""


def with_removed(settings: dict[str, Any], section: str) -> dict[str, Any]:
    """Return the settings of a section together with those that earlier versions had."""
    return {key: default for key, (default, _) in REMOVED.get(section, {}).items()} | settings


def without_switches(data: dict[str, Any]) -> dict[str, Any]:
    """Drop the keys by which runs of earlier versions named what ``PUBLISHED`` says by ``training.published``."""
    training = data.get("training")
    if not isinstance(training, dict):
        return data
    loss = training.get("loss")
    training = {k: v for k, v in training.items() if (k, v) != ("order", "sequential")}
    if isinstance(loss, dict):
        training["loss"] = {k: v for k, v in loss.items() if (k, v) != ("exclude_neighbours", False)}
    for section, key in ((training, "order"), (training.get("loss"), "exclude_neighbours")):
        if isinstance(section, dict) and key in section:
            msg = f"`{key}` is that of the published code with `published: true`: leave it out"
            raise ValueError(msg)
    return data | {"training": training}
