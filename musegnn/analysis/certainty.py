"""Certainty of genes in tables and words: :mod:`musegnn.coexpression.halves` says what it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pandas as pd

LOW = 0.5
"""Certainty below which genes are marked: their z would correlate by less than this with those of other cells."""

MARK = "?"
LEGEND = f"{MARK} certainty below {LOW:g}: two halves of the cells disagree on the co-expression of the gene"


def mark_low(names: Sequence[str], certainty: Iterable[float]) -> list[str]:
    """Append a question mark to the names of genes of low certainty; NaN is unknown.

    Examples
    --------
    >>> mark_low(["ISG15", "MX1", "OAS1"], [0.9, 0.2, float("nan")])
    ['ISG15', 'MX1 ?', 'OAS1']
    """
    return [f"{name} {MARK}" if value < LOW else name for name, value in zip(names, certainty, strict=True)]


def with_marks(table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Mark the low values of a column ``certainty`` for a terminal.

    Returns
    -------
    tuple
        The table with the column as text, or unchanged without one; and a line that explains the marks, empty where
        there are none.
    """
    if "certainty" not in table:
        return table, ""
    values = table["certainty"].to_numpy(dtype=np.float64)
    texts = mark_low([f"{value:.2f}" if np.isfinite(value) else "" for value in values], values)
    return table.assign(certainty=texts), LEGEND if (values < LOW).any() else ""


def higher_certainty(genes: pd.DataFrame) -> pd.DataFrame:
    """Add the column ``certainty``, the higher one of both groups, to the genes of a contrast where either is known.

    A gene that gains all of its partners has nothing that halves of the cells agree on before.
    """
    both = genes.reindex(columns=["certainty_a", "certainty_b"])
    return genes.assign(certainty=both.max(axis=1)) if both.notna().any(axis=None) else genes


def marked_names(genes: pd.DataFrame) -> list[str]:
    """Return the names of the genes of a contrast, marked where they are uncertain in both groups."""
    known = higher_certainty(genes)
    return mark_low(genes["gene"].tolist(), known["certainty"]) if "certainty" in known else genes["gene"].tolist()
