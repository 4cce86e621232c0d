"""Coordinates of spatial data: which spots count, and where they are.

Legend: C cells or spots of the file, d spatial dimensions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from musegnn.errors import InputError
from musegnn.text import shorten

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from musegnn.data_store.formats.container import Container, Table

TRUE = ("1", "1.0", "true", "t", "yes")


def tissue_mask(cells: Table, n_cells: int, where: str, warnings: list[str]) -> NDArray[np.bool_] | None:
    """Return the spots under tissue where the file marks them (``in_tissue``), ``None`` where all are."""
    if "in_tissue" not in cells.columns():
        return None
    marks = cells.values("in_tissue")
    mask: NDArray[np.bool_]
    mask = np.isin(np.char.lower(marks), TRUE) if marks.dtype.kind == "U" else np.nan_to_num(marks) != 0
    outside = int((~mask).sum())
    if outside == 0:
        return None
    if outside == n_cells:
        msg = "no spot is under tissue (obs in_tissue is 0 everywhere)"
        raise InputError(msg, code="E262", where=where, fix="correct or remove obs['in_tissue']")
    warnings.append(f"W260: {outside} of {n_cells} spots are not under tissue and were left out")
    return mask


def read_coords(
    container: Container, cells: Table, key: str, n_cells: int, used: NDArray[np.bool_] | None, where: str
) -> NDArray[np.float64]:
    """Read the coordinates of the spots used, shape (n_used, d), in the unit of the file.

    They are E260 when missing, of another shape, not finite or all equal, and E261 when slides lie over one another.
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
    _refuse_overlaid_slides(cells, coords, rows, where)
    return coords


def _refuse_overlaid_slides(cells: Table, coords: NDArray[np.float64], rows: NDArray[np.intp], where: str) -> None:
    if "library_id" not in cells.columns():
        return
    slide = cells.values("library_id")[rows]
    boxes = [(coords[slide == s].min(axis=0), coords[slide == s].max(axis=0)) for s in np.unique(slide)]
    for i, (low, high) in enumerate(boxes):
        for other_low, other_high in boxes[:i]:
            if (low <= other_high).all() and (other_low <= high).all():
                msg = f"{len(boxes)} slides (obs library_id) lie over one another in one coordinate system"
                raise InputError(msg, code="E261", where=where, fix="make each slide a dataset of its own")
