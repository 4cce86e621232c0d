"""The genes nearest to a gene, as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from musegnn.analysis.absent import close_names, explain_absence
from musegnn.errors import InputError
from musegnn.vectors import neighborhood_similarity, typical_similarity, unit_rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData
    from numpy.typing import NDArray

    from musegnn.graph import EdgeSet
    from musegnn.run_folder import RunFolder
    from musegnn.vectors import Similarity

TYPICAL = "typical_cosines"
DIGITS = 9  # equal rows have equal scores up to rounding


def query(
    embeddings: AnnData,
    gene: str,
    *,
    dataset: str | None = None,
    tissue: str | None = None,
    k: int = 10,
    across: bool = False,
    not_in: str | None = None,
    by: Similarity | Literal["coexpression"] = "balanced",
    graphs: Mapping[str, tuple[NDArray[np.str_], EdgeSet]] | None = None,
    run: RunFolder | None = None,
) -> pd.DataFrame:
    """Return the genes nearest to one gene.

    Parameters
    ----------
    gene
        Name, identifier or key of the gene, matched exactly first, then without regard to case. Rows of the same key
        (orthologs under their own names) count as copies of the gene.
    dataset
        Dataset of the query; every dataset that has the gene by default.
    tissue
        Tissue of the query and of its neighbours; all by default.
    k
        Number of neighbours per copy.
    across
        Whether to list neighbours in other datasets only.
    not_in
        Dataset or tissue in which the neighbours must have no edge with the gene; needs `graphs`.
    by
        Ranking (:mod:`musegnn.vectors`): ``balanced``, cosine less what is typical for the two datasets, so that genes
        of all datasets are listed; ``csls``, corrected for both genes as well; ``cosine``, plain cosine. Or
        ``coexpression``: edges of the gene in its own dataset by falling abs(z); needs `graphs`.
    graphs
        Gene keys and edges of each dataset; with them there are columns ``z`` and ``estimate`` of the edge between the
        query and a neighbour of its own dataset, NaN where there is none.
    run
        Run folder of the embeddings, read to explain why a gene is absent.

    Returns
    -------
    DataFrame
        Best first for each copy: ``query`` (dataset of the copy), ``rank`` from 1, ``gene``, ``gene_id``, ``dataset``,
        ``modality``, ``tissue``, ``species`` where known, ``score`` (of the ranking), ``cosine``, ``z`` and
        ``estimate`` with `graphs`, and ``certainty`` of the neighbour and ``query_certainty`` of the copy where the
        embeddings have it. Equal scores are in the order of the rows.

    Raises
    ------
    InputError
        When the gene or the dataset is absent; the message says why and names similar genes.
    """
    if k < 1:
        msg = f"expected k of at least 1, got {k}"
        raise ValueError(msg)
    obs = embeddings.obs
    home, code = np.unique(obs["dataset"].astype(str).to_numpy(), return_inverse=True)
    rows = _copies(obs, gene, run)
    if dataset is not None:
        rows = _of_dataset(rows, home[code[rows]], gene, dataset, run)
    place = obs["tissue"].astype(str).to_numpy() if "tissue" in obs else home[code]
    within = np.ones(len(obs), dtype=np.bool_)
    if tissue is not None:
        within = place == tissue
        rows = _of_tissue(rows, within, gene, tissue, place)
    keys = obs["gene_key"].astype(str).to_numpy(dtype=str)
    linked = _linked(keys[rows[0]], not_in, home, place, code, graphs) if not_in is not None else set()
    unit = unit_rows(embeddings.X)
    stored = embeddings.uns.get(TYPICAL)
    typical = None if stored is None else stored.loc[home, home].to_numpy()
    shown = [c for c in ("gene", "gene_id", "dataset", "modality", "tissue", "species") if c in obs]
    certainty = obs["certainty"].to_numpy(dtype=np.float32) if "certainty" in obs else None
    parts = []
    for row in rows:
        cosine = unit @ unit[row]
        z, estimate = _edge_values(keys, code, row, home, graphs)
        if by == "coexpression":
            score = np.abs(np.nan_to_num(z))
            allowed = ~np.isnan(z) & within
        else:
            score = _score(unit, code, row, cosine, by, known=typical)
            allowed = within & (code != code[row] if across else np.arange(len(unit)) != row)
        if linked:
            allowed &= ~np.isin(keys, list(linked))
        order = np.lexsort((np.arange(len(unit)), -score.round(DIGITS)))
        best = order[allowed[order]][:k]
        part = obs.iloc[best][shown].astype(str).reset_index(drop=True)
        part.insert(0, "rank", np.arange(1, len(best) + 1))
        part.insert(0, "query", home[code[row]])
        part["score"] = score[best]
        part["cosine"] = np.clip(cosine[best], -1.0, 1.0)
        if graphs is not None:
            part["z"], part["estimate"] = z[best], estimate[best]
        if certainty is not None:
            part["certainty"], part["query_certainty"] = certainty[best], certainty[row]
        parts.append(part)
    table: pd.DataFrame = pd.concat(parts, ignore_index=True)
    return table


def _edge_values(
    keys: NDArray[np.str_],
    code: NDArray[np.int64],
    row: int,
    home: NDArray[np.object_],
    graphs: Mapping[str, tuple[NDArray[np.str_], EdgeSet]] | None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return z and estimate of the edge of each row with a row of the same dataset; NaN without one."""
    z, estimate = np.full((2, len(keys)), np.nan)
    own = str(home[code[row]])
    if graphs is None or own not in graphs:
        return z, estimate
    names, edges = graphs[own]
    at = np.flatnonzero(names == keys[row])
    if len(at):
        inside = slice(int(edges.indptr[at[0]]), int(edges.indptr[at[0] + 1]))
        own_rows = np.flatnonzero(code == code[row])
        of_key = dict(zip(keys[own_rows].tolist(), own_rows.tolist(), strict=True))
        places = [of_key[key] for key in names[edges.indices[inside]].tolist()]
        z[places], estimate[places] = edges.z[inside], edges.estimate[inside]
    return z, estimate


def _linked(
    key: str,
    not_in: str,
    home: NDArray[np.object_],
    place: NDArray[np.object_],
    code: NDArray[np.int64],
    graphs: Mapping[str, tuple[NDArray[np.str_], EdgeSet]] | None,
) -> set[str]:
    """Return the keys that have an edge with a gene in a dataset or in any dataset of a tissue."""
    if graphs is None:
        msg = "`not_in` needs the graphs of the datasets"
        raise ValueError(msg)
    named = {str(name) for name in home if name == not_in}
    named |= {str(home[c]) for c in np.unique(code[place == not_in])}
    if not named:
        known = ", ".join(sorted({*map(str, home), *map(str, place)}))
        msg = f"there is no dataset or tissue {not_in}"
        raise InputError(msg, code="E420", where="neighbors", fix=f"choose one of: {known}")
    found: set[str] = set()
    for name in named & graphs.keys():
        names, edges = graphs[name]
        for at in np.flatnonzero(names == key):
            found.update(names[edges.indices[edges.indptr[at] : edges.indptr[at + 1]]].tolist())
    return found


def _of_tissue(
    rows: NDArray[np.int64], within: NDArray[np.bool_], gene: str, tissue: str, place: NDArray[np.object_]
) -> NDArray[np.int64]:
    chosen: NDArray[np.int64] = rows[within[rows]]
    if len(chosen):
        return chosen
    known = sorted({str(place[row]) for row in rows})
    what = "no dataset of this tissue has the gene" if within.any() else "there is no such tissue"
    msg = f"{gene} in {tissue}: {what}"
    raise InputError(msg, code="E420", where="neighbors", fix=f"choose one of: {', '.join(known)}")


def typical_cosines(embeddings: AnnData) -> pd.DataFrame:
    """Return the typical cosine of nearest rows of two datasets, which the balanced ranking takes out.

    Symmetric, float32 (:func:`musegnn.vectors.typical_similarity`); annotated embeddings have it stored.
    """
    if TYPICAL in embeddings.uns:
        stored: pd.DataFrame = embeddings.uns[TYPICAL]
        return stored
    names, code = np.unique(embeddings.obs["dataset"].astype(str).to_numpy(), return_inverse=True)
    return pd.DataFrame(typical_similarity(unit_rows(embeddings.X, dtype=np.float32), code), names, names)


def _score(
    unit: NDArray[np.float64],
    code: NDArray[np.int64],
    row: int,
    cosine: NDArray[np.float64],
    by: Similarity,
    *,
    known: NDArray[np.floating] | None,
) -> NDArray[np.float64]:
    """Return the score of all rows for one row; `known` are stored typical similarities."""
    if by == "cosine":
        return cosine
    if by == "balanced":
        typical = typical_similarity(unit, code, groups=code[[row]])[0] if known is None else known[code[row]]
        corrected: NDArray[np.float64] = cosine - typical[code]
        return corrected
    own = neighborhood_similarity(unit, code, rows=np.array([row]))[0]
    others = neighborhood_similarity(unit, code, groups=code[[row]])[:, 0]
    csls: NDArray[np.float64] = 2 * cosine - own[code] - others
    return csls


def _copies(obs: pd.DataFrame, gene: str, run: RunFolder | None) -> NDArray[np.int64]:
    columns = [obs[c].astype(str) for c in ("gene", "gene_key", "gene_id")]
    key = obs["gene_key"].astype(str)
    exact = [names == gene for names in columns]
    folded = [names.str.casefold() == gene.casefold() for names in columns]
    for found in (*exact, *folded):
        if found.any():
            return np.flatnonzero(key.isin(key[found]).to_numpy())
    why, fix = explain_absence(gene, run) if run is not None else ("", "")
    if not fix:
        close = close_names(gene, columns[0])
        fix = f"try {', '.join(close)}" if close else "list the genes with `musegnn export`"
    msg = f"no dataset has a vector of {gene}" + (f": {why}" if why else "")
    raise InputError(msg, code="E420", where="neighbors", fix=fix)


def _of_dataset(
    rows: NDArray[np.int64], home: NDArray[np.object_], gene: str, dataset: str, run: RunFolder | None
) -> NDArray[np.int64]:
    if (home == dataset).any():
        chosen: NDArray[np.int64] = rows[home == dataset]
        return chosen
    why, fix = explain_absence(gene, run, dataset=dataset) if run is not None else ("", "")
    msg = f"{gene} is not a gene of the dataset {dataset}" + (f": {why}" if why else "")
    choose = f"choose one of: {', '.join(sorted(set(map(str, home))))}"
    raise InputError(msg, code="E420", where=gene, fix=f"{choose}; or {fix}" if fix else choose)
