"""Processes that see different files take up the same checkpoint, or none.

A network file system may show one host an old listing of a folder, for seconds or for a minute.
"""

from __future__ import annotations

import shutil
import threading
import time

import pytest

from musegnn.api import MuSeGNN
from musegnn.errors import CheckpointDamagedError, RunError
from musegnn.training import checkpoint, trainer
from musegnn.training.checkpoint import manifests
from musegnn.training.prepare import prepare
from musegnn.training.torch_comm import TorchComm
from musegnn.training.trainer import Trainer


@pytest.fixture
def views(atlas, tmp_path, monkeypatch):
    """Train four rounds, and give a second view of the run folder that lacks the newest manifest."""
    monkeypatch.setattr(trainer, "VISIBLE_SECONDS", 1.0)
    store, config = atlas(2, training__rounds=8)
    short = config.model_copy(update={"training": config.training.model_copy(update={"rounds": 4})})
    MuSeGNN(store, short).train(tmp_path / "run")
    fresh, old = tmp_path / "run", tmp_path / "old"
    (old / "checkpoints").mkdir(parents=True)
    (old / "checkpoints" / "shards").symlink_to(fresh / "checkpoints" / "shards")
    shutil.copy(fresh / "checkpoints" / "round-000002.json", old / "checkpoints")
    return store, config, fresh, old


def restore(in_ranks, stores, config, folders, *, run=False, known=None, see_again=lambda: None):
    """Restore in two processes, one dataset each; return the round of each and train on where asked."""

    def work(rank, group):
        owner = [0, 1]
        data = prepare(stores[rank], config, owned=[rank])
        comm = TorchComm(group, owner, [graph.n_genes for graph in data.graphs], config.model.dim)
        member = Trainer(data, config, comm=comm, owner=owner)
        member.restore(folders[rank], known=known)
        rounds = member.rounds
        if run:
            comm.gather([])
            if rank == 0:
                see_again()
            comm.gather([])
            member.run(folders[rank])
        return rounds

    return in_ranks(2, work)


def units(folder):
    newest = manifests(folder / "checkpoints")[0]
    return newest.round, {name: shard.sha256 for name, shard in newest.units.items()}


@pytest.mark.parametrize("late", [0, 1])
def test_the_newest_checkpoint_that_all_see_is_taken(in_ranks, views, tmp_path, late):
    store, config, fresh, old = views
    folders = [old, fresh] if late == 0 else [fresh, old]

    def see_again():
        shutil.rmtree(old / "checkpoints")
        (old / "checkpoints").symlink_to(fresh / "checkpoints")

    assert restore(in_ranks, [store] * 2, config, folders, run=True, see_again=see_again) == [2, 2]

    MuSeGNN(store, config).train(tmp_path / "alone")
    assert units(folders[0]) == units(tmp_path / "alone")


@pytest.mark.parametrize("late", [0, 1])
def test_a_host_that_goes_on_seeing_an_old_folder_is_named(in_ranks, views, monkeypatch, late):
    monkeypatch.setattr(checkpoint, "VISIBLE_SECONDS", 1.0)
    store, config, fresh, old = views
    with pytest.raises(RunError, match=r"E448.*checkpoints: what .* writes there is not seen on "):
        restore(in_ranks, [store] * 2, config, [old, fresh] if late == 0 else [fresh, old], run=True)


def test_a_manifest_that_appears_late_is_waited_for(in_ranks, views, monkeypatch):
    monkeypatch.setattr(trainer, "VISIBLE_SECONDS", 20.0)
    store, config, fresh, old = views

    def appear():
        time.sleep(1.0)
        shutil.copy(fresh / "checkpoints" / "round-000004.json", old / "checkpoints")

    thread = threading.Thread(target=appear)
    thread.start()
    assert restore(in_ranks, [store] * 2, config, [fresh, old]) == [4, 4]
    thread.join()


def test_what_only_the_controller_has_seen_is_waited_for(in_ranks, views, monkeypatch):
    monkeypatch.setattr(trainer, "VISIBLE_SECONDS", 20.0)
    store, config, fresh, old = views
    newest = manifests(fresh / "checkpoints")[0]
    timer = threading.Timer(1.0, shutil.copy, [fresh / "checkpoints" / "round-000004.json", old / "checkpoints"])
    timer.start()
    assert restore(in_ranks, [store] * 2, config, [old, old], known=(4, newest.sha256)) == [4, 4]
    timer.join()


def test_a_shard_that_one_process_does_not_see_gives_way_to_the_checkpoint_before(in_ranks, views, tmp_path):
    store, config, fresh, old = views
    shard = manifests(fresh / "checkpoints")[0].units["dataset/lung-b/layer"]
    (old / "checkpoints" / "shards").unlink()
    shutil.copytree(fresh / "checkpoints", old / "checkpoints", dirs_exist_ok=True)
    (old / "checkpoints" / "shards" / shard.file).unlink()
    assert restore(in_ranks, [store] * 2, config, [fresh, old]) == [2, 2]


def test_a_folder_of_another_disk_is_named_with_its_host(in_ranks, views):
    """Both have a checkpoint of round 2, but not the same one, and no other."""
    store, config, fresh, old = views
    (fresh / "checkpoints" / "round-000004.json").unlink()
    mine = manifests(old / "checkpoints")[0]
    checkpoint.commit(
        old / "checkpoints", 2, mine.units.values(), fingerprint=mine.fingerprint, plan={"owner": "another"}
    )
    with pytest.raises(CheckpointDamagedError, match=r"E403.*round 2 on .*not the one that other processes see"):
        restore(in_ranks, [store] * 2, config, [fresh, old])


def test_processes_that_read_different_data_are_refused(in_ranks, views, synthetic):
    store, config, fresh, _ = views
    records = dict(store.records)
    one = records["lung.a"]
    records["lung.a"] = synthetic.make_record("lung.a", one.modality, one.tissue, one.species, seed=1)
    other = synthetic.FakeStore(store.path, records)
    with pytest.raises(RunError, match=r"E446.*rank 1.*reads other data.*rank 0"):
        restore(in_ranks, [store, other], config, [fresh, fresh])


def test_a_shard_that_another_host_has_written_is_waited_for(tmp_path):
    import torch

    shard = checkpoint.write_shard(tmp_path, "a", {"w": torch.zeros(3)})
    hidden = tmp_path / "hidden"
    (tmp_path / "shards" / shard.file).rename(hidden)
    timer = threading.Timer(0.5, hidden.rename, [tmp_path / "shards" / shard.file])
    timer.start()
    checkpoint.commit(tmp_path, 1, [shard], fingerprint="f")
    timer.join()
    assert [manifest.round for manifest in manifests(tmp_path)] == [1]
