"""The passes of a build without certainty, to time what it costs."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING
from unittest.mock import patch

import numpy as np

from musegnn.coexpression import pairs as stages
from musegnn.coexpression.cscore import PairStatistics, weight_slopes
from musegnn.coexpression.irls import MomentScan
from musegnn.coexpression.tasks import load
from musegnn.kernels.gram import WeightedGram

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from musegnn.coexpression.pairs import ExtractedCounts, KeptPairs
    from musegnn.coexpression.scan import ScannedCells
    from musegnn.kernels.moments import DepthBasis


@contextmanager
def without_certainty() -> Iterator[None]:
    """Build with one sum over all cells."""
    names = {"extract_range": _extract_range, "gram_stripe": _gram_stripe, "collect_certainty": lambda *_: None}
    with patch.multiple(stages, **names):
        yield


def _extract_range(cells: ScannedCells, genes: NDArray[np.intp], basis: DepthBasis) -> ExtractedCounts:
    scan = MomentScan(len(genes), basis)
    parts, depths = [], [np.zeros(0)]
    for _, block, depth in cells.blocks(genes):
        scan.update(block, depth)
        parts.append(block)
        depths.append(depth)
    data = np.concatenate([np.zeros(0, np.int32), *(block.data for block in parts)])
    indices = np.concatenate([np.zeros(0, np.int32), *(block.indices for block in parts)])
    moments = scan.finish()
    return stages.ExtractedCounts(
        indptr=np.cumsum(np.concatenate([np.zeros(1, np.int64), *(np.diff(block.indptr) for block in parts)])),
        indices=indices.astype(np.min_scalar_type(max(len(genes) - 1, 0))),
        data=data.astype(np.min_scalar_type(int(data.max(initial=0)))),
        depth=np.concatenate(depths),
        is_first=np.zeros(0, np.bool_),
        first=np.stack([moments.first, np.zeros_like(moments.first)]),
        second=np.stack([moments.second, np.zeros_like(moments.second)]),
        cells=np.stack([moments.cells, np.zeros_like(moments.cells)]),
    )


def _gram_stripe(inputs: Path, extracted: Sequence[Path], rows: tuple[int, int]) -> KeptPairs:
    about = load(inputs, stages.PairInputs)
    fit = about.fit
    gram = WeightedGram(fit.mu, weight_slopes(fit), rows=rows, scattered=about.scattered)
    for block, depth in stages.extracted_blocks(extracted, len(fit.mu)):
        gram.add(block, depth)
    statistics = PairStatistics(about.moments.whole, fit)
    return stages.keep_pairs(statistics.stripes(gram.values(), rows[0]), about.z_store, np.zeros((6, len(fit.mu))))
