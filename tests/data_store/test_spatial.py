"""Which spots count, and slides that lie over one another, however a file says so."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from musegnn.data_store import open_matrix
from musegnn.errors import InputError

INSIDE = np.arange(400) < 250


@pytest.fixture
def spots(make_adata):
    """Make 400 spots in one plane."""
    rng = np.random.default_rng(0)
    adata = make_adata(sp.csr_matrix(rng.poisson(1.0, (400, 10)).astype(np.float32)))
    adata.obsm["spatial"] = rng.random((400, 2)) * 100
    return adata


def as_category(values):
    return pd.Categorical(values)


def nullable(values, dtype):
    column = pd.array(values, dtype=dtype)
    column[399] = None  # one that is outside anyway
    return column


MARKS = {
    "bool": INSIDE,
    "int": INSIDE.astype(int),
    "float": INSIDE.astype(float),
    "text": INSIDE.astype(int).astype(str),
    "words": np.where(INSIDE, "True", "False"),
    "small words": np.where(INSIDE, "true", "false"),
    "yes and no": np.where(INSIDE, "Yes", "No"),
    "text of floats": INSIDE.astype(float).astype(str),
    "category of bool": as_category(INSIDE),
    "category of int": as_category(INSIDE.astype(int)),
    "category of int, inside first": pd.Categorical(INSIDE.astype(int), categories=[1, 0]),
    "category of text": as_category(INSIDE.astype(int).astype(str)),
    "category of words": as_category(np.where(INSIDE, "TRUE", "FALSE")),
    "nullable int": nullable(INSIDE.astype(int), "Int64"),
    "nullable bool": nullable(INSIDE, "boolean"),
}


@pytest.mark.parametrize("encoding", MARKS)
def test_spots_under_tissue_in_every_encoding(encoding, spots, save):
    spots.obs["in_tissue"] = MARKS[encoding]
    source = open_matrix(save(spots), spatial_key="spatial")
    assert source.n_cells == 250
    assert source.warnings == ["W260: 150 of 400 spots are not under tissue and were left out"]
    assert np.array_equal(source.coords, spots.obsm["spatial"][:250])
    assert np.array_equal(next(iter(source.blocks(400)))[1].toarray(), spots.X.toarray()[:250])


@pytest.mark.parametrize("categories", [["0", "1"], ["1", "0"], ["False", "True"]])
def test_spots_under_tissue_as_codes_of_old_anndata(categories, spots, save):
    yes = next(i for i, name in enumerate(categories) if name in {"1", "True"})

    def edit(file):
        file["obs"]["in_tissue"] = np.where(INSIDE, yes, 1 - yes).astype(np.int8)
        file["obs"].require_group("__categories")["in_tissue"] = np.array(categories, dtype="S")

    assert open_matrix(save(spots, edit), spatial_key="spatial").n_cells == 250


@pytest.mark.parametrize("column", ["In_Tissue", "in.tissue", "on_tissue", "is_in_tissue"])
def test_spots_under_tissue_by_other_names(column, spots, save):
    spots.obs[column] = INSIDE
    assert open_matrix(save(spots), spatial_key="spatial").n_cells == 250


def test_marks_without_meaning_are_refused(spots, save):
    spots.obs["in_tissue"] = np.where(INSIDE, "tissue", "glass")
    with pytest.raises(InputError, match=r"E262.*in_tissue holds 'glass', expected truth values"):
        open_matrix(save(spots), spatial_key="spatial")
    spots.obs["in_tissue"] = False
    with pytest.raises(InputError, match=r"E262.*no spot is under tissue"):
        open_matrix(save(spots), spatial_key="spatial")


# Slides

HALVES = np.where(np.arange(400) % 2 == 0, "a", "b")
COLUMNS = [
    "library_id",
    "sample",
    "Sample_ID",
    "slide",
    "section",
    "batch",
    "donor_id",
    "orig.ident",
    "puck",
    "replicate",
]


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("as_column", [list, pd.Categorical])
def test_overlaid_slides_are_refused(column, as_column, spots, save):
    spots.obs[column] = as_column(HALVES)
    path = save(spots)
    with pytest.raises(InputError, match=rf"E261.*2 slides \(obs {column}\).*Fix: .*by: {column}"):
        open_matrix(path, spatial_key="spatial")
    source = open_matrix(path, spatial_key="spatial", by=column)
    assert (source.n_cells, source.warnings) == (400, [])


def test_numbered_slides_are_refused_too(spots, save):
    spots.obs["sample"] = np.arange(400) % 3
    with pytest.raises(InputError, match=r"E261.*3 slides"):
        open_matrix(save(spots), spatial_key="spatial")


@pytest.mark.parametrize("name", ["array_row", "array_col"])
def test_places_on_the_array_of_a_slide_are_no_slides(spots, save, name):
    spots.obs[name] = np.arange(400) % 20
    assert open_matrix(save(spots), spatial_key="spatial").warnings == []


def test_slides_under_another_name_warn(spots, save):
    spots.obs["thing"] = pd.Categorical(HALVES)
    (warning,) = open_matrix(save(spots), spatial_key="spatial").warnings
    assert warning.startswith("W261: spots of different labels of obs thing lie over one another")
    assert "`by: thing`" in warning


def test_slides_with_the_same_grid_warn_under_another_name(make_adata, save):
    grid = np.stack(np.meshgrid(np.arange(15), np.arange(15)), axis=-1).reshape(-1, 2).astype(float)
    adata = make_adata(sp.csr_matrix(np.ones((450, 5), dtype=np.float32)))
    adata.obsm["spatial"] = np.vstack([grid, grid])
    adata.obs["thing"] = ["a"] * 225 + ["b"] * 225
    assert [w[:4] for w in open_matrix(save(adata), spatial_key="spatial").warnings] == ["W261"]


def test_columns_that_are_no_slides_do_not_warn(make_adata, save):
    grid = np.stack(np.meshgrid(np.arange(20), np.arange(20)), axis=-1).reshape(-1, 2).astype(float)
    adata = make_adata(sp.csr_matrix(np.ones((400, 5), dtype=np.float32)))
    adata.obsm["spatial"] = grid
    rng = np.random.default_rng(0)
    adata.obs["layer"] = pd.Categorical(np.where(grid[:, 0] < 10, "L1", "L2"))
    adata.obs["type"] = pd.Categorical(rng.choice(list("xyz"), 400))
    adata.obsm["spatial"] = rng.random((400, 2))
    for column in ("cell_type", "leiden", "phase", "kind"):
        adata.obs[column] = pd.Categorical(rng.choice(list("xy"), 400))
    assert open_matrix(save(adata), spatial_key="spatial").warnings == []
    adata.obsm["spatial"] = grid
    adata.obs["sample"] = "one"
    adata.obs["barcode"] = [f"b{i}" for i in range(400)]
    adata.obs["n_counts"] = rng.integers(0, 3, 400)
    adata.obs["sample_part"] = pd.Categorical(np.where(grid[:, 1] < 10, "left", "right"))
    assert open_matrix(save(adata), spatial_key="spatial").warnings == []


def test_bands_that_do_not_meet_are_no_overlaid_slides(spots, save):
    along = np.linspace(0.0, 100.0, 200)
    noise = np.random.default_rng(0).random((400, 2))
    spots.obsm["spatial"] = np.vstack([np.stack([along, along], 1), np.stack([along + 20, along], 1)]) + noise
    spots.obs["library_id"] = pd.Categorical(["a"] * 200 + ["b"] * 200)
    for by in (None, "library_id"):
        assert open_matrix(save(spots), spatial_key="spatial", by=by).n_cells == 400


@pytest.mark.parametrize("missing", [None, "nan", "NA", ""])
def test_missing_labels_are_no_slide(missing, spots, save):
    labels = np.where(spots.obsm["spatial"][:, 0] < 50, "a", "b").astype(object)
    labels[:40] = missing
    spots.obs["library_id"] = pd.Categorical(labels)
    assert open_matrix(save(spots), spatial_key="spatial").warnings == []


def test_slides_of_a_label_may_not_lie_over_one_another(spots, save):
    spots.obs["donor"] = pd.Categorical(np.where(np.arange(400) < 200, "d1", "d2"))
    spots.obs["slide"] = pd.Categorical(HALVES)
    with pytest.raises(InputError, match=r"E261.*obs slide"):
        open_matrix(save(spots), spatial_key="spatial", by="donor")
    spots.obs["slide"] = spots.obs["donor"]
    assert open_matrix(save(spots), spatial_key="spatial", by="donor").warnings == []
