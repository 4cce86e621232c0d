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

    Attributes
    ----------
    basis
        The expansion over the range of depths.
    step_one
        Positions among the M genes whose moments the sctransform fit takes, shape (S,), none of them where no gene is
        over-dispersed; ``None`` for other models.
    space
        Transforms of the coordinates where genes are chosen by spatial variation, else ``None``.
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
    ranges
        Cells of the source that a task reads.
    cells
        The kept cells of each range.
    scan
        Depths, kept cells and genes, and sums of their counts.
    plan
        What the second pass collects.
    model
        Residual model of the M genes.
    selection
        The N genes.
    ascending
        Order of the N genes by rising number of cells that have them, in which pairs and profile are computed.
    extracted
        Files of the counts of the N genes, in ascending order.
    fit
        Means and variances of the N genes, in ascending order.
    scattered
        Number of leading genes whose pairs are summed one by one (``kernels/gram``).
    pair_inputs
        File of what pairs are computed from.
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
