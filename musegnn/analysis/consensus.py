"""One vector per gene, or per gene and tissue, from its vectors in several datasets.

Legend: P rows of the embeddings, d dimensions, K consensus vectors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from anndata import AnnData

from musegnn.vectors import unit_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

Per = Literal["gene", "tissue"]


def consensus(embeddings: AnnData, *, per: Per = "gene") -> AnnData:
    """Return the mean direction of all vectors of each gene, over all datasets or over those of each tissue.

    The vectors are first scaled to length 1; so is their mean. Copies of a gene are rows of the same ``gene_key``.

    Parameters
    ----------
    embeddings
        One row per dataset and gene (:meth:`musegnn.MuSeGNN.embeddings`).
    per
        ``gene``: one row per gene; ``tissue``: one per gene and tissue.

    Returns
    -------
    AnnData
        ``X`` (K, d) float32. ``obs``: ``gene`` (the most frequent name), ``gene_key``, ``tissue`` where rows are of
        one, ``n_datasets``, ``agreement``: length of the mean of unit vectors, 1 where all point the same way, and
        ``certainty``: the highest of the vectors, where known. Rows
        are named by gene, or ``tissue/gene``; a gene name of several keys is replaced by the key.
    """
    obs = embeddings.obs
    columns = ["gene_key", "gene", "tissue", "dataset"]
    frame = obs[columns].astype(str).reset_index(drop=True)
    groups = ["gene_key"] if per == "gene" else ["tissue", "gene_key"]
    keys = frame[groups].agg("\t".join, axis=1)
    names, code = np.unique(keys.to_numpy(dtype=str), return_inverse=True)
    mean, length = _mean_direction(unit_rows(embeddings.X), code, len(names))
    first = np.unique(code, return_index=True)[1]
    table = frame.iloc[first][groups].reset_index(drop=True)
    gene, key = frame["gene"].to_numpy(dtype=str), table["gene_key"].to_numpy(dtype=str)
    table.insert(0, "gene", _usual_names(gene, code, key))
    table["n_datasets"] = frame.groupby(code)["dataset"].nunique().to_numpy()
    table["agreement"] = length.astype(np.float32)
    if "certainty" in obs:
        highest = obs["certainty"].reset_index(drop=True).groupby(code).max()
        table["certainty"] = highest.to_numpy(dtype=np.float32)
    table.index = pd.Index((table["gene"] if per == "gene" else table["tissue"] + "/" + table["gene"]).tolist())
    about = dict(embeddings.uns.get("musegnn", {})) | {"per": per}
    return AnnData(X=mean.astype(np.float32), obs=table, var=embeddings.var.copy(), uns={"musegnn": about})


def _mean_direction(
    unit: NDArray[np.float64], code: NDArray[np.intp], n: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    total = np.zeros((n, unit.shape[1]))
    np.add.at(total, code, unit)
    mean = total / np.bincount(code, minlength=n)[:, None]
    return unit_rows(mean), np.linalg.norm(mean, axis=1)


def _usual_names(gene: NDArray[np.str_], code: NDArray[np.intp], key: NDArray[np.str_]) -> list[str]:
    """Return the most frequent name in each group, ties by the alphabet; the key where several keys have one name."""
    counted = pd.DataFrame({"code": code, "gene": gene}).value_counts().reset_index()
    counted = counted.sort_values(["code", "count", "gene"], ascending=[True, False, True]).drop_duplicates("code")
    names = counted["gene"].to_numpy(dtype=str)
    keys_of = pd.DataFrame({"name": names, "key": key}).drop_duplicates().groupby("name")["key"].size()
    return [k if keys_of[name] > 1 else str(name) for name, k in zip(names, key.tolist(), strict=True)]
