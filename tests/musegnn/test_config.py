"""ATLAS.yaml: what is read, what is refused, and how the refusal reads."""

from __future__ import annotations

import pytest
import yaml

from musegnn.atlas_file import load_atlas
from musegnn.config import REMOVED
from musegnn.errors import ConfigError

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
        (GOOD.replace("scatac", "atac"), "E302", "datasets.1.modality"),
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
