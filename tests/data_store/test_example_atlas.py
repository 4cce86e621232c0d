"""The example that ships: small, stated, and what its atlas file says."""

from __future__ import annotations

import csv

import h5py
import pytest

from musegnn.atlas_file import load_atlas
from musegnn.data_store import open_matrix, validate_counts


@pytest.fixture(scope="module")
def atlas(root):
    return load_atlas(root / "examples" / "atlas" / "atlas.yaml")


def test_every_dataset_reads_without_an_error(atlas):
    for dataset in atlas.datasets:
        key = dataset.spatial_key if dataset.modality == "spatial" else None
        source = open_matrix(dataset.path, layer=dataset.layer, spatial_key=key)
        summary = validate_counts(source)
        assert summary.n_cells >= 1000
        assert (source.coords is not None) == (dataset.modality == "spatial")
        stripped = {"W222"} if dataset.name == "lung_hlca" else set()  # its source stripped first letters of names
        assert {w[:4] for w in summary.warnings} <= {"W250"} | stripped


def test_all_three_modalities_two_species_and_shared_tissues(atlas):
    assert {d.modality for d in atlas.datasets} == {"scrna", "scatac", "spatial"}
    assert {d.species for d in atlas.datasets} == {"human", "mouse"}
    tissues = [d.tissue for d in atlas.datasets]
    assert {t for t in tissues if tissues.count(t) > 1} == {"lung", "brain"}


def test_orthologs_are_one_to_one_and_occur_in_the_files(atlas):
    with atlas.orthologs.open(newline="") as file:
        rows = list(csv.DictReader(file))
    genes = {"human": set(), "mouse": set()}
    for dataset in atlas.datasets:
        genes[dataset.species].update(open_matrix(dataset.path).gene.tolist())
    assert len(rows) > 4000
    for column in ("human", "mouse", "human_id", "mouse_id"):
        values = [row[column] for row in rows]
        assert len(set(values)) == len(values)
        assert column.endswith("_id") or set(values) <= genes[column]


def test_files_are_small_stated_and_without_barcodes_or_donors(atlas, root):
    folder = root / "examples" / "atlas"
    assert sum(p.stat().st_size for p in folder.iterdir()) < 20e6
    stated = (folder / "ATTRIBUTION.md").read_text()
    for dataset in atlas.datasets:
        assert f"`{dataset.path.name}`" in stated
        with h5py.File(dataset.path) as file:
            assert set(file["obs"]) <= {"_index", "celltype", "layer"}
            assert file["obs/_index"][0] == b"cell00000"
            assert file["uns/dataset/license"][()]
            cells, genes = file["X"].attrs["shape"]
            assert f"| {cells} x {genes} |" in stated


@pytest.mark.slow
def test_the_script_makes_the_same_files_again(shared, root, tmp_path):
    import subprocess
    import sys

    folder = root / "examples" / "atlas"
    export = shared / "annot" / "human_mouse_gene_orthologs.csv"
    command = [sys.executable, "-W", "ignore", folder / "make_atlas.py", shared / "data", export, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    made = sorted(p.name for p in tmp_path.iterdir())
    assert made == sorted([*(p.name for p in folder.glob("*.h5ad")), "orthologs.csv"])
    for name in made:
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes(), name
