"""Write vectors as AnnData, Parquet, word2vec text, TSV, or a dictionary of arrays.

Each file is written whole or not at all, and equal input gives equal bytes. All formats hold the rows of the input, in
its order: one per dataset x gene, or consensus vectors (:mod:`musegnn.analysis.consensus`). No format needs pickle.
"""

from __future__ import annotations

import io
import zipfile
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

    from numpy.typing import NDArray

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

    Its columns are those of :data:`COLUMNS` as text, ``certainty`` where it is known, ``x`` and ``y`` (float32), and
    ``vector`` (list of float32). Of
    consensus vectors they are those of ``obs`` and ``vector``.
    """
    if is_consensus(embeddings):
        _write_consensus_parquet(embeddings, path)
        return
    missing = [name for name in COLUMNS if name not in embeddings.obs]
    if missing or "X_umap" not in embeddings.obsm:
        msg = f"expected annotated embeddings, got none of: {', '.join(missing or ['X_umap'])}; call annotate first"
        raise ValueError(msg)
    X = np.ascontiguousarray(embeddings.X, dtype=np.float32)
    umap = np.asarray(embeddings.obsm["X_umap"], dtype=np.float32)
    table: dict[str, pa.Array] = {
        name: pa.array(embeddings.obs[name].astype(str).tolist(), pa.string()) for name in COLUMNS
    }
    if "certainty" in embeddings.obs:
        table["certainty"] = pa.array(embeddings.obs["certainty"].to_numpy(np.float32))
    table["x"] = pa.array(umap[:, 0])
    table["y"] = pa.array(umap[:, 1])
    table["vector"] = _lists(X)
    with atomic_file(path) as partial:
        pq.write_table(pa.table(table), partial, compression="zstd")


def _write_consensus_parquet(vectors: AnnData, path: Path | str) -> None:
    frame = vectors.obs
    table = {
        name: pa.array(values.tolist() if values.dtype.kind in "iuf" else values.astype(str).tolist())
        for name, values in frame.items()
    }
    table["vector"] = _lists(np.ascontiguousarray(vectors.X, dtype=np.float32))
    with atomic_file(path) as partial:
        pq.write_table(pa.table(table), partial, compression="zstd")


def _lists(X: NDArray[np.float32]) -> pa.Array:
    offsets = pa.array(np.arange(len(X) + 1, dtype=np.int32) * X.shape[1])
    return pa.ListArray.from_arrays(offsets, pa.array(X.ravel()))


def is_consensus(vectors: AnnData) -> bool:
    """Return whether rows are consensus vectors, not those of single datasets."""
    return "dataset" not in vectors.obs


def tokens(vectors: AnnData) -> list[str]:
    """Return a name for each row: ``dataset|gene``, of consensus vectors ``gene`` or ``tissue|gene``, each once.

    Blanks, ``%`` and ``|`` of the names are percent-encoded.
    """
    obs = vectors.obs
    first = "dataset" if not is_consensus(vectors) else "tissue" if "tissue" in obs else ""
    genes = [_token(gene) for gene in obs["gene"].astype(str)]
    if not first:
        return genes
    return [f"{_token(place)}|{gene}" for place, gene in zip(obs[first].astype(str), genes, strict=True)]


def write_tsv(vectors: AnnData, path: Path | str) -> None:
    """Write a table of text for spreadsheets, R and pandas: the name of each row, then its numbers."""
    X = np.asarray(vectors.X, dtype=np.float32)
    with atomic_file(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as out:
        out.write("\t".join(["gene", *map(str, vectors.var_names)]) + "\n")
        for name, row in zip(tokens(vectors), X, strict=True):
            out.write(f"{name}\t" + "\t".join(f"{v:.9g}" for v in row.tolist()) + "\n")


def write_npz(vectors: AnnData, path: Path | str) -> None:
    """Write a dictionary of arrays: ``dict(numpy.load(path))`` maps each name to its vector, float32."""
    X = np.asarray(vectors.X, dtype=np.float32)
    with atomic_file(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        for name, row in zip(tokens(vectors), X, strict=True):
            held = io.BytesIO()
            np.lib.format.write_array(held, row, allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name.replace('/', '%2F')}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            archive.writestr(entry, held.getvalue())


def write_word2vec(embeddings: AnnData, path: Path | str) -> None:
    """Write the embeddings as word2vec text, which gensim and many other tools read.

    First line: rows and dimensions. Then one line per row: its name (:func:`tokens`), and the numbers with the digits
    that restore float32 exactly.
    """
    X = np.asarray(embeddings.X, dtype=np.float32)
    with atomic_file(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as out:
        out.write(f"{X.shape[0]} {X.shape[1]}\n")
        for name, row in zip(tokens(embeddings), X, strict=True):
            out.write(f"{name} {' '.join(f'{v:.9g}' for v in row.tolist())}\n")


def _token(name: str) -> str:
    return "".join(quote(c, safe="") if c.isspace() or c in "%|" else c for c in name)


VectorFormat = Literal["h5ad", "parquet", "word2vec", "tsv", "npz"]
WRITERS = {"h5ad": write_h5ad, "parquet": write_parquet, "word2vec": write_word2vec, "tsv": write_tsv, "npz": write_npz}
SUFFIXES = {"h5ad": ".h5ad", "parquet": ".parquet", "word2vec": ".txt", "tsv": ".tsv", "npz": ".npz"}


def export(embeddings: AnnData, path: Path | str, *, format: VectorFormat) -> None:  # noqa: A002  as the option
    """Write embeddings, annotated (:func:`musegnn.analysis.annotate.annotate`) for Parquet, in one of the formats."""
    WRITERS[format](embeddings, path)
