"""Stores and checkpoints after simulated power failures: what was promised is there, and whole."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import torch

from benchmarks.crash.power_loss import Recording, crash, recorded
from benchmarks.crash.records import committed, make_record
from musegnn.data_store import Store
from musegnn.errors import MuseGNNError
from musegnn.training import checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

BUILDS = (("lung", 0), ("brain", 1), ("lung", 2), ("liver", 3))
ROUNDS = 4


@dataclass
class PowerLosses:
    """Number of states tried, and what was lost, damaged or could not go on in them, one line each."""

    states: int
    lost: list[str]


def store_power_losses(states: int, *, seed: int = 0) -> PowerLosses:
    """Commit datasets and checkpoints, fail at random moments, and compare with what was promised."""
    result = PowerLosses(0, [])
    with TemporaryDirectory(prefix="musegnn-") as folder:
        base = Path(folder).resolve()
        for work, check in ((_commit_all, _check_store), (_train_all, _check_checkpoints)):
            root = base / work.__name__
            root.mkdir()
            with recorded(root) as recording:
                work(root, recording)
            with _unsynchronised():
                rng = np.random.default_rng(seed)
                for _ in range(states // 2):
                    moment = int(rng.integers(len(recording.changes) + 1))
                    promised = crash(recording, moment, rng, base / "after")
                    result.states += 1
                    try:
                        check(base / "after", promised, root)
                    except (AssertionError, MuseGNNError, OSError, ValueError) as error:
                        result.lost.append(f"{work.__name__} after change {moment}: {error}")
    return result


def _commit_all(root: Path, recording: Recording) -> None:
    store = Store.create(root / "new" / "store.zarr")
    for name, seed in BUILDS:
        store.commit(make_record(name, seed=seed), f"b{seed}")
        recording.promise((name, f"b{seed}"))


def _check_store(root: Path, promised: list[object], original: Path) -> None:
    path = root / "new" / "store.zarr"
    store = Store.open(path) if promised else Store.open_or_create(path)
    shown = {name: store.build_of(name) for name in store.datasets()}
    latest = dict(BUILDS[: len(promised)])
    for name, seed in latest.items():
        _require(shown.get(name) is not None, f"{name} is lost")
        _require(int(str(shown[name])[1:]) >= seed, f"build b{seed} of {name} is lost")
    problems = store.verify()
    _require(problems == [], f"damage: {problems[:1]}")
    for name, build in shown.items():
        record, seed = store.read(name), int(str(build)[1:])
        expected = make_record(name, seed=seed)
        _require(np.array_equal(record.pairs.z, expected.pairs.z), f"{name} reads otherwise")
        _require(np.array_equal(record.profile, expected.profile), f"{name} reads otherwise")
    for name, seed in BUILDS[len(promised) :]:
        store.commit(make_record(name, seed=seed), f"b{seed}")
    _require(committed(store.path) == committed(original / "new" / "store.zarr"), "going on gives other bytes")


def _units(round_: int) -> dict[str, dict[str, torch.Tensor]]:
    """Return two units that change with each round, and one that does not."""
    return {
        "shared": {"w": torch.full((50,), float(round_))},
        "lung": {"w": torch.full((70,), 10.0 + round_)},
        "brain": {"w": torch.ones(30)},
    }


def _commit_round(folder: Path, round_: int) -> None:
    shards = [checkpoint.write_shard(folder, name, tensors) for name, tensors in _units(round_).items()]
    checkpoint.commit(folder, round_, shards, fingerprint="f")


def _train_all(root: Path, recording: Recording) -> None:
    for round_ in range(1, ROUNDS + 1):
        _commit_round(root / "run" / "checkpoints", round_)
        recording.promise(round_)


def _check_checkpoints(root: Path, promised: list[object], _: Path) -> None:
    folder = root / "run" / "checkpoints"
    found = checkpoint.manifests(folder)
    newest = found[0].round if found else 0
    _require(newest >= len(promised), f"round {len(promised)} is lost, the newest is {newest}")
    if found:
        units = checkpoint.read_units(folder, found[0])
        _require(
            all(torch.equal(units[name]["w"], tensors["w"]) for name, tensors in _units(newest).items()),
            "weights read otherwise",
        )
    for round_ in range(newest + 1, ROUNDS + 2):
        _commit_round(folder, round_)
    _require(checkpoint.manifests(folder)[0].round == ROUNDS + 1, "training cannot go on")


@contextmanager
def _unsynchronised() -> Iterator[None]:
    """Leave out waiting for the disk, of which nothing here depends on."""
    original = os.fsync
    os.fsync = lambda _: None
    try:
        yield
    finally:
        os.fsync = original


def _require(claim: bool, message: str) -> None:  # noqa: FBT001  a check takes what it checks
    if not claim:
        raise AssertionError(message)
