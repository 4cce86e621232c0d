from __future__ import annotations

import csv
import json
import subprocess
import sys

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def frame_is_importable(root, monkeypatch):
    monkeypatch.syspath_prepend(str(root))


class FakeCase:
    name = "fake"

    def __init__(self, *, holds: bool) -> None:
        self.holds = holds
        self.timed = False

    def gate(self, *, quick):
        from benchmarks.registry import Check

        yield Check(claim="two and two are four", holds=self.holds, got="4")

    def measure(self, *, quick):
        from benchmarks.registry import Measurement

        self.timed = True
        yield Measurement(
            shape="1x1",
            metric="cpu_time",
            value=2.0,
            unit="s",
            baseline="slow",
            baseline_value=50.0,
            goal=("ratio", ">=", 30),
        )
        yield Measurement(shape="1x1", metric="error", value=1e-12, unit="", goal=("value", "<=", 1e-9))
        yield Measurement(shape="1x1", metric="memory", value=5.0, unit="MB")


def test_rows_are_appended_and_a_missed_goal_is_shown(tmp_path, capsys):
    from benchmarks.run import COLUMNS, run_cases

    for _ in range(2):
        assert run_cases([FakeCase(holds=True)], quick=True, json_path=tmp_path / "out.json", results=tmp_path) == 0
    with (tmp_path / "fake.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert tuple(rows[0]) == COLUMNS
    assert (rows[0]["ratio"], rows[0]["goal"], rows[0]["met"]) == ("25.0", "ratio >= 30", "False")
    assert rows[1]["met"] == "True"
    assert (rows[2]["goal"], rows[2]["met"], rows[2]["baseline"]) == ("", "", "")
    assert "MISSED" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "out.json").read_text())) == 3


def test_nothing_is_timed_on_a_red_gate(tmp_path, capsys):
    from benchmarks.run import run_cases

    case = FakeCase(holds=False)
    assert run_cases([case], quick=True, results=tmp_path) == 1
    assert not case.timed
    assert not (tmp_path / "fake.csv").exists()
    assert "FAIL" in capsys.readouterr().out


def test_a_goal_that_cannot_be_judged_is_an_error():
    from benchmarks.registry import Measurement

    with pytest.raises(ValueError, match="cannot be judged"):
        _ = Measurement(shape="", metric="", value=1.0, unit="", goal=("ratio", ">=", 2.0)).met


def test_the_program_names_its_cases(root):
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--help"], cwd=root, capture_output=True, text=True, check=True
    )
    assert "coexpression" in done.stdout
    done = subprocess.run([sys.executable, "-m", "benchmarks", "nothing"], cwd=root, capture_output=True, text=True)
    assert done.returncode == 2


def test_synthetic_counts_have_their_density_however_they_are_cut():
    from benchmarks.synthetic import SyntheticCounts

    source = SyntheticCounts(2200, 300, 0.1, seed=3)
    whole = np.concatenate([block.toarray() for _, block in source.blocks(10_000)])
    parts = np.concatenate([block.toarray() for _, block in source.blocks(700)])
    np.testing.assert_array_equal(whole, parts)
    assert whole.shape == (2200, 300)
    assert (whole > 0).mean() == pytest.approx(0.1, rel=0.15)


def test_the_dense_baseline_is_cscore(shared):
    from scipy.sparse import csr_matrix

    from benchmarks.peers.cscore_dense import cscore_dense

    given, golden = (np.load(shared / f"golden/cscore_mic500_{part}.npz") for part in ("input", "R"))
    counts = csr_matrix((given["data"], given["indices"], given["indptr"]), shape=tuple(given["shape"]))
    result = cscore_dense(counts.toarray().astype(float), given["seq_depth"])
    np.testing.assert_allclose(result.z, golden["test_stat"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(result.estimate, golden["est"], rtol=0, atol=1e-9)
