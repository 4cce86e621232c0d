"""Node features: what a gene is known by before training.

Three blocks, of which some may be absent. The *profile* describes a gene in the cells of its own dataset; the
*aligned* profile does so in coordinates that all datasets share. The *relations* describe it by its co-expression with
the genes that several datasets have, and meet one projection that all datasets share. A gene's own identity is in
none of them.

Legend: N genes, R profile columns, A aligned columns, V genes of the vocabulary, C of them in this dataset,
P projected width.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from musegnn.data_store.records import PairTable


def vocabulary(keys: Sequence[NDArray[np.str_]], trainable: Sequence[NDArray[np.bool_]]) -> list[str]:
    """List the genes by which others are described: those that are not held out and in two datasets at least.

    Parameters
    ----------
    keys, trainable
        Gene keys of each dataset and which of them are not held out, shapes (N,).

    Returns
    -------
    list of str
        Sorted. All trainable genes when there is a single dataset.
    """
    counts = Counter(key for names, keep in zip(keys, trainable, strict=True) for key in names[keep].tolist())
    return sorted(key for key, count in counts.items() if count > 1 or len(keys) == 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Relations:
    """How the genes of one dataset relate to the vocabulary.

    Attributes
    ----------
    values
        Test statistics of co-expression with the vocabulary's genes, 0 where not stored or held out; rows of unit norm
        (or 0), shape (N, C), float32.
    columns
        Place of each column in the vocabulary, ascending, shape (C,), int64.
    """

    values: NDArray[np.float32]
    columns: NDArray[np.int64]


def relations(
    pairs: PairTable,
    held_out: tuple[NDArray[np.int64], NDArray[np.int64]],
    keys: NDArray[np.str_],
    words: Sequence[str],
) -> Relations:
    """Describe genes by their co-expression with the vocabulary.

    The test statistic is used because the estimate is undefined (0) for genes with a negative variance estimate, and
    all stored pairs because those below the edge rule's cut still tell genes apart.

    Parameters
    ----------
    pairs
        Stored pairs of the dataset.
    held_out
        Rows and columns of pairs that training must not see, held-out edges and non-edges alike, in either direction.
    keys
        Gene keys, shape (N,).
    words
        The vocabulary, sorted.
    """
    n, place = len(keys), {key: k for k, key in enumerate(words)}
    word = np.array([place.get(key, -1) for key in keys.tolist()], dtype=np.int64)
    columns = np.sort(word[word >= 0])
    rows = np.repeat(np.arange(n), np.diff(pairs.indptr))
    hidden = np.concatenate([held_out[0] * n + held_out[1], held_out[1] * n + held_out[0]])
    keep = (word[pairs.indices] >= 0) & ~np.isin(rows * n + pairs.indices, hidden)
    values = np.zeros((n, len(columns)), dtype=np.float32)
    values[rows[keep], np.searchsorted(columns, word[pairs.indices[keep]])] = pairs.z[keep]
    norm = np.linalg.norm(values, axis=1, keepdims=True)
    np.divide(values, norm, out=values, where=norm > 0)
    return Relations(values=values, columns=columns)


class Projection(nn.Module):
    """Map relations to a width that all datasets share.

    Parameters
    ----------
    n_words
        V, genes of the vocabulary.
    dim
        P, width of the result.
    """

    def __init__(self, n_words: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_words, dim))

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw standard normal weights, so that relations of unit norm give features of unit variance."""
        nn.init.normal_(self.weight, generator=generator)

    def forward(self, values: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """Project relations.

        Parameters
        ----------
        values
            (N, C) relations.
        columns
            (C,) int64 places in the vocabulary.

        Returns
        -------
        torch.Tensor
            (N, P).
        """
        return values @ self.weight.index_select(0, columns)


class NodeFeatures:
    """The node features of one dataset on a device: profile, aligned profile, relations, in this order.

    The blocks are scaled such that a layer which draws its weights for the joint width treats each block as if it
    were alone: the profile as wide as the dataset has cells, before its lossless compression, the others as wide as
    they are.

    Parameters
    ----------
    profile
        Residual profile, shape (N, R); ``None``: without.
    aligned
        Profile in common coordinates, rows of unit norm, shape (N, A); ``None``: without.
    related
        Relations to the vocabulary; ``None``: without.
    n_cells
        Cells behind the profile.
    dim
        P, width of the projected relations.
    dtype, device
        Of the tensors.

    Attributes
    ----------
    n_profile, n_aligned, n_related, width
        Columns of each block and of all.
    """

    def __init__(
        self,
        *,
        profile: NDArray[np.float32] | None = None,
        aligned: NDArray[np.float32] | None = None,
        related: Relations | None = None,
        n_cells: int,
        dim: int,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
    ) -> None:
        self.n_profile = 0 if profile is None else profile.shape[1]
        self.n_aligned = 0 if aligned is None else aligned.shape[1]
        self.n_related = 0 if related is None else dim
        self.width = self.n_profile + self.n_aligned + self.n_related
        self._fixed: list[torch.Tensor] = []
        self._values: torch.Tensor | None = None
        self._columns: torch.Tensor | None = None
        if profile is not None:
            scale = (self.width / n_cells) ** 0.5
            self._fixed.append(torch.as_tensor(profile, dtype=dtype, device=device) * scale)
        if aligned is not None:
            # Entries of unit rows have the variance 1/A, which the block's own fan-in A multiplies out.
            self._fixed.append(torch.as_tensor(aligned, dtype=dtype, device=device) * self.width**0.5)
        if related is not None:
            self._values = torch.as_tensor(related.values, dtype=dtype, device=device) * (self.width / dim) ** 0.5
            self._columns = torch.as_tensor(related.columns, device=device)

    def __call__(self, projection: nn.Module | None) -> torch.Tensor:
        """Give the node features, shape (N, width).

        Parameters
        ----------
        projection
            The shared :class:`Projection`; only used with relations.
        """
        blocks = list(self._fixed)
        if projection is not None and self._values is not None:
            blocks.append(projection(self._values, self._columns))
        return blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=1)


def drop(x: torch.Tensor, share: float, generator: torch.Generator) -> torch.Tensor:
    """Set a share of the entries to 0 and let the others grow by ``1/(1 - share)``.

    Parameters
    ----------
    x
        Any shape.
    share
        In [0, 1); 0 gives `x` itself.
    generator
        CPU generator; the same entries are dropped on every device.
    """
    if share == 0.0:
        return x
    keep = torch.rand(x.shape, generator=generator, dtype=torch.float32) >= share
    return x * keep.to(x).mul_(1.0 / (1.0 - share))
