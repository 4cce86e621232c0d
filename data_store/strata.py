"""Cells grouped by a column of ``obs``, and the names that their datasets get.

Legend: C cells of a source.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from musegnn.errors import InputError
from musegnn.text import short_path, shorten

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from musegnn.data_store.count_source import CountSource

MAX_NUMBERS = 100
"""Most distinct values of a column of numbers that still looks like a grouping."""
MISSING = frozenset(["", "nan", "na", "n/a", "#n/a", "<na>", "none", "null", "nat"])
"""What tables hold where a label is missing, in small letters."""


def label_codes(source: CountSource, column: str) -> tuple[list[str], NDArray[np.int32]]:
    """Return the labels in a column of ``obs``, and the number of the label of each cell.

    Parameters
    ----------
    source
        Counts of C cells.
    column
        Column of text, categories, truth values, or numbers with at most 100 distinct values.

    Returns
    -------
    tuple of list of str and numpy.ndarray
        Labels in ascending order, and the number of each cell's label, shape (C,), int32; -1 for cells without, or with
        a word for a missing one such as ``nan``.

    Raises
    ------
    InputError
        E255 when there is no such column, E256 when it is no grouping, E257 when labels cannot become parts of
        dataset names that differ (:func:`slug`).
    """
    values = source.obs(column)
    where, shown = short_path(source.path), shorten(column, 30)
    numbers = values.dtype.kind == "f"
    used = np.flatnonzero(~np.isnan(values) if numbers else has_label(values))
    distinct, numbered = np.unique(values[used], return_inverse=True)
    if len(distinct) == 0 or (numbers and len(distinct) > MAX_NUMBERS):
        what = f"{len(distinct)} different numbers" if len(distinct) else "no values"
        msg = f"obs column `{shown}` has {what} and is no grouping of cells"
        raise InputError(msg, code="E256", where=where, fix="name a column of labels")
    labels = [str(int(v)) if v.is_integer() else repr(v) for v in distinct.tolist()] if numbers else distinct.tolist()
    seen: dict[str, str] = {}
    for label in labels:
        name = slug(label)
        if not name or name in seen:
            other = f" and {shorten(seen[name], 30)!r} both become {name!r}" if name else " has no letter or digit"
            msg = f"obs column `{shown}`: label {shorten(label, 30)!r}{other} in a dataset name"
            raise InputError(msg, code="E257", where=where, fix="rename the labels with letters and digits")
        seen[name] = label
    codes = np.full(len(values), -1, dtype=np.int32)
    codes[used] = numbered
    return labels, codes


def has_label(values: NDArray[np.str_]) -> NDArray[np.bool_]:
    """Mark the cells of a column of text that have a label, shape (C,)."""
    found, codes = np.unique(values, return_inverse=True)
    named = np.array([label.strip().lower() not in MISSING for label in found.tolist()], dtype=np.bool_)
    marked: NDArray[np.bool_] = named[codes]
    return marked


def stratum_labels(source: CountSource, column: str) -> dict[str, NDArray[np.intp]]:
    """Return the cells of each label of :func:`label_codes`, ascending; cells without a label are in none."""
    labels, codes = label_codes(source, column)
    order = np.argsort(codes, kind="stable")
    ends = np.searchsorted(codes[order], np.arange(len(labels) + 1))
    return {label: order[ends[code] : ends[code + 1]] for code, label in enumerate(labels)}


def slug(label: str) -> str:
    """Turn a label into a part of a dataset name: letters, digits, dot, dash and underscore.

    Every other run of characters becomes one underscore, and none is left at the ends.

    Examples
    --------
    >>> slug("T cell (CD4+)")
    'T_cell_CD4'
    """
    return re.sub(r"[^A-Za-z0-9.-]+", "_", label).strip("_")
