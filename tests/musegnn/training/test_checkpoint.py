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
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from musegnn.api import MuSeGNN
from musegnn.errors import RunError, WriteError
from musegnn.training.checkpoint import (
    KEEP,
    Writer,
    announce,
    commit,
    has_checkpoint,
    manifests,
    newest_group_epoch,
    read_units,
    write_shard,
)

UNITS = {
    "dataset/a/layer": {"weight/w": torch.arange(6.0).reshape(2, 3), "adam/w/step": torch.tensor(2.0)},
    "shared/layers/scrna": {"weight/b": torch.tensor([1.0, -0.0, 3e-39], dtype=torch.float64)},
}


def tree(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def last_units(run):
    """Name the content of every unit in the newest checkpoint of a run."""
    return {name: shard.sha256 for name, shard in manifests(run / "checkpoints")[0].units.items()}


def losses(model):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in model.history]


def write(folder, round_=7, units=UNITS, **options):
    shards = [write_shard(folder, name, tensors) for name, tensors in units.items()]
    return commit(folder, round_, shards, fingerprint="f", **options)


def read_newest(folder):
    """Read as one process does: the newest manifest, then all of its units."""
    manifest = manifests(folder)[0]
    return manifest, read_units(folder, manifest)


def test_written_tensors_come_back(tmp_path):
    write(tmp_path, plan={"owner": [0, 1]})
    manifest, units = read_newest(tmp_path)
    assert (manifest.round, manifest.fingerprint) == (7, "f")
    assert manifest.plan == {"owner": [0, 1]}
    assert units.keys() == UNITS.keys()
    for name, tensors in UNITS.items():
        assert units[name].keys() == tensors.keys()
        for key, tensor in tensors.items():
            assert units[name][key].dtype == tensor.dtype
            assert units[name][key].numpy().tobytes() == tensor.numpy().tobytes()


def test_a_process_reads_the_units_it_wants(tmp_path):
    write(tmp_path)
    manifest = manifests(tmp_path)[0]
    (tmp_path / "shards" / manifest.units["dataset/a/layer"].file).unlink()
    assert list(read_units(tmp_path, manifest, ["shared/layers/scrna"])) == ["shared/layers/scrna"]
    with pytest.raises(RunError, match=r"E403.*dataset/a/layer"):
        read_units(tmp_path, manifest, ["dataset/a/layer"])
    with pytest.raises(RunError, match=r"E403.*dataset/b/layer"):
        read_units(tmp_path, manifest, ["dataset/b/layer"])


def test_the_newest_are_kept_and_later_rounds_give_way(tmp_path):
    def changed(k):
        return {name: {**tensors, "k": torch.tensor(k)} for name, tensors in UNITS.items()}

    for round_ in (10, 20, 30):
        write(tmp_path, round_, changed(round_))
    assert KEEP == 2
    assert sorted(p.name for p in tmp_path.glob("round*")) == ["round-000020.json", "round-000030.json"]
    assert len(list((tmp_path / "shards").iterdir())) == 4
    write(tmp_path, 25, changed(25))
    assert sorted(p.name for p in tmp_path.glob("round*")) == ["round-000020.json", "round-000025.json"]
    assert len(list((tmp_path / "shards").iterdir())) == 4
    assert [m.round for m in manifests(tmp_path)] == [25, 20]


def test_an_unchanged_unit_is_not_written_again_and_a_damaged_one_is(tmp_path):
    write(tmp_path, 10)
    files = {p: p.stat().st_ino for p in (tmp_path / "shards").iterdir()}
    write(tmp_path, 20)
    assert {p: p.stat().st_ino for p in (tmp_path / "shards").iterdir()} == files
    victim = next(iter(files))
    good = victim.read_bytes()
    victim.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    write(tmp_path, 30)
    assert victim.read_bytes() == good


def test_what_was_not_committed_is_no_checkpoint_and_is_removed(tmp_path):
    for name, tensors in UNITS.items():
        write_shard(tmp_path, name, {**tensors, "k": torch.zeros(1)})
    (tmp_path / "shards" / ".x.0.partial").write_bytes(b"half")
    assert not has_checkpoint(tmp_path)
    assert manifests(tmp_path) == []
    write(tmp_path, 10)
    assert sorted(p.name for p in (tmp_path / "shards").iterdir()) == sorted(
        shard.file for shard in manifests(tmp_path)[0].units.values()
    )


def test_a_checkpoint_with_a_missing_unit_is_not_committed(tmp_path):
    shards = [write_shard(tmp_path, name, tensors) for name, tensors in UNITS.items()]
    (tmp_path / "shards" / shards[1].file).unlink()
    with pytest.raises(RunError, match=r"E403.*shared/layers/scrna"):
        commit(tmp_path, 7, shards, fingerprint="f")
    assert not has_checkpoint(tmp_path)


def test_a_group_that_was_replaced_commits_nothing(tmp_path):
    announce(tmp_path, 1)
    write(tmp_path, 10, group_epoch=1)
    announce(tmp_path, 2)
    with pytest.raises(RunError, match="E444"):
        write(tmp_path, 20, group_epoch=1)
    with pytest.raises(RunError, match="E444"):
        announce(tmp_path, 1)
    assert [m.round for m in manifests(tmp_path)] == [10]
    write(tmp_path, 20, group_epoch=2)
    assert newest_group_epoch(tmp_path) == 2
    (tmp_path / "GENERATION").write_text("many")
    with pytest.raises(RunError, match="E403"):
        newest_group_epoch(tmp_path)


def test_a_writer_writes_the_moment_and_not_what_comes_after(tmp_path):
    weight = torch.zeros(1000)
    writer = Writer(tmp_path, {"a": {"w": weight}})
    weight.fill_(1.0)
    (shard,) = writer.wait()
    commit(tmp_path, 1, [shard], fingerprint="f")
    assert read_newest(tmp_path)[1]["a"]["w"].equal(torch.zeros(1000))


def test_a_writer_that_fails_names_unit_and_folder(tmp_path):
    (tmp_path / "shards").write_text("in the way")
    with pytest.raises(WriteError, match=r"E292.*/shards: cannot write a-\w+\.safetensors"):
        Writer(tmp_path, {"a": {"w": torch.zeros(1)}}).wait()


def test_every_damage_is_refused(tmp_path):
    """Any flipped byte, truncation or missing file of a checkpoint is found before a tensor is read from it."""
    good = tmp_path / "good"
    write(good, 7)
    draw = random.Random(0)
    n_cases = 0
    for file in sorted(p.relative_to(good) for p in good.rglob("*") if p.is_file()):
        data = (good / file).read_bytes()
        places = range(len(data)) if len(data) < 400 else sorted(draw.sample(range(len(data)), 400))
        flips = [data[:k] + bytes([data[k] ^ 1 << draw.randrange(8)]) + data[k + 1 :] for k in places]
        cuts = [data[:k] for k in (0, 1, len(data) // 2, len(data) - 2)] + [data + b"\0"]
        for damaged in [None, *flips, *cuts]:
            bad = tmp_path / "bad"
            shutil.copytree(good, bad)
            if damaged is None:
                (bad / file).unlink()
            else:
                (bad / file).write_bytes(damaged)
            if damaged is not None and file.name.startswith("round") and same_json(damaged, data):
                read_newest(bad)  # white space carries nothing
            elif damaged is None and file.name.startswith("round"):
                assert manifests(bad) == []
            else:
                with pytest.raises(RunError, match="E403"):
                    read_newest(bad)
            shutil.rmtree(bad)
            n_cases += 1
    assert n_cases > 600


@given(data=st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_damage_of_a_large_unit_is_refused_by_its_name(tmp_path, data):
    folder = tmp_path / "large"
    if not folder.exists():
        write(folder, 7, {"dataset/a/layer": {"w": torch.arange(20_000.0)}})
    manifest = manifests(folder)[0]
    path = folder / "shards" / manifest.units["dataset/a/layer"].file
    whole = path.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    bit = data.draw(st.integers(0, 8))
    path.write_bytes(
        whole[:place] if bit == 8 else whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :]
    )
    try:
        with pytest.raises(RunError, match=r"E403.*dataset/a/layer"):
            read_units(folder, manifest)
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch])
def test_foreign_things_in_the_folder_are_no_checkpoints(tmp_path, make):
    write(tmp_path, 7)
    make(tmp_path / "round-000009.json")
    make(tmp_path / "notes")
    assert [m.round for m in manifests(tmp_path)] == [7]
    write(tmp_path, 8)
    assert (tmp_path / "notes").exists()


def test_checkpoints_of_the_first_version_are_refused(tmp_path):
    (tmp_path / "round-000010").mkdir()
    with pytest.raises(RunError, match="E290"):
        has_checkpoint(tmp_path)


def same_json(a, b):
    try:
        return json.loads(a) == json.loads(b)
    except ValueError:
        return False


def test_a_checkpoint_of_a_newer_program_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("musegnn.training.checkpoint.VERSION", 3)
    write(tmp_path, 7)
    monkeypatch.undo()
    with pytest.raises(RunError, match="E290"):
        manifests(tmp_path)


@pytest.mark.parametrize("sequential", [False, True])
def test_equal_seeds_give_equal_bytes(atlas, tmp_path, sequential):
    store, config = atlas(3, training__published={"sequential": sequential})
    for name in ("one", "two"):
        MuSeGNN(store, config).train(tmp_path / name)
    one = tree(tmp_path / "one" / "checkpoints")
    assert len(one) == 2 * (3 * 2 + 2 + 1) + 2  # shards of two rounds, all changed, and two manifests
    assert one == tree(tmp_path / "two" / "checkpoints")
    other = atlas(3, training__published={"sequential": sequential}, training__seed=1)[1]
    MuSeGNN(store, other).train(tmp_path / "three")
    assert one != tree(tmp_path / "three" / "checkpoints")


@pytest.mark.parametrize("sequential", [False, True])
def test_resuming_equals_never_stopping(atlas, tmp_path, sequential):
    store, config = atlas(3, training__published={"sequential": sequential}, training__rounds=7)
    whole = MuSeGNN(store, config).train(tmp_path / "whole")
    short = config.model_copy(update={"training": config.training.model_copy(update={"rounds": 3})})
    MuSeGNN(store, short).train(tmp_path / "parts")
    parts = MuSeGNN(store, config).train(tmp_path / "parts", resume=True)
    assert last_units(tmp_path / "whole") == last_units(tmp_path / "parts") != {}
    np.testing.assert_array_equal(whole.embeddings(layout=False).X, parts.embeddings(layout=False).X)
    assert [row for row in losses(parts) if row["kind"] == "losses"] == [
        row for row in losses(whole) if row["kind"] == "losses"
    ]


def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(atlas, tmp_path, caplog):
    store, config = atlas(2, training__rounds=6)
    MuSeGNN(store, config).train(tmp_path / "run")
    whole = last_units(tmp_path / "run")
    shard = manifests(tmp_path / "run" / "checkpoints")[0].units["dataset/lung-b/layer"]
    victim = tmp_path / "run" / "checkpoints" / "shards" / shard.file
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 16
    victim.write_bytes(bytes(data))
    with caplog.at_level(logging.WARNING, logger="musegnn"):
        loaded = MuSeGNN.load(tmp_path / "run", store)
    assert loaded.rounds == 4
    (record,) = caplog.records
    assert "round 6" in record.getMessage()
    assert "dataset/lung-b/layer" in record.getMessage()
    again = MuSeGNN(store, config).train(tmp_path / "run", resume=True)
    assert last_units(tmp_path / "run") == whole
    assert [row["round"] for row in again.history if row["kind"] == "losses"] == [r for r in range(1, 7) for _ in "ab"]
    for path in (tmp_path / "run" / "checkpoints").glob("round*"):
        path.write_bytes(b"{}")
    with pytest.raises(RunError, match="E403"):
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
    with pytest.raises(RunError, match="E405"):
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
from musegnn.api import MuSeGNN

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
    assert last_units(tmp_path / "whole") == last_units(tmp_path / "run"), message
    assert not list((tmp_path / "run" / "checkpoints").rglob("*.partial")), message
    rounds = [row["round"] for row in resumed.history if row["kind"] == "losses"]
    assert rounds == [r for r in range(1, 15) for _ in range(3)], message
