"""Coordinates of spatial data: which spots count, and where they are.

Legend: C cells or spots of the file, d spatial dimensions.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.spatial import cKDTree

from musegnn.data_store.genes import plain, truth
from musegnn.data_store.strata import has_label
from musegnn.errors import InputError
from musegnn.text import shorten

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from musegnn.data_store.formats.container import Container, Table

TISSUE_COLUMNS = frozenset(["intissue", "isintissue", "istissue", "undertissue", "ontissue"])
SLIDE_COLUMN = re.compile(
    r"(?:^|[^a-z])(?:library|slides?|slices?|sections?|pieces?|samples?|batch|donor|patient|puck"
    r"|array(?!_?(?:row|col))|capture|replicate|mouse|animal|subject|individual|specimen|orig|dataset|experiment|chip|image|block|core|bregma"
    r"|run)(?:id)?(?:[^a-z]|$)",
    re.IGNORECASE,
)
"""Names of columns that tell slides apart."""
ANNOTATION = re.compile(
    r"type|kind|cell|cluster|leiden|louvain|annot|class|layer|region|domain|phase|sex|state|niche|lineage|label",
    re.IGNORECASE,
)
"""Names of columns that tell kinds of cells or places apart, which are mixed in one tissue."""
MAX_SLIDES = 200
SLIDE_SPOTS = 20
"""Spots of a label below which it is no slide."""
MIXED_SLIDES, MIXED_LABELS = 0.1, 0.9
"""Shares of spots beside one of another label, relative to random labels, above which labels lie over one another."""
SAMPLED = 2000
REGULAR = 0.8


def tissue_mask(cells: Table, n_cells: int, where: str, warnings: list[str]) -> NDArray[np.bool_] | None:
    """Return the spots under tissue where the file marks them (``in_tissue``), ``None`` where all are."""
    column = next((name for name in cells.columns() if plain(name) in TISSUE_COLUMNS), None)
    if column is None:
        return None
    marks = cells.values(column)
    if marks.dtype.kind == "f":
        mask: NDArray[np.bool_] = np.nan_to_num(marks) != 0
    else:
        meaning = truth(marks)
        unknown = np.unique(marks[np.isnan(meaning) & has_label(marks)])
        if len(unknown):
            msg = f"obs {shorten(column, 30)} holds {shorten(str(unknown[0]), 20)!r}, expected truth values"
            raise InputError(msg, code="E262", where=where, fix="write True and False there, or remove the column")
        mask = meaning == 1.0
    outside = int((~mask).sum())
    if outside == 0:
        return None
    if outside == n_cells:
        msg = f"no spot is under tissue (obs {shorten(column, 30)} is 0 everywhere)"
        raise InputError(msg, code="E262", where=where, fix=f"correct or remove obs[{shorten(column, 30)!r}]")
    warnings.append(f"W260: {outside} of {n_cells} spots are not under tissue and were left out")
    return mask


def read_coords(
    container: Container, key: str, n_cells: int, used: NDArray[np.bool_] | None, where: str
) -> NDArray[np.float64]:
    """Read the coordinates of the spots used, shape (n_used, d), in the unit of the file.

    They are E260 when missing, of another shape, not finite or all equal.
    """
    shapes = container.coordinates()
    keys = list(shapes)
    if key not in keys:
        listed = ", ".join(shorten(k, 20) for k in keys[:8]) or "none"
        fix = f"set `spatial_key: {shorten(keys[0], 30)}`" if len(keys) == 1 else "set `spatial_key` to coordinates"
        msg = f"spatial data without coordinates obsm[{shorten(key, 30)!r}] (entries: {listed})"
        raise InputError(msg, code="E260", where=where, fix=fix if keys else "add coordinates or set another modality")
    fix = "correct the coordinates"
    if len(shapes[key]) != 2 or shapes[key][0] != n_cells or shapes[key][1] not in {2, 3}:
        msg = f"coordinates obsm[{key!r}] have shape {shapes[key]}, expected ({n_cells}, 2) or ({n_cells}, 3)"
        raise InputError(msg, code="E260", where=where, fix=fix)
    values = container.read_coordinates(key)
    if values.dtype.kind not in "iuf" or values.shape != shapes[key]:
        msg = f"coordinates obsm[{key!r}] are not a matrix of numbers"
        raise InputError(msg, code="E260", where=where, fix=fix)
    coords: NDArray[np.float64] = values.astype(np.float64)
    rows = np.arange(n_cells)
    if used is not None:
        coords, rows = coords[used], rows[used]
    bad = np.flatnonzero(~np.isfinite(coords).all(axis=1))
    if len(bad):
        first = ", ".join(str(rows[i]) for i in bad[:3])
        msg = f"{len(bad)} spots have no finite coordinates (first: {first})"
        raise InputError(msg, code="E260", where=where, fix="remove these spots")
    if (coords == coords[:1]).all():
        msg = f"all spots have the same coordinates obsm[{key!r}]"
        raise InputError(msg, code="E260", where=where, fix=fix)
    return coords


def check_slides(
    cells: Table, coords: NDArray[np.float64], used: NDArray[np.bool_] | None, by: str | None, where: str
) -> list[str]:
    """Look for slides that lie over one another in one coordinate system.

    Labels are slides if the name of their column says so. Other columns count where the places of spots say so: those
    of each label are a regular grid and those of all are not, or labels are at random among places that are no grid.

    Parameters
    ----------
    cells
        Table of the cells.
    coords, used
        Coordinates of the cells used, shape (n_used, d), and these cells as a mask; ``None``: all.
    by
        Column whose labels become datasets of their own, so that their spots never meet.
    where
        File for messages.

    Returns
    -------
    list of str
        A warning ``W261: ...`` where the name of the column does not say that it holds slides.

    Raises
    ------
    InputError
        E261 where it does.
    """
    if by in cells.columns():
        _, parts = np.unique(_labels(cells.values(by), used)[0], return_inverse=True)
        extent = float(np.ptp(coords, axis=0).max())
        coords = np.column_stack([coords, parts * 10.0 * extent])
    suspect = ""
    for column in cells.columns():
        slides = SLIDE_COLUMN.search(column) is not None
        n_labels = cells.n_labels(column)
        if column == by or (n_labels is not None and not 2 <= n_labels <= MAX_SLIDES):
            continue
        values, named = _labels(cells.values(column), used)
        if not slides and (values.dtype.kind == "f" or ANNOTATION.search(column)):
            continue
        labels, codes, counts = np.unique(values[named], return_inverse=True, return_counts=True)
        large = counts >= SLIDE_SPOTS
        if not 2 <= large.sum() <= len(labels) <= MAX_SLIDES:
            continue
        inside = large[codes]
        places, codes = coords[named][inside], codes[inside]
        mixed = _mixing(places, codes)
        if slides and mixed > MIXED_SLIDES:
            msg = f"{large.sum()} slides (obs {shorten(column, 30)}) lie over one another in one coordinate system"
            fix = f"make each slide a dataset of its own, `by: {shorten(column, 30)}`"
            raise InputError(msg, code="E261", where=where, fix=fix)
        if mixed > MIXED_LABELS and not suspect and _is_overlaid(places, codes):
            suspect = column
    if not suspect:
        return []
    advice = f"if these are slides, set `by: {shorten(suspect, 30)}`"
    return [f"W261: spots of different labels of obs {shorten(suspect, 30)} lie over one another; {advice}"]


def _labels(
    values: NDArray[Any], used: NDArray[np.bool_] | None
) -> tuple[NDArray[Any], NDArray[np.bool_]]:  # text or float64
    values = values if used is None else values[used]
    return values, ~np.isnan(values) if values.dtype.kind == "f" else has_label(values)


def _mixing(places: NDArray[np.float64], codes: NDArray[np.intp]) -> float:
    """Return how often the nearest spot has another label, relative to labels at random."""
    some = np.unique(np.linspace(0, len(places) - 1, SAMPLED).astype(np.intp))
    # Of spots in one place, any of which may be first, the second is another one.
    near = cKDTree(places).query(places[some], k=2)[1]
    other = np.where(near[:, 0] == some, near[:, 1], near[:, 0])
    share = np.bincount(codes) / len(codes)
    return float((codes[other] != codes[some]).mean() / (1.0 - (share**2).sum()))


def _is_overlaid(places: NDArray[np.float64], codes: NDArray[np.intp]) -> bool:
    """Return whether spots of all labels together are no regular grid."""
    some = np.unique(np.linspace(0, len(places) - 1, SAMPLED).astype(np.intp))
    distance = cKDTree(places).query(places[some], k=2)[0][:, 1]
    typical = float(np.median(distance))
    return typical == 0.0 or bool(np.quantile(distance, 0.05) < REGULAR * typical)
