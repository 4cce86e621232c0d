"""What is known of a dataset while its graph is built.

Legend: n cells kept, M genes kept by the scan, S genes of the first step of sctransform, N genes selected.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from musegnn.coexpression.irls import IRLSFit
    from musegnn.coexpression.scan import CellRange, ScannedCells, ScanResult
    from musegnn.coexpression.sctransform import SCTModel
    from musegnn.coexpression.sparkx import SparkXBasis
    from musegnn.config import DatasetConfig, GraphConfig
    from musegnn.data_store.readers import CountSource
    from musegnn.kernels.moments import DepthBasis


class SelectPlan(NamedTuple):
    """What the pass before the choice of genes collects.

    Moments over depth on `basis`: of the genes at positions `step_one` among the M for the fit of sctransform, shape
    (S,), ``None`` for other models; and the tests with the kernels of `space` where genes are chosen by place.
    """

    basis: DepthBasis
    step_one: NDArray[np.int64] | None
    space: SparkXBasis | None


class Selection(NamedTuple):
    """The choice of genes.

    Attributes
    ----------
    genes
        Positions among the M genes, ascending, shape (N,).
    score
        Residual variance or adjusted p-value by which they were chosen, NaN where by neither; shape (M,), float64.
    skipped
        SPARK-X kernels that the coordinates do not allow.
    missing
        Names of a list that none of the M genes has, ascending.
    """

    genes: NDArray[np.intp]
    score: NDArray[np.float64]
    skipped: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


@dataclass(slots=True)
class BuildState:
    """What the stages of a build have found so far; each sets the attributes that later ones read.

    Attributes
    ----------
    source, dataset, config
        The counts, what they are of, and how the graph is built.
    ranges, cells
        Cells of the source that a task reads, and those kept of each range.
    scan, plan, model, selection
        Result of the first pass, plan of the second, residual model of the M genes, and the N genes chosen.
    ascending
        Order of the N genes by rising number of cells that have them, in which all below is.
    extracted, pair_inputs
        Files of their counts, and of what pairs are computed from.
    fit
        Their means and variances.
    scattered
        Number of leading genes whose pairs are summed one by one (``kernels/gram``).
    """

    source: CountSource
    dataset: DatasetConfig
    config: GraphConfig
    ranges: list[CellRange]
    cells: list[ScannedCells] = field(init=False)
    scan: ScanResult = field(init=False)
    plan: SelectPlan = field(init=False)
    model: SCTModel = field(init=False)
    selection: Selection = field(init=False)
    ascending: NDArray[np.intp] = field(init=False)
    extracted: list[Path] = field(init=False)
    fit: IRLSFit = field(init=False)
    scattered: int = field(init=False)
    pair_inputs: Path = field(init=False)

    @property
    def chosen(self) -> NDArray[np.intp]:
        """Positions of the N genes among the M, in ascending order of cells that have them."""
        return self.selection.genes[self.ascending]

    @property
    def detected(self) -> NDArray[np.int64]:
        """Cells that have each of the N genes, ascending."""
        return self.scan.stats.n_detected[self.chosen]
