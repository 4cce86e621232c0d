"""Analytic Pearson residuals: a negative binomial model of fixed size around the product of margins.

Legend: n cells, G genes.

References
----------
Lause, J., Berens, P. and Kobak, D. (2021), Genome Biol. 22, 258.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from musegnn.coexpression.sctransform import SCTModel

if TYPE_CHECKING:
    from musegnn.coexpression.stats import GeneStats

THETA = 100.0


def pearson_model(stats: GeneStats, total_depth: float, *, theta: float = THETA) -> SCTModel:
    """Return the model with the expected count ``s_i * total_j / sum_i s_i``; nothing is fitted.

    Parameters
    ----------
    stats
        Sums of the G genes over n cells.
    total_depth
        Sum of the depths of the cells.
    theta
        Negative binomial size of every gene.

    Returns
    -------
    SCTModel
        Without a lower bound of the variance; residuals are clipped at ``sqrt(n)``. Genes without counts have none.
    """
    detected = stats.total > 0
    intercept = np.full(len(stats.total), np.nan)
    intercept[detected] = np.log(stats.total[detected] / total_depth)
    return SCTModel(
        intercept=intercept, theta=np.where(detected, theta, np.nan), min_variance=0.0, n_cells=stats.n_cells
    )
