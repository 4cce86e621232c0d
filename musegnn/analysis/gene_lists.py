"""Questions about a list of genes in each context: transcription factors that share it, gene sets near it, its change.

A context is a tissue, whose genes have their consensus vectors, or a dataset.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control, mannwhitneyu, norm

from musegnn.analysis.consensus import consensus
from musegnn.analysis.enrichment import MIN_SET, enrich
from musegnn.errors import InputError
from musegnn.vectors import unit_rows

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from anndata import AnnData
    from numpy.typing import NDArray

Context = Literal["tissue", "dataset"]

NORMAL_MAD = 1.4826  # standard deviation of a normal distribution over its median absolute deviation
TINY, SHOWN = 1e-12, 5


class ListChange(NamedTuple):
    """How much the genes of a list change in a contrast: their number, AUROC (.5 by chance) and p-value."""

    n_genes: int
    auroc: float
    p_value: float


def shared_factors(
    embeddings: AnnData, genes: Collection[str], factors: Collection[str], *, per: Context = "tissue"
) -> pd.DataFrame:
    """Test in which contexts a list of genes lies nearer to each transcription factor than to other genes.

    A factor is as near as its mean cosine with the listed genes. Genes of a list go together, so that they are near to
    a factor all at once or not at all; a test of each as independent, such as the hypergeometric one, would call
    many factors by chance. Here chance is what the unlisted genes of the context have: a normal distribution with
    their median and median absolute deviation (the empirical null of Efron 2004, J. Am. Stat. Assoc. 99:96).

    Parameters
    ----------
    embeddings
        One row per dataset and gene (:meth:`musegnn.MuSeGNN.embeddings`).
    genes, factors
        Gene keys, or names, of the list and of the factors. A factor that is listed is compared with the others.
    per
        Contexts: tissues or datasets.

    Returns
    -------
    DataFrame
        One row per factor and context that has it, most significant first: ``factor``, ``context``, ``n_listed``
        (listed genes there, without the factor), ``cosine`` (mean), ``z``, ``p`` (one-sided), ``q``
        (Benjamini-Hochberg over all rows), and the listed genes ``nearest`` to it. Contexts with fewer than five
        genes of the list are left out.

    Raises
    ------
    InputError
        E279 when no context has enough genes of the list.
    """
    rows = []
    for context, (key, gene, unit) in _contexts(embeddings, per, genes).items():
        listed = _is_in(genes, key, gene)
        members = np.flatnonzero(listed)
        cosine = unit @ unit[members].T
        n_others = listed.sum() - listed
        mean = (cosine.sum(axis=1) - listed) / n_others  # without the cosine 1 of a listed gene with itself
        center = np.median(mean[~listed])
        spread = NORMAL_MAD * np.median(np.abs(mean[~listed] - center))
        for row in np.flatnonzero(_is_in(factors, key, gene)):
            near = [str(gene[k]) for k in members[np.argsort(-cosine[row], kind="stable")] if k != row]
            z = (mean[row] - center) / max(spread, TINY)
            rows.append((str(gene[row]), context, int(n_others[row]), mean[row], z, ",".join(near[:SHOWN])))
    table = pd.DataFrame(rows, columns=["factor", "context", "n_listed", "cosine", "z", "nearest"])
    table.insert(5, "p", norm.sf(table["z"].to_numpy(dtype=np.float64)))
    table.insert(6, "q", false_discovery_control(table["p"]) if len(table) else [])
    return table.sort_values(["p", "factor", "context"], kind="stable", ignore_index=True)


def sets_near(
    embeddings: AnnData,
    genes: Collection[str],
    sets: Mapping[str, Collection[str]],
    *,
    per: Context = "tissue",
    k: int = 100,
) -> pd.DataFrame:
    """Test in each context which gene sets are over-represented among the genes nearest to a list of genes.

    The nearest are those of the largest cosine with the mean direction of the listed genes in this context. Listed
    genes are neither neighbours nor background: the question is what else goes with them here. Of genes that do not go
    together the mean direction says nothing, and neither do the sets near it.

    Parameters
    ----------
    embeddings, genes, per
        As for :func:`shared_factors`.
    sets
        Gene keys, or names, of each set.
    k
        Number of genes near the list.

    Returns
    -------
    DataFrame
        Columns of :func:`musegnn.analysis.enrichment.enrich`; ``list`` is the context, and ``q`` is over the tests of
        one context.

    Raises
    ------
    InputError
        E279 when no context has enough genes of the list.
    """
    parts = []
    for context, (key, gene, unit) in _contexts(embeddings, per, genes).items():
        listed = _is_in(genes, key, gene)
        near = _nearest(unit @ unit[listed].mean(axis=0), ~listed, k)
        known = {name: gene[_is_in(members, key, gene)].tolist() for name, members in sets.items()}
        parts.append(enrich({context: gene[near].tolist()}, known, gene[~listed].tolist()))
    return pd.concat(parts, ignore_index=True).sort_values(["p", "list", "set"], kind="stable", ignore_index=True)


def list_change(table: pd.DataFrame, genes: Collection[str]) -> ListChange:
    """Compare the rank of listed genes in a contrast with that of the others (one-sided Mann-Whitney test).

    Genes of a list that go together also change together, so that the p-value is too small for such lists: it is
    right where the genes are independent.

    Parameters
    ----------
    table
        ``Contrast.genes`` (:func:`musegnn.analysis.comparison.contrast`), most changed first.
    genes
        Names of genes.

    Raises
    ------
    InputError
        E279 when none or all of the genes compared are listed.
    """
    listed = table["gene"].isin(list(genes)).to_numpy()
    if not 0 < listed.sum() < len(listed):
        msg = f"{int(listed.sum())} of the {len(listed)} genes compared are listed"
        raise InputError(msg, code="E279", where="list_change", fix="give names as in the table of genes")
    height = -np.arange(len(table), dtype=np.float64)
    found = mannwhitneyu(height[listed], height[~listed], alternative="greater")
    auroc = float(found.statistic) / (int(listed.sum()) * int((~listed).sum()))
    return ListChange(int(listed.sum()), auroc, float(found.pvalue))


def _contexts(
    embeddings: AnnData, per: Context, genes: Collection[str]
) -> dict[str, tuple[NDArray[np.str_], NDArray[np.str_], NDArray[np.float64]]]:
    """Return key, name and unit vector of the genes of each context that has enough genes of a list."""
    vectors = consensus(embeddings, per="tissue") if per == "tissue" else embeddings
    obs, unit = vectors.obs, unit_rows(vectors.X)
    key, gene, place = (obs[column].to_numpy(dtype=str) for column in ("gene_key", "gene", per))
    known = _is_in(genes, key, gene)
    counts = {name: int(known[place == name].sum()) for name in sorted(set(place.tolist()))}
    if max(counts.values()) < MIN_SET:
        found = ", ".join(f"{name} {n}" for name, n in counts.items())
        msg = f"of {len(set(genes))} listed genes are there: {found}; expected at least {MIN_SET} in one"
        raise InputError(msg, code="E279", where="gene list", fix="list genes of this run, or raise graph.n_genes")
    chosen = {name: place == name for name, n in counts.items() if n >= MIN_SET}
    return {name: (key[inside], gene[inside], unit[inside]) for name, inside in chosen.items()}


def _is_in(names: Collection[str], key: NDArray[np.str_], gene: NDArray[np.str_]) -> NDArray[np.bool_]:
    wanted = sorted(set(names))
    return np.isin(key, wanted) | np.isin(gene, wanted)


def _nearest(cosine: NDArray[np.float64], allowed: NDArray[np.bool_], k: int) -> NDArray[np.intp]:
    """Return the rows of the k largest cosines, equal ones in the order of rows."""
    rows = np.flatnonzero(allowed)
    return rows[np.argsort(-cosine[rows], kind="stable")[:k]]


def read_names(path: Path) -> list[str]:
    """Read names of genes, separated by spaces, commas or lines; ``#`` starts a comment."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(str(error), code="E279", where=str(path), fix="name a text file of gene names") from error
    names = re.sub(r"#.*", "", text).replace(",", " ").split()
    if not names:
        msg = "the file names no gene"
        raise InputError(msg, code="E279", where=str(path), fix="write names of genes, one per line")
    return names
