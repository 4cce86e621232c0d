from __future__ import annotations

import zipfile
from typing import NamedTuple

import numpy as np
import pytest

from musegnn.coexpression.tasks import Task, is_whole, load, run_here, run_stage, save
from musegnn.errors import WriteError


class Squares(NamedTuple):
    squares: np.ndarray
    name: str
    missing: int | None = None


class Anything(NamedTuple):
    fine: object
    other: object


def squares(n: int) -> Squares:
    return Squares(np.arange(n) ** 2, "clamp")


def never(n: int) -> Squares:
    raise AssertionError(n)


@pytest.fixture
def stage(tmp_path):
    return [Task(tmp_path / "stage" / f"{k:05d}.npz", squares, (k,)) for k in range(5)]


def same(one: Squares, two: Squares) -> bool:
    a, b = one.squares, two.squares
    return a.dtype == b.dtype and a.tobytes() == b.tobytes() and one[1:] == two[1:]


def test_every_task_leaves_its_file_and_is_told_once(stage):
    told = []
    run_stage(stage, run_here, told.append)
    assert told == stage
    assert sorted(p.name for p in stage[0].path.parent.iterdir()) == [task.path.name for task in stage]
    for k, task in enumerate(stage):
        assert same(load(task.path, Squares), squares(k))


def test_finished_tasks_are_not_run_again(stage):
    run_stage(stage, run_here, lambda _: None)
    told = []
    run_stage([Task(task.path, never, task.arguments) for task in stage], run_here, told.append)
    assert [task.path for task in told] == [task.path for task in stage]


@pytest.mark.parametrize("hurt", [lambda raw: raw[: len(raw) // 2], lambda raw: b"", lambda raw: raw[:100] + raw[101:]])
def test_damaged_tasks_alone_are_run_again(stage, hurt):
    run_stage(stage, run_here, lambda _: None)
    stage[2].path.write_bytes(hurt(stage[2].path.read_bytes()))
    run = []

    def runner(tasks, done):
        run.extend(tasks)
        run_here(tasks, done)

    run_stage(stage, runner, lambda _: None)
    assert run == [stage[2]]
    assert same(load(stage[2].path, Squares), squares(2))


def test_a_task_that_fails_leaves_nothing_behind(stage):
    tasks = [stage[0], Task(stage[1].path, never, (1,)), stage[2]]
    with pytest.raises(AssertionError):
        run_stage(tasks, run_here, lambda _: None)
    assert [p.name for p in stage[0].path.parent.iterdir()] == ["00000.npz"]


@pytest.mark.parametrize("flip", [0x01, 0x02, 0x08, 0x0E, 0x40, 0xFF])
def test_no_changed_byte_goes_unnoticed(tmp_path, flip):
    """Wherever it is: in an array, a checksum or the directory of the archive, found or without effect."""
    path = tmp_path / "task.npz"
    given = squares(4)
    save(path, given)
    raw = path.read_bytes()
    assert is_whole(path)
    found = 0
    for place in range(len(raw)):
        path.write_bytes(raw[:place] + bytes([raw[place] ^ flip]) + raw[place + 1 :])
        if is_whole(path):
            assert same(load(path, Squares), given), place
        else:
            found += 1
    assert found > len(raw) / 2


def test_an_array_that_cannot_be_written_leaves_no_file(tmp_path):
    class Broken:
        def __array__(self, dtype=None, copy=None):
            raise OSError(28, "No space left on device")

    with pytest.raises(WriteError, match=r"E140.*no space for task\.npz"):
        save(tmp_path / "task.npz", Anything(np.zeros(3), Broken()))
    assert list(tmp_path.iterdir()) == []


def test_files_are_archives_without_pickles(tmp_path):
    save(tmp_path / "task.npz", Anything(1, np.array([None, {}], dtype=object)))
    assert zipfile.is_zipfile(tmp_path / "task.npz")
    with pytest.raises(ValueError, match="allow_pickle"):
        load(tmp_path / "task.npz", Anything)
