"""Checks of raw counts, block by block, so that validation and the first scan are one pass.

Legend: b cells of a block, C cells, G genes, V stored values.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import scipy.sparse as sp

from musegnn.errors import InputError
from musegnn.text import short_path, shorten

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from musegnn.data_store.count_source import CountSource

MAX_COUNT = 2**24
"""Largest count that float32 holds exactly."""
BINARY = 12
"""Largest count of data that may have been binarised, or normalised and rounded."""
FEW_COUNTS = 100
"""Counts of a cell below which it may be an empty droplet."""
CACHED_VALUES = 2**16
"""Values that are compared at a time, so that what is in between stays in a cache."""
PLACES = 3
MAX_LINE = 300
FROM_SOURCE = "write the file anew from its source"
FROM_ANNDATA = "write the file anew with a current AnnData"


@dataclass(slots=True)
class _Finding:
    """Number and first places of the values of one kind that are not counts."""

    count: int = 0
    places: list[str] = field(default_factory=list)


class CountCheck:
    """Check the blocks of one pass over a matrix and turn them into canonical int32 CSR.

    After the first value that is not a count, blocks are only looked through, so that the error at the end names
    the first places and the number of bad values in the whole matrix.

    Parameters
    ----------
    where
        File or dataset for messages.
    genes
        Names of the G genes.
    values
        ``False`` where an earlier pass has found all values to be counts. Structure is always checked.
    """

    def __init__(self, where: str, genes: Sequence[str] | NDArray[np.str_], *, values: bool = True) -> None:
        self.where = where
        self.genes = genes
        self._values = values
        self.n_values = 0
        self.n_merged = 0
        self._bad = {kind: _Finding() for kind in ("not_finite", "negative", "fraction", "large")}

    @property
    def failed(self) -> bool:
        """Whether any value was not a count."""
        return any(finding.count for finding in self._bad.values())

    def add(
        self, first_cell: int, indptr: NDArray[Any], indices: NDArray[Any], data: NDArray[Any]
    ) -> sp.csr_matrix | None:
        """Check one block of rows, whose arrays may become those of the result.

        Parameters
        ----------
        first_cell
            Number of the block's first row in the matrix.
        indptr, indices
            Row pointers from 0, shape (b + 1,), and columns, shape (V,), any integers.
        data
            Values, shape (V,), any real type.

        Returns
        -------
        scipy.sparse.csr_matrix or None
            Shape (b, G): data int32 in [1, 2^24], indices int32 ascending, no duplicates, no stored zeros.
            ``None`` where this block or an earlier one holds values that are not counts.

        Raises
        ------
        InputError
            E102 when the block is not a valid CSR structure.
        """
        check_structure(indptr, indices, data, len(self.genes), where=self.where, first_cell=first_cell)
        self.n_values += len(data)
        counts = _exact_int32(data) if self._values else _to_int32(data)
        if counts is None:
            self._classify(first_cell, indptr, indices, data)
        if counts is None or self.failed:
            return None
        # scipy gives indices and pointers one type, and checks the contents of wide ones to narrow them.
        pointers = indptr.astype(np.int32, copy=False) if len(data) <= np.iinfo(np.int32).max else indptr
        shape = (len(indptr) - 1, len(self.genes))
        block = sp.csr_matrix((counts, indices.astype(np.int32, copy=False), pointers), shape=shape)
        canonical = block if block.has_canonical_format else self._merge(first_cell, block)
        if canonical is not None and canonical.data.min(initial=1) == 0:
            canonical.eliminate_zeros()
        return canonical

    def finish(self, *, elsewhere: str = "") -> None:
        """Raise for the values that were found, with `elsewhere` as advice where it is known.

        Raises
        ------
        InputError
            E204 NaN or infinite, E203 negative, E201 mostly fractions, E202 few fractions, E206 above 2^24.
        """
        raw = elsewhere or "give the raw counts of this dataset"
        rounded = elsewhere or "round the counts and write the file"
        self._raise("not_finite", "E204", "NaN or infinite values", raw)
        self._raise("negative", "E203", "negative values, as in scaled data", raw)
        share = self._bad["fraction"].count / max(self.n_values, 1)
        if share > 1e-3:
            self._raise("fraction", "E201", "values that are not integers, as in normalised data", raw)
        self._raise("fraction", "E202", "values that are not integers", rounded)
        self._raise("large", "E206", "values above 2^24", "check the counts: no cell holds so many copies of a gene")

    def _raise(self, kind: str, code: str, what: str, fix: str) -> None:
        finding = self._bad[kind]
        share = 100.0 * finding.count / max(self.n_values, 1)
        for shown in range(len(finding.places), 0, -1):
            more = ", ..." if finding.count > shown else ""
            places = f"first: {'; '.join(finding.places[:shown])}{more}"
            msg = f"{finding.count} {what}, {share:.3g} % of stored values ({places})"
            error = InputError(msg, code=code, where=self.where, fix=fix)
            if len(error.line()) <= MAX_LINE or shown == 1:
                raise error

    def _classify(self, first_cell: int, indptr: NDArray[Any], indices: NDArray[Any], data: NDArray[Any]) -> None:
        finite = np.isfinite(data)
        whole = np.zeros(len(data), dtype=bool)
        whole[finite] = data[finite] == np.floor(data[finite])
        negative = finite & (data < 0)
        masks = {
            "not_finite": ~finite,
            "negative": negative,
            "fraction": finite & ~whole & ~negative,
            "large": finite & (data > MAX_COUNT),
        }
        for kind, mask in masks.items():
            finding = self._bad[kind]
            hits = np.flatnonzero(mask)
            finding.count += len(hits)
            for hit in hits[: PLACES - len(finding.places)]:
                cell = first_cell + int(np.searchsorted(indptr, hit, side="right")) - 1
                gene = shorten(str(self.genes[indices[hit]]), 24)
                finding.places.append(f"{data[hit]:.6g} at cell {cell}, {gene}")

    def _merge(self, first_cell: int, block: sp.csr_matrix) -> sp.csr_matrix | None:
        before = block.nnz
        block = block.astype(np.int64)
        block.sum_duplicates()
        self.n_merged += before - block.nnz
        if block.nnz and block.data.max() > MAX_COUNT:
            self._classify(first_cell, block.indptr, block.indices, block.data)
            return None
        return block.astype(np.int32)


def check_structure(
    indptr: NDArray[Any],
    indices: NDArray[Any],
    data: NDArray[Any],
    n_columns: int,
    *,
    where: str,
    first_cell: int = 0,
    row: str = "row",
) -> None:
    """Check compressed sparse rows, as in :meth:`CountCheck.add`, before any compiled code trusts them.

    Raises
    ------
    InputError
        E102 when pointers do not start at 0, decrease or do not end at the number of values; when `indices` and
        `data` differ in length; when an index is outside ``[0, n_columns)``.
    """
    check_pointers(indptr, len(indptr) - 1, len(indices), len(data), where=where, first_cell=first_cell, row=row)
    # As an unsigned number a negative index is a large one, so that one pass finds both.
    if len(indices) and int(indices.view(indices.dtype.str.replace("i", "u")).max()) >= n_columns:
        hits = np.flatnonzero((indices < 0) | (indices >= n_columns))
        place = first_cell + int(np.searchsorted(indptr, hits[0], side="right")) - 1
        problem = f"{len(hits)} indices outside 0..{n_columns - 1} (first: {indices[hits[0]]} in {row} {place})"
        raise_malformed(f"malformed sparse matrix: {problem}", where)


def check_pointers(
    indptr: NDArray[Any],
    n_rows: int,
    n_indices: int,
    n_values: int,
    *,
    where: str,
    first_cell: int = 0,
    row: str = "row",
) -> None:
    """Check the number of compressed rows, and their pointers against the lengths of what they point into."""
    problem = ""
    if len(indptr) == 0 or indptr[0] != 0:
        problem = f"{row} pointers start at {indptr[0] if len(indptr) else 'nothing'}, expected 0"
    elif len(indptr) != n_rows + 1:
        problem = f"{len(indptr)} {row} pointers for {n_rows} {row}s"
    elif n_indices != n_values:
        problem = f"{n_indices} indices for {n_values} values"
    elif (indptr[1:] < indptr[:-1]).any():
        place = int(np.flatnonzero(indptr[1:] < indptr[:-1])[0])
        problem = f"{row} pointers decrease after {row} {first_cell + place}"
    elif indptr[-1] != n_values:
        problem = f"{row} pointers end at {indptr[-1]}, expected {n_values} (the number of values)"
    if problem:
        raise_malformed(f"malformed sparse matrix: {problem}", where)


def raise_malformed(problem: str, where: str, fix: str = FROM_SOURCE) -> NoReturn:
    """Raise the error of a file whose structure is not that of AnnData."""
    raise InputError(problem, code="E102", where=where, fix=fix)


def _exact_int32(data: NDArray[Any]) -> NDArray[np.int32] | None:
    """Convert to int32 when every value is a whole number in [0, 2^24], else return ``None``."""
    if data.dtype.kind == "b":
        return _to_int32(data)
    if np.can_cast(data.dtype, np.int32):
        counts = _to_int32(data)
        return counts if _are_counts(counts) else None
    counts = np.empty(len(data), dtype=np.int32)
    for start in range(0, len(data), CACHED_VALUES):
        values, part = data[start : start + CACHED_VALUES], counts[start : start + CACHED_VALUES]
        part[:] = _to_int32(values)
        # A count up to 2^24 converts back exactly where it came from a value of that type.
        if not _are_counts(part) or not (part.astype(data.dtype) == values).all():
            return None
    return counts


def _are_counts(values: NDArray[np.int32]) -> bool:
    """Return whether all are in [0, 2^24]; as an unsigned number a negative count is a large one."""
    return bool(values.view(np.uint32).max(initial=0) <= MAX_COUNT)


def _to_int32(data: NDArray[Any]) -> NDArray[np.int32]:
    with np.errstate(invalid="ignore"):
        return data.astype(np.int32, copy=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class CountSummary:
    """Sizes and sums of a matrix of counts, and warnings as lines ``W###: ...``.

    `n_values` are the counts above zero, `empty_cells` and `empty_genes` have none, and `median_depth` is the median
    over cells of the sum of counts.
    """

    n_cells: int
    n_genes: int
    n_values: int
    total: int
    largest: int
    empty_cells: int
    empty_genes: int
    median_depth: float
    warnings: list[str]


def validate_counts(source: CountSource, rows: int = 16384) -> CountSummary:
    """Read all counts once, in blocks of `rows` cells, and check them; :class:`InputError` when they are no counts."""
    depth = np.zeros(source.n_cells, dtype=np.int64)
    detected = np.zeros(source.n_genes, dtype=np.int64)
    n_values = largest = 0
    for start, block in source.blocks(rows):
        depth[start : start + block.shape[0]] = np.asarray(block.sum(axis=1, dtype=np.int64)).ravel()
        detected += np.bincount(block.indices, minlength=source.n_genes)
        n_values += block.nnz
        largest = max(largest, int(block.data.max(initial=0)))
    summary = CountSummary(
        n_cells=source.n_cells,
        n_genes=source.n_genes,
        n_values=n_values,
        total=int(depth.sum()),
        largest=largest,
        empty_cells=int((depth == 0).sum()),
        empty_genes=int((detected == 0).sum()),
        median_depth=float(np.median(depth)),
        warnings=list(source.warnings),
    )
    if summary.total == 0:
        msg = "every count is zero"
        raise InputError(msg, code="E207", where=short_path(source.path), fix="give the raw counts of this dataset")
    about = {"empty_cells": summary.empty_cells, "empty_genes": summary.empty_genes, "largest": largest}
    summary.warnings.extend(count_warnings(depth, n_cells=source.n_cells, n_genes=source.n_genes, **about))
    return summary


def count_warnings(
    depth: NDArray[Any], *, n_cells: int, n_genes: int, empty_cells: int, empty_genes: int, largest: int
) -> list[str]:
    """Return lines ``W###: ...`` about counts that are hardly raw counts of filtered cells.

    `depth` is of all cells but some of those without counts, float64 or int64.
    """
    warnings = []
    filled = depth[depth > 0]
    if largest <= BINARY and len(filled) and filled.min() == filled.max():
        warnings.append(f"W205: all cells have {filled[0]:g} counts; binarised or normalised and rounded data?")
    if empty_cells:
        warnings.append(f"W229: {empty_cells} of {n_cells} cells have no counts and were dropped")
    if empty_genes > n_genes / 2:
        warnings.append(f"W230: {empty_genes} of {n_genes} genes have no counts; an unfiltered raw matrix?")
    median = float(np.median(np.concatenate([np.zeros(empty_cells), filled])))
    if median < FEW_COUNTS:
        advice = "unfiltered droplets? graph.qc.min_counts leaves cells out"
        warnings.append(f"W250: the median cell has {median:g} counts; {advice}")
    return warnings
