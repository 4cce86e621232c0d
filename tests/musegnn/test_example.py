"""The shipped example with the shipped defaults: no alarm, and a space in which tissues meet."""

from __future__ import annotations

from pathlib import Path

import pytest

import musegnn as mg
from musegnn.evaluation.joint import mixing, retrieve_jointly
from musegnn.evaluation.retrieval import summarize_pairs

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "atlas" / "atlas.yaml"

pytestmark = pytest.mark.slow


def test_the_example_raises_no_alarm_and_its_tissues_meet(tmp_path):
    atlas = mg.load_atlas(EXAMPLE)
    model = mg.MuSeGNN(mg.build_graphs(atlas, tmp_path / "store.zarr"), atlas).train()
    assert [problem for problem in model.problems() if problem.code in {"W501", "W502"}] == []
    graphs, vectors = model.graphs, model.vectors()
    found = summarize_pairs(retrieve_jointly(graphs, vectors))["overall"]
    assert found["mrr"] > 5 * found["chance_mrr"]
    assert mixing(graphs, vectors)["within_tissue"] > 0.6
