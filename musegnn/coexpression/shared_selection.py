"""Genes that several datasets choose together, so that what is compared between them is there in all.

Every dataset ranks its own genes. As with the batches of scanpy's ``highly_variable_genes(flavor="seurat_v3_paper")``,
those come first that are among the best N of most datasets, then those with the best median rank there. A dataset takes
the first N that it has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from musegnn.aliases import species_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from musegnn.config import DatasetConfig, GraphConfig


class SharedGenes(NamedTuple):
    """The order in which datasets take genes.

    Attributes
    ----------
    members
        Identities of what the datasets that choose together would be built from alone, ascending.
    order
        Names of genes, best first, shape (G,); empty before they have been ranked.
    """

    members: tuple[str, ...]
    order: NDArray[np.str_]

    def positions(self, names: NDArray[np.str_]) -> NDArray[np.intp]:
        """Return where in `names`, which are unique, the genes of the order are, best first; others are left out."""
        place = {name: k for k, name in enumerate(names.tolist())}
        return np.array([place[name] for name in self.order.tolist() if name in place], dtype=np.intp)


def groups_that_choose(datasets: Sequence[DatasetConfig], config: GraphConfig) -> list[tuple[int, ...] | None]:
    """Return for each dataset the places of those that choose genes together, itself included; ``None``: it is alone.

    They agree in tissue and species. What ``selection: all`` or ``list`` name is not chosen.
    """
    members: dict[tuple[str, str], list[int]] = {}
    for i, dataset in enumerate(datasets):
        members.setdefault((species_name(dataset.species), dataset.tissue), []).append(i)
    found: list[tuple[int, ...] | None] = [None] * len(datasets)
    if config.select_by == "dataset" or config.selection in {"all", "list"}:
        return found
    for group in members.values():
        conditions = {datasets[i].condition for i in group} - {None}
        if len(group) > 1 and (config.select_by == "tissue" or len(conditions) > 1):
            for i in group:
                found[i] = tuple(group)
    return found


def combine_rankings(rankings: Sequence[NDArray[np.str_]], n_genes: int) -> NDArray[np.str_]:
    """Order the genes of several datasets.

    Parameters
    ----------
    rankings
        Names of genes of each dataset, best first.
    n_genes
        N, up to which rank a dataset would choose a gene.

    Returns
    -------
    ndarray of shape (G,), str
        The genes of any dataset. Those that none would choose come last, by their median rank; equal ones are in the
        order of their names.
    """
    names, gene = np.unique(np.concatenate(rankings), return_inverse=True)
    rank = np.concatenate([np.arange(len(one)) for one in rankings])
    chosen = rank < n_genes
    times = np.bincount(gene[chosen], minlength=len(names))
    among_chosen = _medians(gene[chosen], rank[chosen], len(names))
    overall = _medians(gene, rank, len(names))
    median = np.where(times > 0, among_chosen, overall)
    return names[np.lexsort((names, median, -times))]


def _medians(group: NDArray[np.intp], value: NDArray[np.intp], n: int) -> NDArray[np.float64]:
    """Return the median value of each of n groups; NaN for empty ones."""
    order = np.lexsort((value, group))
    value, size = value[order], np.bincount(group, minlength=n)
    first = np.cumsum(size) - size
    low, high = first + (size - 1) // 2, first + size // 2
    full = size > 0
    found = np.full(n, np.nan)
    found[full] = (value[low[full]] + value[high[full]]) / 2
    return found
