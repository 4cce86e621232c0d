"""Files that others read: complete, equal for equal input, whole or absent."""

from __future__ import annotations

import time

import anndata
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from musegnn.analysis.export import COLUMNS, SUFFIXES, export
from musegnn.data_store.atomic_files import atomic_file


def written(adata, path, kind):
    export(adata, path, format=kind)
    return path.read_bytes()


@pytest.mark.parametrize("kind", sorted(SUFFIXES))
def test_equal_input_gives_equal_bytes(annotated, tmp_path, kind):
    first = written(annotated, tmp_path / "a", kind)
    time.sleep(1.1)  # a file time would differ now
    assert written(annotated.copy(), tmp_path / "b", kind) == first
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_h5ad_comes_back(annotated, tmp_path):
    export(annotated, tmp_path / "e.h5ad", format="h5ad")
    back = anndata.read_h5ad(tmp_path / "e.h5ad")
    np.testing.assert_array_equal(back.X, annotated.X)
    np.testing.assert_array_equal(back.obsm["X_umap"], annotated.obsm["X_umap"])
    assert back.obs["gene"].astype(str).tolist() == annotated.obs["gene"].tolist()
    assert back.obs["cluster"].tolist() == annotated.obs["cluster"].tolist()
    assert back.uns["musegnn"]["rounds"] == 3
    assert annotated.obs["gene"].dtype == object  # the input keeps its types


def test_parquet_has_the_documented_columns(annotated, tmp_path):
    export(annotated, tmp_path / "e.parquet", format="parquet")
    table = pq.read_table(tmp_path / "e.parquet")
    assert table.column_names == [*COLUMNS, "x", "y", "vector"]
    assert table.schema.field("vector").type.value_type == pa.float32()
    frame = pd.read_parquet(tmp_path / "e.parquet")
    np.testing.assert_array_equal(np.stack(frame["vector"]), annotated.X)
    np.testing.assert_array_equal(frame[["x", "y"]], annotated.obsm["X_umap"])
    assert frame["gene"].tolist() == annotated.obs["gene"].tolist()


def test_parquet_needs_annotation(adata, tmp_path):
    with pytest.raises(ValueError, match=r"cluster; call annotate"):
        export(adata, tmp_path / "e.parquet", format="parquet")


def test_word2vec_text_gives_the_numbers_back(annotated, tmp_path):
    annotated.obs.iloc[0, annotated.obs.columns.get_loc("gene")] = "a b|c%"
    export(annotated, tmp_path / "e.txt", format="word2vec")
    first, *lines = (tmp_path / "e.txt").read_text().splitlines()
    assert first == f"{annotated.n_obs} {annotated.n_vars}"
    assert lines[0].split(" ")[0] == "lung_rna|a%20b%7Cc%25"
    values = np.array([line.split(" ")[1:] for line in lines], dtype=np.float32)
    np.testing.assert_array_equal(values, annotated.X)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def fail():
        with atomic_file(path) as partial:
            partial.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
