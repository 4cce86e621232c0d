"""Node features: what a gene is known by before training.

The *profile* describes a gene in the cells of its own dataset, in coordinates that no other dataset has; the
*relations*, by its co-expression with the anchor genes, those that several datasets have. Each meets a linear map: one
of the dataset alone, and one that all share. Either may be absent. A gene's own identity is in neither.

Legend: N genes, R profile columns, V anchor genes, C of them in this dataset, P projected width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from musegnn.vectors import unit_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from musegnn.model.relational_features import Relations


GAIN = 32.0


class Projection(nn.Module):
    """A map of relations to a width P that all datasets share, from V anchor genes.

    The map is ``GAIN`` times the weights, so that a step of Adam, which moves every weight by about the learning rate,
    turns the map as slowly as it turns the other layers.
    """

    def __init__(self, n_anchors: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(2 * n_anchors, dim))

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw normal weights such that relations of unit norm give features of unit variance."""
        nn.init.normal_(self.weight, std=1.0 / GAIN, generator=generator)

    def forward(self, values: torch.Tensor, columns: torch.Tensor, keep: torch.Tensor | None = None) -> torch.Tensor:
        """Return the projection (N, P) of relations `values` (N, 2C) to `columns` (2C,), weighed by `keep` (2C,)."""
        weight = self.weight.index_select(0, columns)
        if keep is not None:
            weight = weight * keep[:, None]
        return GAIN * (values @ weight)


class DatasetMaps(nn.Module):
    """The linear maps of one dataset.

    ``own`` (R, own_width) is the map of the profile and counts ``GAIN`` times, as in :class:`Projection`. ``align``
    (n_projected, shared_width) follows the shared map and gives coordinates the covariance that they have in others.
    Of an added dataset, ``more`` (n_extra, shared_width) maps its extra features, as the shared map knows few of its
    genes.
    """

    def __init__(
        self, n_profile: int, own_width: int, shared_width: int, n_projected: int, *, n_extra: int = 0
    ) -> None:
        super().__init__()
        self.own = nn.Parameter(torch.empty(n_profile, own_width))
        self.align = nn.Parameter(torch.eye(n_projected, shared_width))
        self.more = nn.Parameter(torch.zeros(n_extra, shared_width)) if n_extra else None

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw the map of the profile from a normal distribution; leave the shared map as it is."""
        nn.init.normal_(self.own, std=1.0 / GAIN, generator=generator)
        nn.init.eye_(self.align)
        if self.more is not None:
            nn.init.zeros_(self.more)

    def forward(
        self, profile: torch.Tensor, projected: torch.Tensor, extra: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return both maps side by side, each centred over the genes and scaled to rows of length one.

        `profile` is (N, R), `projected` the output (N, n_projected) of :class:`Projection`, `extra` (N, n_extra).
        """
        shared = projected @ self.align
        if extra is not None and self.more is not None:
            shared = shared + extra @ self.more
        blocks = GAIN * (profile @ self.own), shared
        return torch.cat([functional.normalize(x - x.mean(dim=0), dim=1) for x in blocks], dim=1)


class NodeFeatures:
    """The node features of one dataset on a device; `related` is ``None`` for the layers of the published model.

    Attributes
    ----------
    profile
        (N, R), scaled such that a layer which draws its weights for R columns treats it as if it were as wide as the
        dataset has cells, `n_cells`, before its lossless compression.
    values, columns, genes
        Relations and places as in :meth:`Projection.forward`, and anchor genes (C,) in their order; or ``None``.
    extra
        Of an added dataset, features for its own map alone, (N, n_extra); else ``None``.
    """

    def __init__(
        self,
        *,
        profile: NDArray[np.float32],
        related: Relations | None = None,
        extra: NDArray[np.float32] | None = None,
        n_cells: int,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
    ) -> None:
        self.n_profile = profile.shape[1]
        self.profile = torch.as_tensor(profile, dtype=dtype, device=device) * (self.n_profile / n_cells) ** 0.5
        self.extra = None if extra is None else torch.as_tensor(extra, dtype=dtype, device=device)
        self.values: torch.Tensor | None = None
        self.columns: torch.Tensor | None = None
        self.genes: NDArray[np.int64] | None = None
        if related is not None:
            self.values = torch.as_tensor(related.values, dtype=dtype, device=device)
            self.columns = torch.as_tensor(related.columns, device=device)
            self.genes = related.genes

    def project(self, projection: nn.Module, keep: torch.Tensor | None = None) -> torch.Tensor:
        """Return the projected relations, shape (N, P), where `keep` (2C,) weighs the relations."""
        projected: torch.Tensor = projection(self.values, self.columns, keep)
        return projected


def extra_features(profile: NDArray[np.floating], statistics: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return the extra features of an added dataset, (N, R + C), each kind of equal variance, centred.

    `profile` is (N, R), `statistics` (N, C) the test statistics of co-expression with the genes that have a target.
    """
    blocks = []
    for x in (unit_rows(profile - profile.mean(axis=0, dtype=np.float64)), statistics.astype(np.float64)):
        centred = x - x.mean(axis=0)
        size = np.sqrt((centred**2).sum() / max(len(centred), 1))
        blocks.append(centred / size if size > 0.0 else centred)
    return np.concatenate(blocks, axis=1).astype(np.float32)


def dropout_mask(
    size: Sequence[int], share: float, generator: torch.Generator, like: torch.Tensor
) -> torch.Tensor | None:
    """Return factors of dropout, 0 for a `share` of entries, else ``1/(1 - share)``; ``None`` for a share of 0.

    `generator` is one of the CPU, for the same entries on every device; the result has the dtype and device of `like`.
    """
    if share == 0.0:
        return None
    drawn = torch.rand(tuple(size), generator=generator, dtype=torch.float32)
    return drawn.ge_(share).to(like).mul_(1.0 / (1.0 - share))
