"""The same counts give the same store through every format, bit for bit."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import fields

import numpy as np
import pytest
import scipy.sparse as sp

from musegnn.cluster.build import build_graphs
from musegnn.config import AtlasConfig
from musegnn.data_store import Store
from tests.data_store.written import FORMATS, IDS, TABLES, C, G, make_adata, write_h5ad, write_table


@pytest.fixture(scope="module")
def adata():
    """Counts of groups of five genes that vary together."""
    rng = np.random.default_rng(0)
    factors = np.repeat(rng.gamma(1.0, 1.0, (C, G // 5)), 5, axis=1)
    return make_adata(sp.csr_matrix(rng.poisson(3.0 * factors).astype(np.float32)))


def digests(path, folder, **settings):
    """Return the SHA-256 of every array of the graph of a file."""
    dataset = {"name": "one", "path": path, "tissue": "lung", "species": "human", "modality": "scrna"} | settings
    atlas = AtlasConfig.model_validate({"datasets": [dataset], "graph": {"min_cells": 5, "n_genes": G}})
    store = Store.open_or_create(folder / "store")
    build_graphs(atlas, store, scheduler="synchronous", block_rows=50)
    record = store.read("one")
    found = {}
    for part in ("genes", "pairs"):
        table = getattr(record, part)
        found |= {f"{part}.{f.name}": getattr(table, f.name) for f in fields(table)}
    found["profile"] = record.profile
    return {
        name: hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
        for name, value in found.items()
        if isinstance(value, np.ndarray)
    }


@pytest.fixture(scope="module")
def expected(adata, tmp_path_factory):
    folder = tmp_path_factory.mktemp("h5ad")
    path, options = write_h5ad(adata, folder)
    spatial = digests(path, tmp_path_factory.mktemp("spatial"), modality="spatial", **options)
    found = digests(path, folder, **options)
    assert len(found) >= 12
    assert found != spatial
    return {"scrna": found, "spatial": spatial}


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "h5ad"])
def test_every_format_gives_the_same_store(name, adata, expected, tmp_path):
    (tmp_path / "data").mkdir()
    path, options = FORMATS[name](adata, tmp_path / "data")
    assert digests(path, tmp_path, **options) == expected["scrna"]


@pytest.mark.parametrize("name", TABLES)
def test_every_table_gives_the_same_store(name, adata, expected, tmp_path):
    file, delimiter, options = TABLES[name]
    (tmp_path / "data").mkdir()
    path, options = write_table(adata, tmp_path / "data", file, delimiter, **options)
    found = digests(path, tmp_path, **options)
    # A table has no symbols: its genes are called by their identifiers.
    assert {key for key in found if found[key] != expected["scrna"][key]} == {"genes.gene"}


@pytest.mark.parametrize("name", ["zarr v3", "loom"])
def test_coordinates_give_the_same_store(name, adata, expected, tmp_path):
    (tmp_path / "data").mkdir()
    path, options = FORMATS[name](adata, tmp_path / "data")
    assert digests(path, tmp_path, modality="spatial", **options) == expected["spatial"]


def test_a_slide_gives_the_same_store_as_its_h5ad(adata, tmp_path):
    """The spots under tissue, with the coordinates of ``tissue_positions``."""
    (tmp_path / "data").mkdir()
    marked = adata.copy()
    marked.obs["in_tissue"] = (np.arange(C) % 3 > 0).astype(int)
    h5ad, options = write_h5ad(marked, tmp_path)
    slide, _ = FORMATS["visium v1"](adata, tmp_path / "data")
    (tmp_path / "other").mkdir()
    found = digests(slide, tmp_path, modality="spatial")
    assert found == digests(h5ad, tmp_path / "other", modality="spatial", **options)


def test_a_build_says_first_what_it_uses(adata, tmp_path, caplog):
    (tmp_path / "data").mkdir()
    path, options = FORMATS["mtx v2"](adata, tmp_path / "data")
    with caplog.at_level(logging.INFO, "musegnn.datasets"):
        digests(path, tmp_path, **options)
    assert f"one: 10x mtx, version 2, {C} of {C} cells, {G} of {G} genes (symbols), scrna, human" in caplog.text
    assert len(IDS) == G
