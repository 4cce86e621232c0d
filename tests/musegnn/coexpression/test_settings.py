"""Settings of earlier versions are accepted at their defaults, and what was built with them is recognised."""

from __future__ import annotations

from pathlib import Path

import pytest

import musegnn as mg
from musegnn.coexpression.build import ALGORITHM, build_parameters
from musegnn.config import EdgeConfig, GraphConfig
from musegnn.data_store import build_id
from musegnn.errors import ConfigError
from musegnn.removed_settings import REMOVED, with_removed

DATA = Path(__file__).resolve().parents[2] / "data"


def test_an_earlier_store_is_that_of_the_same_settings():
    store = mg.Store.open(DATA / "store")
    config = mg.load_atlas(DATA / "closed_form" / "config.lock.yaml")
    for dataset in config.datasets:
        provenance = store.read(dataset.name).provenance
        parameters = build_parameters(dataset, config.graph)
        assert parameters == provenance["parameters"]
        assert build_id(provenance["input"], parameters, provenance["algorithm"]) == store.build_of(dataset.name)


def test_defaults_of_earlier_versions_are_today_s():
    assert EdgeConfig.model_validate(with_removed({}, "edges")) == EdgeConfig()
    assert GraphConfig.model_validate(with_removed({}, "graph")) == GraphConfig()
    assert GraphConfig.model_validate({"profile": "gram", "profile_rank": 256}) == GraphConfig()
    assert GraphConfig.model_validate({"profile": "randomized"}) == GraphConfig(profile_rank=256)
    assert GraphConfig.model_validate({"profile": "randomized", "profile_rank": 9}) == GraphConfig(profile_rank=9)


@pytest.mark.parametrize(
    ("section", "key", "value", "instead"),
    [
        ("edges", "k", 10, "edges.degree"),
        ("edges", "n0", 1000, "constant"),
        ("graph", "profile", "full", "graph.profile_rank"),
        ("graph", "device", "cuda", "--device"),
        ("graph", "negative_variance", "drop", "Poisson"),
    ],
)
def test_other_values_name_what_to_use(section, key, value, instead):
    kind = {"edges": EdgeConfig, "graph": GraphConfig}[section]
    with pytest.raises(ConfigError, match=rf"`{section}.{key}` was removed .*{instead}"):
        kind.model_validate({key: value})


@pytest.mark.parametrize("section", ["edges", "graph"])
def test_no_setting_is_both_there_and_removed(section):
    kind = {"edges": EdgeConfig, "graph": GraphConfig}[section]
    assert REMOVED[section].keys().isdisjoint(kind.model_fields)


def test_the_identity_tells_what_is_built_how():
    graph = GraphConfig()
    dataset = mg.load_atlas(DATA / "closed_form" / "config.lock.yaml").datasets[0]
    builds = [
        build_parameters(dataset, graph),
        build_parameters(dataset, graph, device="cuda"),
        build_parameters(dataset, graph, block_rows=64),
        build_parameters(dataset, GraphConfig(profile_rank=256)),
        build_parameters(dataset, GraphConfig(profile_rank=255)),
    ]
    assert len({build_id({}, parameters, ALGORITHM) for parameters in builds}) == len(builds)
