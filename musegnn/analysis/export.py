"""Write the embeddings as AnnData, Parquet or word2vec text.

Each file is written whole or not at all, and equal input gives equal bytes.
All formats hold one row per dataset x gene, in the order of the input.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from anndata import AnnData

from musegnn.data_store.atomic_files import atomic_file

if TYPE_CHECKING:
    from pathlib import Path

COLUMNS = ("gene", "gene_id", "gene_key", "dataset", "modality", "tissue", "species", "cluster")


def write_h5ad(embeddings: AnnData, path: Path | str) -> None:
    """Write the embeddings as an AnnData file, in which ``obs`` columns of text become categories."""
    obs = embeddings.obs.copy()
    for name in obs.columns:
        if pd.api.types.is_string_dtype(obs[name]) or pd.api.types.is_object_dtype(obs[name]):
            obs[name] = pd.Categorical(obs[name].astype(str))
    copy = AnnData(
        X=np.ascontiguousarray(embeddings.X, dtype=np.float32),
        obs=obs,
        var=embeddings.var,
        uns={key: embeddings.uns[key] for key in sorted(embeddings.uns)},
        obsm={key: embeddings.obsm[key] for key in sorted(embeddings.obsm)},
    )
    with atomic_file(path) as partial:
        copy.write_h5ad(partial, compression="gzip")


def write_parquet(embeddings: AnnData, path: Path | str) -> None:
    """Write annotated embeddings as a Parquet table that pandas, DuckDB, R and embedding-atlas open.

    Its columns are those of :data:`COLUMNS` as text, ``x`` and ``y`` (float32), and ``vector`` (list of float32).
    """
    missing = [name for name in COLUMNS if name not in embeddings.obs]
    if missing or "X_umap" not in embeddings.obsm:
        msg = f"expected annotated embeddings, got none of: {', '.join(missing or ['X_umap'])}; call annotate first"
        raise ValueError(msg)
    X = np.ascontiguousarray(embeddings.X, dtype=np.float32)
    points, dim = X.shape
    umap = np.asarray(embeddings.obsm["X_umap"], dtype=np.float32)
    table: dict[str, pa.Array] = {
        name: pa.array(embeddings.obs[name].astype(str).tolist(), pa.string()) for name in COLUMNS
    }
    table["x"] = pa.array(umap[:, 0])
    table["y"] = pa.array(umap[:, 1])
    offsets = pa.array(np.arange(points + 1, dtype=np.int32) * dim)
    table["vector"] = pa.ListArray.from_arrays(offsets, pa.array(X.ravel()))
    with atomic_file(path) as partial:
        pq.write_table(pa.table(table), partial, compression="zstd")


def write_word2vec(embeddings: AnnData, path: Path | str) -> None:
    """Write the embeddings as word2vec text, which gensim and many other tools read.

    First line: rows and dimensions. Then one line per row: ``dataset|gene``, with blanks, ``%`` and ``|`` of the names
    percent-encoded, and the numbers with the digits that restore float32 exactly.
    """
    X = np.asarray(embeddings.X, dtype=np.float32)
    names = zip(embeddings.obs["dataset"].astype(str), embeddings.obs["gene"].astype(str), strict=True)
    with atomic_file(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as out:
        out.write(f"{X.shape[0]} {X.shape[1]}\n")
        for (dataset, gene), row in zip(names, X, strict=True):
            out.write(f"{_token(dataset)}|{_token(gene)} {' '.join(f'{v:.9g}' for v in row.tolist())}\n")


def _token(name: str) -> str:
    return "".join(quote(c, safe="") if c.isspace() or c in "%|" else c for c in name)


WRITERS = {"h5ad": write_h5ad, "parquet": write_parquet, "word2vec": write_word2vec}
SUFFIXES = {"h5ad": ".h5ad", "parquet": ".parquet", "word2vec": ".txt"}


def export(
    embeddings: AnnData,
    path: Path | str,
    *,
    format: Literal["h5ad", "parquet", "word2vec"],  # noqa: A002  as the option of the command line
) -> None:
    """Write embeddings, annotated (:func:`musegnn.analysis.annotate.annotate`) for Parquet, in one of the formats."""
    WRITERS[format](embeddings, path)
