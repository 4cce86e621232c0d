"""A few of the failures that `make crash` tries by the hundreds, and that the trials can tell loss from none."""

from __future__ import annotations

import pytest

from benchmarks.crash import store_faults
from benchmarks.crash.fuzz import fuzz
from benchmarks.crash.inputs import KINDS
from benchmarks.crash.kills import kill_at_random
from benchmarks.crash.store_power_loss import store_power_losses
from musegnn.data_store import arrays, store
from musegnn.errors import StoreError


def test_power_failures_lose_nothing():
    found = store_power_losses(30)
    assert (found.states, found.lost) == (30, [])


@pytest.mark.parametrize("module", [arrays, store], ids=["folders of a build", "folders above the store"])
def test_the_simulation_finds_what_is_not_synchronised(monkeypatch, module):
    monkeypatch.setattr(module, "sync_folders", lambda *_: None)
    assert store_power_losses(30).lost != []


def test_every_flipped_bit_is_found():
    found = store_faults.flip_bits(25)
    assert (found.flipped, found.found, found.missed, found.misread) == (25, 25, [], [])


def test_the_trial_of_flips_finds_a_check_that_sees_nothing(monkeypatch):
    monkeypatch.setattr(store.Store, "verify", lambda _: [])
    assert store_faults.flip_bits(10).missed != []


def test_concurrent_commits_are_kept():
    assert store_faults.concurrent_commits(2, 3) == (6, [])


def test_full_and_read_only_file_systems_end_in_one_line():
    found = store_faults.full_and_read_only(("size=200k", "ro"))
    if not found:
        pytest.skip("this system lets nobody mount file systems")
    assert {trial: wrong for trial, wrong in found.items() if wrong} == {}


@pytest.mark.parametrize("kind", KINDS)
def test_mutated_files_are_read_or_refused(kind):
    found = fuzz(kind, 25)
    assert found.files == 25
    assert (found.died, found.errors, found.writes) == ([], [], [])
    assert found.accepted + found.refused.total() == 25


def test_the_fuzz_finds_a_reader_that_raises_anything(monkeypatch, tmp_path):
    from benchmarks.crash import fuzz as module
    from musegnn import datasets

    def broken(_):
        return {}["X"]

    path = tmp_path / "x.h5ad"
    path.write_bytes(b"")
    monkeypatch.setattr(datasets, "open_counts", broken)
    assert module._outcome(path, None) == "KeyError: 'X'"
    monkeypatch.setattr(datasets, "open_counts", lambda _: (_ for _ in ()).throw(StoreError("x", code="E130")))
    assert module._outcome(path, None) == "E130"


@pytest.mark.slow
def test_killed_process_groups_lose_nothing():
    found = kill_at_random(4)
    assert (found.kills, found.lost) == (4, [])
