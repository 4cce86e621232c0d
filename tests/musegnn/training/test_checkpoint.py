"""Checkpoints: equal bytes, resuming without a trace, and refusing what is damaged."""

from __future__ import annotations

import json
import logging
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from musegnn.errors import RunError
from musegnn.musegnn import MuSeGNN
from musegnn.training.checkpoint import KEEP, has_checkpoint, newest_checkpoint, read_checkpoint, write_checkpoint

UNITS = {
    "dataset/a/layer": {"weight/w": torch.arange(6.0).reshape(2, 3), "adam/w/step": torch.tensor(2.0)},
    "shared/layers/scrna": {"weight/b": torch.tensor([1.0, -0.0, 3e-39], dtype=torch.float64)},
}


def tree(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def losses(model):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in model.history]


def test_written_tensors_come_back(tmp_path):
    path = write_checkpoint(tmp_path, 7, UNITS.items(), fingerprint="f")
    found = read_checkpoint(path)
    assert (found.round, found.fingerprint) == (7, "f")
    assert found.units.keys() == UNITS.keys()
    for name, tensors in UNITS.items():
        assert found.units[name].keys() == tensors.keys()
        for key, tensor in tensors.items():
            assert found.units[name][key].dtype == tensor.dtype
            assert found.units[name][key].numpy().tobytes() == tensor.numpy().tobytes()


def test_the_newest_are_kept_and_later_rounds_give_way(tmp_path):
    for round_ in (10, 20, 30):
        write_checkpoint(tmp_path, round_, UNITS.items(), fingerprint="f")
    assert KEEP == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["round-000020", "round-000030"]
    write_checkpoint(tmp_path, 25, UNITS.items(), fingerprint="f")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["round-000020", "round-000025"]


def test_a_half_written_checkpoint_is_none_and_is_replaced(tmp_path):
    (tmp_path / "round-000010.partial").mkdir(parents=True)
    (tmp_path / "round-000010.partial" / "unit-0000.safetensors").write_bytes(b"half")
    assert not has_checkpoint(tmp_path)
    assert newest_checkpoint(tmp_path) is None
    write_checkpoint(tmp_path, 10, UNITS.items(), fingerprint="f")
    assert newest_checkpoint(tmp_path).round == 10
    assert [p.name for p in tmp_path.iterdir()] == ["round-000010"]


def test_every_damage_is_refused(tmp_path):
    """Any flipped byte, truncation or missing file of a checkpoint is found before a tensor is read from it."""
    path = write_checkpoint(tmp_path / "good", 7, UNITS.items(), fingerprint="f")
    draw = random.Random(0)
    n_cases = 0
    for file in sorted(p.name for p in path.iterdir()):
        data = (path / file).read_bytes()
        places = range(len(data)) if len(data) < 400 else sorted(draw.sample(range(len(data)), 400))
        flips = [data[:k] + bytes([data[k] ^ 1 << draw.randrange(8)]) + data[k + 1 :] for k in places]
        cuts = [data[:k] for k in (0, 1, len(data) // 2, len(data) - 2)] + [data + b"\0"]
        for damaged in [None, *flips, *cuts]:
            shutil.copytree(path, tmp_path / "bad")
            if damaged is None:
                (tmp_path / "bad" / file).unlink()
            else:
                (tmp_path / "bad" / file).write_bytes(damaged)
            if damaged is not None and file == "MANIFEST.json" and same_json(damaged, data):
                read_checkpoint(tmp_path / "bad")  # white space carries nothing
            else:
                with pytest.raises(RunError, match="E403"):
                    read_checkpoint(tmp_path / "bad")
            shutil.rmtree(tmp_path / "bad")
            n_cases += 1
    assert n_cases > 600


def same_json(a, b):
    try:
        return json.loads(a) == json.loads(b)
    except ValueError:
        return False


def test_a_checkpoint_of_a_newer_program_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("musegnn.training.checkpoint.VERSION", 2)
    write_checkpoint(tmp_path, 7, UNITS.items(), fingerprint="f")
    monkeypatch.undo()
    with pytest.raises(RunError, match="E290"):
        newest_checkpoint(tmp_path)


@pytest.mark.parametrize("order", ["parallel", "sequential"])
def test_equal_seeds_give_equal_bytes(atlas, tmp_path, order):
    store, config = atlas(3, training__order=order, model__edge_dropout=0.1)
    for name in ("one", "two"):
        MuSeGNN(store, config).train(tmp_path / name)
    one = tree(tmp_path / "one" / "checkpoints")
    assert len(one) == 2 * (3 * 2 + 2 + 1 + 1)
    assert one == tree(tmp_path / "two" / "checkpoints")
    other = atlas(3, training__order=order, model__edge_dropout=0.1, training__seed=1)[1]
    MuSeGNN(store, other).train(tmp_path / "three")
    assert one != tree(tmp_path / "three" / "checkpoints")


@pytest.mark.parametrize("order", ["parallel", "sequential"])
def test_resuming_equals_never_stopping(atlas, tmp_path, order):
    store, config = atlas(3, training__order=order, training__rounds=7)
    whole = MuSeGNN(store, config).train(tmp_path / "whole")
    short = config.model_copy(update={"training": config.training.model_copy(update={"rounds": 3})})
    MuSeGNN(store, short).train(tmp_path / "parts")
    parts = MuSeGNN(store, config).train(tmp_path / "parts", resume=True)
    assert tree(tmp_path / "whole" / "checkpoints").keys() >= {"round-000007/MANIFEST.json"}
    last = "checkpoints/round-000007"
    assert tree(tmp_path / "whole" / last) == tree(tmp_path / "parts" / last)
    np.testing.assert_array_equal(whole.embeddings().X, parts.embeddings().X)
    assert [row for row in losses(parts) if row["kind"] == "losses"] == [
        row for row in losses(whole) if row["kind"] == "losses"
    ]


def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(atlas, tmp_path, caplog):
    store, config = atlas(2, training__rounds=6)
    MuSeGNN(store, config).train(tmp_path / "run")
    whole = tree(tmp_path / "run" / "checkpoints")
    victim = tmp_path / "run" / "checkpoints" / "round-000006" / "unit-0002.safetensors"
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 16
    victim.write_bytes(bytes(data))
    with caplog.at_level(logging.WARNING, logger="musegnn"):
        loaded = MuSeGNN.load(tmp_path / "run", store)
    assert loaded.rounds == 4
    (record,) = caplog.records
    assert "round-000006" in record.getMessage()
    assert "dataset/lung-b/layer" in record.getMessage()
    again = MuSeGNN(store, config).train(tmp_path / "run", resume=True)
    assert tree(tmp_path / "run" / "checkpoints") == whole
    assert [row["round"] for row in again.history if row["kind"] == "losses"] == [r for r in range(1, 7) for _ in "ab"]
    for path in (tmp_path / "run" / "checkpoints").glob("*/MANIFEST.json"):
        path.write_bytes(b"{}")
    with pytest.raises(RunError, match="no checkpoint is whole"):
        MuSeGNN.load(tmp_path / "run", store)


def test_folders_of_other_runs_are_refused(atlas, tmp_path):
    store, config = atlas(2)
    MuSeGNN(store, config).train(tmp_path / "run")
    with pytest.raises(RunError, match="E404"):
        MuSeGNN(store, config).train(tmp_path / "run")
    with pytest.raises(RunError, match="E293"):
        MuSeGNN(store, atlas(2, training__seed=5)[1]).train(tmp_path / "run", resume=True)
    store.records["lung.a"].pairs.z[:] *= 1.01
    with pytest.raises(RunError, match="E402"):
        MuSeGNN(store, config).train(tmp_path / "run", resume=True)
    with pytest.raises(RunError, match="E401"):
        MuSeGNN.from_run(tmp_path / "nothing", store, config)


CHILD = """
import importlib.util, sys
from pathlib import Path

spec = importlib.util.spec_from_file_location("synthetic", sys.argv[1])
synthetic = importlib.util.module_from_spec(spec)
sys.modules["synthetic"] = synthetic
spec.loader.exec_module(synthetic)
folder = Path(sys.argv[2])
config = synthetic.make_atlas(folder, 3, training__rounds=14, training__checkpoint_every=1)
from musegnn.musegnn import MuSeGNN

model = MuSeGNN(synthetic.make_store(folder, config), config)
model.train(folder / "run", resume=True, progress=lambda *a: print(a[1], flush=True))
"""


@pytest.mark.slow
def test_kills_at_random_moments_leave_no_trace(atlas, tmp_path):
    """SIGKILL three trainings at random moments; the last one ends with the bits of a run never stopped."""
    store, config = atlas(3, training__rounds=14, training__checkpoint_every=1)
    MuSeGNN(store, config).train(tmp_path / "whole")
    synthetic = Path(__file__).with_name("conftest.py")
    command = [sys.executable, "-c", CHILD, str(synthetic), str(tmp_path)]
    moments = random.SystemRandom()
    killed = []
    for _ in range(3):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            for _, line in zip(range(moments.randint(1, 3)), child.stdout, strict=False):
                killed.append(int(line))
            time.sleep(moments.uniform(0.0, 0.15))
            child.send_signal(signal.SIGKILL)
        assert child.returncode in (-signal.SIGKILL, 0)
    assert killed
    resumed = MuSeGNN(store, config).train(tmp_path / "run", resume=True)
    message = f"rounds reported before the kills: {killed}"
    last = "checkpoints/round-000014"
    assert tree(tmp_path / "whole" / last) == tree(tmp_path / "run" / last), message
    assert not list((tmp_path / "run" / "checkpoints").glob("*.partial")), message
    rounds = [row["round"] for row in resumed.history if row["kind"] == "losses"]
    assert rounds == [r for r in range(1, 15) for _ in range(3)], message
