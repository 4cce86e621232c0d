"""ATLAS.yaml: what is read, what is refused, and how the refusal reads."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import yaml

import musegnn as mg
from musegnn.atlas_file import load_atlas
from musegnn.config import AtlasConfig, EdgeConfig, GraphConfig
from musegnn.errors import ConfigError
from musegnn.removed_settings import REMOVED
from musegnn.training.genes import read_orthologs

GOOD = """
datasets:
  - {name: lung_1, path: lung.h5ad, modality: scrna, tissue: lung, species: human}
  - {name: no, path: other.h5ad, modality: scatac, tissue: on, species: mouse}
training: {rounds: 7}
"""


def write(tmp_path, text):
    path = tmp_path / "atlas.yaml"
    path.write_text(text)
    return path


def test_reads_datasets_and_settings(tmp_path):
    atlas = load_atlas(write(tmp_path, GOOD))
    assert [d.name for d in atlas.datasets] == ["lung_1", "no"]
    assert atlas.datasets[0].path == tmp_path / "lung.h5ad"
    assert atlas.datasets[1].tissue == "on"
    assert atlas.training.rounds == 7
    assert atlas.graph.n_genes == 1000


def test_overrides_replace_settings(tmp_path):
    atlas = load_atlas(write(tmp_path, GOOD), {"training.rounds": 3, "model.share_by": ["modality", "tissue"]})
    assert atlas.training.rounds == 3
    assert atlas.model.share_by == ("modality", "tissue")


def test_lock_reads_back_to_the_same_configuration(tmp_path):
    atlas = load_atlas(write(tmp_path, GOOD))
    again = load_atlas(write(tmp_path, atlas.to_yaml()))
    assert again == atlas


@pytest.mark.parametrize(
    ("text", "code", "part"),
    [
        ("datasets: []", "E302", "datasets"),
        (GOOD + "traning: {rounds: 7}\n", "E302", "traning"),
        (GOOD.replace("scatac", "proteins"), "E302", "datasets.1.modality"),
        (GOOD.replace("name: no", "name: ../x"), "E302", "datasets.1.name"),
        (GOOD.replace("name: no", "name: lung_1"), "E302", "unique"),
        (GOOD.replace("rounds: 7", "rounds: -1"), "E302", "training.rounds"),
        (GOOD + "edges: {rule: pvalue, p_value: 0.2}\n", "E302", "z_store"),
        ("a: &x [1]\nb: *x\n", "E301", "alias"),
        ("a: !!python/object:os.system {}\n", "E301", "python/object"),
        ("a: [1\n", "E301", "YAML"),
        ("graph: {n_genes: 100}\ngraph: {min_cells: 7}\n" + GOOD, "E301", "repeated key 'graph'"),
        ("- 1\n", "E302", "datasets"),
    ],
)
def test_refusals_are_one_line_with_a_fix(tmp_path, text, code, part):
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_atlas(path)
    line = caught.value.line()
    assert caught.value.code == code
    assert part in line
    assert "Fix: " in line
    assert "\n" not in line
    assert len(line) <= 400


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="E300"):
        load_atlas(tmp_path / "none.yaml")


def test_huge_file_is_refused(tmp_path):
    path = write(tmp_path, GOOD + "#" * 1_000_001)
    with pytest.raises(ConfigError, match="E301"):
        load_atlas(path)


def test_override_through_a_value_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="not a section"):
        load_atlas(write(tmp_path, GOOD), {"training.rounds.x": 3})


def test_yaml_of_the_configuration_is_plain(tmp_path):
    data = yaml.safe_load(load_atlas(write(tmp_path, GOOD)).to_yaml())
    assert data["datasets"][1]["name"] == "no"


def test_published_takes_the_recipe_where_nothing_is_said(tmp_path):
    plain = load_atlas(write(tmp_path, GOOD))
    atlas = load_atlas(write(tmp_path, GOOD + "published: true\nmodel: {dim: 64}\n"))
    assert (plain.model.embedding, plain.training.published.sequential, plain.edges.rule) == ("maps", False, "default")
    assert (atlas.model.embedding, atlas.training.published.sequential, atlas.edges.rule) == ("layers", True, "pvalue")
    assert (atlas.model.dim, atlas.training.rounds, atlas.training.loss.alignment) == (64, 7, 0.0)
    again = load_atlas(write(tmp_path, atlas.to_yaml()))
    assert again == atlas


def test_parts_of_the_model_that_do_not_fit_are_refused(tmp_path):
    for model, reason in (
        ("{dim: 48, head_dim: 32}", "head_dim"),
        ("{encoder: none, embedding: layers}", "no embedding"),
    ):
        with pytest.raises(ConfigError, match=f"E302.*{reason}"):
            load_atlas(write(tmp_path, GOOD + f"model: {model}\n"))


def test_settings_of_earlier_versions_are_accepted_with_their_default_alone(tmp_path):
    plain = load_atlas(write(tmp_path, GOOD))
    for section, settings in REMOVED.items():
        for key, (default, instead) in settings.items():
            old = load_atlas(write(tmp_path, GOOD), {f"{section}.{key}": default})
            assert old == plain
            with pytest.raises(ConfigError) as caught:
                load_atlas(write(tmp_path, GOOD), {f"{section}.{key}": "other"})
            assert f"{section}.{key}" in str(caught.value)
            assert instead in str(caught.value)


def test_a_published_run_of_an_earlier_version_is_read(tmp_path):
    atlas = load_atlas(write(tmp_path, GOOD + "published: true\n"))
    data = yaml.safe_load(atlas.to_yaml())
    del data["training"]["published"]
    data["training"]["order"] = "sequential"
    data["training"]["loss"] |= {"exclude_neighbours": False, "include_diagonal": False}
    assert load_atlas(write(tmp_path, yaml.safe_dump(data))) == atlas
    data["training"]["order"] = "parallel"
    with pytest.raises(ConfigError, match=r"E302.*`order`"):
        load_atlas(write(tmp_path, yaml.safe_dump(data)))


def refusal(tmp_path, text):
    with pytest.raises(ConfigError) as caught:
        load_atlas(write(tmp_path, text))
    assert "\n" not in caught.value.line()
    return caught.value.line()


@pytest.mark.parametrize(
    ("old", "new", "meant"),
    [
        ("training: {rounds", "trainings: {rounds", "`training`"),
        ("rounds: 7", "round: 7", "`rounds`"),
        ("rounds: 7", "n_genes: 7", "`graph.n_genes`"),
        ("species: human", "specie: human", "`species`"),
        ("tissue: lung", "tissue: lung, layr: raw", "`layer`"),
        ("modality: scrna", "modality: spatal", "`modality: spatial`"),
    ],
)
def test_a_misspelling_is_one_error_with_what_was_meant(tmp_path, old, new, meant):
    line = refusal(tmp_path, GOOD.replace(old, new, 1))
    assert meant in line
    assert "; " not in line
    assert " more" not in line


def test_several_errors_are_all_named(tmp_path):
    line = refusal(tmp_path, GOOD.replace("tissue: lung, ", "").replace("rounds: 7", "rounds: -1, sed: 3"))
    assert line.count("`datasets.0.tissue` is missing") == 1
    assert "did you mean `seed`?" in line
    assert "training.rounds" in line


def test_python_gets_the_same_error():
    for make in (lambda: AtlasConfig(datasets=[]), lambda: GraphConfig(n_gene=3), lambda: EdgeConfig(rule="tops")):
        with pytest.raises(ConfigError, match="E302"):
            make()
        with pytest.raises(ValueError, match="E302"):
            make()


def test_other_words_for_modality_and_species_mean_the_same(tmp_path):
    atlas = load_atlas(write(tmp_path, GOOD.replace("scrna", "10x Visium").replace("human", "Homo sapiens")))
    assert (atlas.datasets[0].modality, atlas.datasets[0].species) == ("spatial", "human")
    table = tmp_path / "orthologs.csv"
    table.write_text("hsapiens,Mus musculus,human_id\nACTB,Actb,1\n")
    assert read_orthologs(table).species == ("human", "mouse")


DEFAULTS = """
defaults: {species: Human, modality: rna, tissue: lung, layer: counts}
datasets:
  - lung_?.h5ad
  - {name: x, path: "~/x.h5ad", tissue: liver}
  - {path: "$FOLDER/y.raw.h5ad", layer: null}
"""


def test_defaults_wildcards_home_and_variables(tmp_path, monkeypatch):
    for letter in "ba":
        (tmp_path / f"lung_{letter}.h5ad").touch()
    monkeypatch.setenv("HOME", "/nowhere")
    monkeypatch.setenv("FOLDER", str(tmp_path / "sub"))
    atlas = load_atlas(write(tmp_path, DEFAULTS))
    assert [(d.name, str(d.path), d.tissue, d.layer) for d in atlas.datasets] == [
        ("lung_a", str(tmp_path / "lung_a.h5ad"), "lung", "counts"),
        ("lung_b", str(tmp_path / "lung_b.h5ad"), "lung", "counts"),
        ("x", "/nowhere/x.h5ad", "liver", "counts"),
        ("y.raw", str(tmp_path / "sub" / "y.raw.h5ad"), "lung", None),
    ]
    monkeypatch.delenv("FOLDER")
    assert "$FOLDER" in refusal(tmp_path, DEFAULTS)
    assert "no file fits" in refusal(tmp_path, GOOD.replace("path: lung.h5ad", 'path: "*lung.h5ad"'))
    assert "did you mean `tissue`" in refusal(tmp_path, DEFAULTS.replace("tissue: lung", "tisue: lung"))


@pytest.mark.parametrize(("suffix", "delimiter"), [("csv", ","), ("csv", ";"), ("tsv", "\t")])
def test_a_sample_sheet_has_one_row_per_dataset(tmp_path, suffix, delimiter):
    rows = [
        ["name", "path", "modality", "tissue", "species", "condition", "donor"],
        ["a", "sub/a.h5ad", "rna", "lung", "human", "", "3"],
        [""] * 7,
        ["", "b.h5ad", "rna", "upper lung", "human", "healthy", "4"],
    ]
    sheet = tmp_path / "sheets" / f"samples.{suffix}"
    sheet.parent.mkdir()
    sheet.write_text("\ufeff" + "\r\n".join(delimiter.join(row) for row in rows) + "\r\n", encoding="utf-8")
    named = load_atlas(write(tmp_path, f"datasets: sheets/samples.{suffix}\ngraph: {{n_genes: 30}}\n"))
    assert [(d.name, d.path, d.tissue, d.condition) for d in named.datasets] == [
        ("a", tmp_path / "sheets" / "sub" / "a.h5ad", "lung", None),
        ("b", tmp_path / "sheets" / "b.h5ad", "upper lung", "healthy"),
    ]
    assert named.graph.n_genes == 30
    assert load_atlas(sheet).datasets == named.datasets
    sheet.write_text(sheet.read_text().replace("tissue", "tissues"))
    with pytest.raises(ConfigError, match="did you mean `tissue`"):
        load_atlas(sheet)


def test_an_atlas_from_python_mixes_objects_paths_and_settings(tmp_path):
    adata = ad.AnnData(np.ones((3, 2), dtype=np.float32))
    found = mg.atlas(
        {"held": adata, "filed": "b.h5ad", "told": {"path": adata, "tissue": "liver", "by": "cell"}},
        base=tmp_path,
        modality="RNA",
        tissue="lung",
        species="Homo sapiens",
        graph={"n_genes": 500},
    )
    assert [d.adata for d in found.datasets] == [adata, None, adata]
    assert [(d.name, d.tissue, d.by) for d in found.datasets] == [
        ("held", "lung", None), ("filed", "lung", None), ("told", "liver", "cell")
    ]  # fmt: skip
    assert found.datasets[1].path == tmp_path / "b.h5ad"
    assert found.graph.n_genes == 500
    entries = [{"name": d.name, "path": d.path if d.adata is None else d.adata} for d in found.datasets]
    entries[2] |= {"tissue": "liver", "by": "cell"}
    defaults = {"modality": "scrna", "tissue": "lung", "species": "human"}
    assert mg.atlas({"datasets": entries, "defaults": defaults, "graph": {"n_genes": 500}}) == found
    whole = mg.AtlasConfig(datasets=[defaults | entry for entry in entries], graph={"n_genes": 500})
    assert whole == found
    assert "AnnData" not in found.to_yaml()
    with pytest.raises(ConfigError, match="did you mean `tissue`"):
        mg.atlas({"a": adata}, tisue="lung")
