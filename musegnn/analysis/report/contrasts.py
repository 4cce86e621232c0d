"""Contrasts of the run on the page: how much each gene changes, and its changed pairs.

Legend: P points (one gene in one dataset each), C genes compared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from musegnn.analysis.report.lists import Points
    from musegnn.analysis.report.packing import Packer

NAMES_SHOWN = 40
MEASURES = ("change", "p_value", "q_value", "certainty_a", "certainty_b")
COUNTS = ("n_gained", "n_lost")
KINDS = ("gained", "lost", "turned")
ABOUT = (
    "How much the co-expression of the gene changes between the two groups, over the change of genes of the same "
    "strength: 1 is as much as theirs. Points of other datasets and genes that were not compared are grey."
)


def label(document: Mapping[str, Any]) -> str:  # JSON
    """Return the two groups of a contrast, shortened."""
    sides = ("+".join(document[side]) for side in ("a", "b"))
    return " → ".join(side if len(side) <= NAMES_SHOWN else f"{side[: NAMES_SHOWN - 1]}…" for side in sides)


def change_columns(
    contrasts: Mapping[str, Mapping[str, Any]], obs: pd.DataFrame
) -> dict[str, tuple[str, str, NDArray[np.float64]]]:
    """Return label, explanation and change of every point, (P,), by the name of each contrast; NaN where unknown."""
    columns = {}
    for name, document in contrasts.items():
        change = {row["gene"]: row["change"] for row in document["genes"]}
        mine = obs["dataset"].isin([*document["a"], *document["b"]]).to_numpy()
        values = np.where(mine, obs["gene"].astype(str).map(change).to_numpy(dtype=np.float64), np.nan)
        columns[name] = (f"Change, {label(document)}", ABOUT, values)
    return columns


def pack_contrasts(
    packer: Packer, contrasts: Mapping[str, Mapping[str, Any]], points: Points, numbers: Sequence[str]
) -> list[dict[str, Any]]:
    """Pack genes and changed pairs of each contrast as codes of keys, in their order, and return what is said of it.

    `numbers` are the names of the numbers that points have; a contrast among them can colour the map.
    """
    described = []
    for c, (name, document) in enumerate(contrasts.items()):
        datasets = [*document["a"], *document["b"]]
        mine = points.obs["dataset"].isin(datasets).to_numpy()
        code = dict(zip(points.obs["gene"].astype(str)[mine], points.key[mine].tolist(), strict=True))
        genes = [row for row in document["genes"] if row["gene"] in code]
        packer.add(f"change_key:{c}", np.array([code[row["gene"]] for row in genes], dtype=np.int64), "u4")
        for measure in (*MEASURES, *COUNTS):
            values = np.array([row.get(measure) for row in genes], dtype=np.float64)  # JSON has null for NaN
            packer.add(f"change_{measure}:{c}", values, "u4" if measure in COUNTS else "f4")
        pairs = [row for row in document["pairs"] if row["gene"] in code and row["partner"] in code]
        for array, side in (("pair_first", "gene"), ("pair_second", "partner")):
            packer.add(f"{array}:{c}", np.array([code[row[side]] for row in pairs], dtype=np.int64), "u4")
        for side in ("z_a", "z_b"):
            packer.add(f"pair_{side}:{c}", np.round([row[side] for row in pairs], 1), "f4")
        packer.add(f"pair_kind:{c}", np.array([KINDS.index(row["kind"]) for row in pairs], dtype=np.int64), "u1")
        about = {"label": label(document), "datasets": datasets, "changed": document["changed"]}
        described.append(about | {"number": name if name in numbers else None})
    return described
