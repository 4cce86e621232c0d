"""Metrics on disk and measures of collapse."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from musegnn.api import MuSeGNN
from musegnn.training.metrics_log import RunLog, describe_space

LOSSES = ("reconstruction", "similarity", "contrast", "alignment")


def row(round_, **values):
    return {"round": round_, "kind": "losses", "dataset": "a", "partner": "b", **values}


def test_lines_past_the_checkpoint_are_cut(tmp_path):
    with RunLog(tmp_path, after=0) as log:
        log.write([row(1, loss=0.5), row(2, loss=0.4), row(3, loss=0.3)])
    with (tmp_path / "metrics.jsonl").open("a") as handle:
        handle.write('{"round": 4, "ki')
    with RunLog(tmp_path, after=2) as log:
        log.write([row(3, loss=0.25)])
    found = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert found == log.history == [row(1, loss=0.5), row(2, loss=0.4), row(3, loss=0.25)]


def test_a_run_logs_every_loss_of_every_dataset(atlas, tmp_path):
    store, config = atlas(3)
    model = MuSeGNN(store, config).train(tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows == model.history
    per_round = [r for r in rows if r["kind"] == "losses"]
    assert [(r["round"], r["dataset"]) for r in per_round] == [
        (k, name) for k in (1, 2, 3) for name in ("lung.a", "lung-b", "brain")
    ]
    for r in per_round:
        assert {*LOSSES, "loss", "n_shared", "seconds"} <= r.keys()
        weights = config.training.loss
        parts = sum(
            getattr(weights, name) * r[name] for name in ("reconstruction", "similarity", "contrast", "alignment")
        )
        assert r["loss"] == pytest.approx(parts)
    measured = [r for r in rows if r["kind"] == "space"]
    assert [r["round"] for r in measured] == [2] * 3 + [3] * 3
    assert all(1.0 <= r["effective_rank"] <= 8.0 and -1.0 <= r["mean_cosine"] <= 1.0 for r in measured)
    board = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    board.Reload()
    assert [e.step for e in board.Scalars("alignment/brain")] == [1, 2, 3]
    assert [e.value for e in board.Scalars("loss/lung.a")] == pytest.approx([r["loss"] for r in per_round[::3]])


def test_a_collapsed_space_is_told():
    full = np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32)
    line = np.outer(np.arange(1, 6), [1.0, 2.0]).astype(np.float32)
    records = describe_space({"full": full, "line": line, "point": np.ones((5, 3), dtype=np.float32)}, 7)
    ranks = {r["dataset"]: r["effective_rank"] for r in records}
    assert ranks["full"] > 3.8
    assert ranks["line"] == pytest.approx(1.0)
    assert ranks["point"] == 0.0
    assert abs(records[0]["mean_cosine"]) < 0.05
    assert [r["mean_cosine"] for r in records[1:]] == pytest.approx([1.0, 1.0])
    assert {(r["kind"], r["round"]) for r in records} == {("space", 7)}
