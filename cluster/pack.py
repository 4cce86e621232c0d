"""Copies of the counts of files that are split by the labels of their cells, or stored by columns.

Such a file is read once, in tasks of ranges of cells, and becomes rows on disk (:mod:`musegnn.data_store.split_counts`)
that the builds of all its parts read.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from musegnn.coexpression.build import ALGORITHM
from musegnn.coexpression.scan import cut_ranges
from musegnn.coexpression.tasks import Task, is_whole, load, run_stage
from musegnn.data_store import build_id
from musegnn.data_store.split_counts import PackedSource, Piece, pack
from musegnn.data_store.strata import label_codes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from musegnn.coexpression.tasks import Runner
    from musegnn.config import DatasetConfig
    from musegnn.data_store.readers import CountSource, FileSource

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PackedFile:
    """File whose counts were copied by the labels of its cells; without labels, it has the one that is empty."""

    pieces: list[Piece]
    labels: list[str]
    cells: list[NDArray[np.intp]]

    def source(self, file: FileSource, dataset: DatasetConfig) -> PackedSource:
        """Return the counts of the cells of `dataset`, which is this file or a stratum of it."""
        code = self.labels.index(dataset.stratum or "")
        about = {"by": dataset.by, "stratum": dataset.stratum} if dataset.stratum is not None else {}
        return PackedSource(file, self.pieces, code, cells=self.cells[code], **about)


def split_identity(file: FileSource, dataset: DatasetConfig, block_rows: int) -> str | None:
    """Return the identity of the copy of a file, from all that it depends on; ``None`` where none is needed."""
    if dataset.by is None and file.access == "rows":
        return None
    parameters = {
        "by": dataset.by,
        "layer": dataset.layer,
        "shape": [file.n_cells, file.n_genes],  # which columns and cells are read is up to the dataset's settings
        "rows": block_rows,
    }
    return build_id(file.fingerprint(), parameters, ALGORITHM)


def pack_file(
    file: FileSource,
    dataset: DatasetConfig,
    *,
    folder: Path,
    run: Runner,
    block_rows: int,
    done: Callable[[], None],
) -> PackedFile:
    """Copy the counts of a file to `folder`; what a killed call left there whole is kept.

    `run` runs the tasks and `done` is called after each.
    """
    if dataset.by is None:
        labels, codes = [""], np.zeros(file.n_cells, dtype=np.int32)
    else:
        labels, codes = label_codes(file, dataset.by)
    size = block_rows if file.access == "rows" else file.n_cells
    tasks = [
        Task(
            folder / f"{cells.index:05d}.npz",
            _pack_range,
            (file, codes, len(labels), cells.start, cells.stop, block_rows, folder / f"{cells.index:05d}.counts"),
        )
        for cells in cut_ranges(file.n_cells, size)
    ]
    _drop_damaged(tasks)
    run_stage(tasks, run, lambda _: done())
    parts = [load(task.path, _PackedRange) for task in tasks]
    merged = sum(part.merged for part in parts)
    if merged:
        logger.warning("%s: W236: %d duplicate entries of the sparse matrix were summed", dataset.name, merged)
    pieces = [_piece(task, part) for task, part in zip(tasks, parts, strict=True)]
    cells = [np.flatnonzero(codes == code) for code in range(len(labels))]
    return PackedFile(pieces, labels, cells)


class _PackedRange(NamedTuple):
    """A :class:`Piece` without its path, and the number of duplicate entries that were summed."""

    n_cells: NDArray[np.int64]
    n_entries: NDArray[np.int64]
    size: int
    crc32: int
    merged: int


def _piece(task: Task, part: _PackedRange) -> Piece:
    return Piece(
        path=task.arguments[-1],
        n_cells=part.n_cells,
        n_entries=part.n_entries,
        size=part.size,
        crc32=part.crc32,
    )


def _drop_damaged(tasks: Sequence[Task]) -> None:
    """Remove results of a killed build whose counts are missing or differ, so that their tasks run again."""
    for task in tasks:
        if is_whole(task.path) and not _piece(task, load(task.path, _PackedRange)).is_whole():
            task.path.unlink()


def _pack_range(
    source: CountSource, codes: NDArray[np.int32], n_labels: int, start: int, stop: int, rows: int, path: Path
) -> _PackedRange:
    piece = pack(source, codes, n_labels, start, stop, rows, path)
    return _PackedRange(piece.n_cells, piece.n_entries, piece.size, piece.crc32, source.n_merged(start, stop))
