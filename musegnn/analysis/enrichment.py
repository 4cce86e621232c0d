"""Gene sets that are over-represented in lists of genes: clusters, modules, the neighbours of a gene.

One-sided hypergeometric tests against the genes that could have been listed, with false discovery rates over all tests.

Legend: N genes of the background, n of a list, K of a set, k of both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control, hypergeom

from musegnn.analysis.neighbors import query

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from anndata import AnnData

    from musegnn.run_folder import RunFolder

MIN_SET = 5
COLUMNS = ["list", "set", "k", "n", "K", "N", "fold", "p", "q", "genes"]


def enrich(
    lists: Mapping[str, Collection[str]],
    sets: Mapping[str, Collection[str]],
    background: Collection[str],
    *,
    min_set: int = MIN_SET,
) -> pd.DataFrame:
    """Test every gene set for over-representation in every list.

    Parameters
    ----------
    lists, sets, background
        Genes by name of the list or set, and all genes that could have been listed: names of one kind, such as the
        ``gene_key`` of embeddings. Genes outside the background are left out.
    min_set
        Smallest number of genes of the background that a set must have to be tested.

    Returns
    -------
    DataFrame
        One row per list and set that share a gene, most significant first: ``k``, ``n``, ``K``, ``N`` as in the legend,
        ``fold`` (k over its expectation), ``p``, ``q`` (Benjamini-Hochberg over all lists and sets tested, those that
        share no gene included) and the shared ``genes``, by the alphabet, separated by commas.
    """
    universe = frozenset(background)
    listed = {name: universe.intersection(genes) for name, genes in lists.items()}
    known = {name: universe.intersection(genes) for name, genes in sets.items()}
    known = {name: genes for name, genes in known.items() if len(genes) >= min_set}
    rows = []
    for name, genes in listed.items():
        for title, members in known.items():
            both = genes & members
            rows.append((name, title, len(both), len(genes), len(members), ",".join(sorted(both))))
    table = pd.DataFrame(rows, columns=["list", "set", "k", "n", "K", "genes"])
    table["N"] = len(universe)
    table["fold"] = table["k"] * table["N"] / np.maximum(table["n"] * table["K"], 1)
    table["p"] = hypergeom.sf(table["k"] - 1, table["N"], table["K"], table["n"]) if len(table) else []
    table["q"] = false_discovery_control(table["p"]) if len(table) else []
    table = table[table["k"] > 0].sort_values(["p", "list", "set"], kind="stable", ignore_index=True)
    found: pd.DataFrame = table[COLUMNS]
    return found


def neighbor_lists(embeddings: AnnData, gene: str, *, k: int, run: RunFolder | None = None) -> dict[str, set[str]]:
    """Return the keys of the genes nearest to a gene, by name ``GENE in DATASET``, one list per dataset that has it."""
    near = query(embeddings, gene, k=k, run=run)
    obs = embeddings.obs[["dataset", "gene", "gene_key"]].astype(str)
    found = near[["query", "dataset", "gene"]].merge(obs, on=["dataset", "gene"])
    return {f"{gene} in {name}": set(part["gene_key"]) for name, part in found.groupby("query", sort=True)}


def cluster_lists(embeddings: AnnData) -> dict[str, set[str]]:
    """Return the gene keys of each cluster, by name ``cluster 0`` and so on."""
    frame = embeddings.obs[["cluster", "gene_key"]].astype(str)
    return {f"cluster {name}": set(part["gene_key"]) for name, part in frame.groupby("cluster", sort=True)}
