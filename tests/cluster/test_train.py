"""Training on Ray against training in one process: the same bits, whoever owns what and whoever fails."""

from __future__ import annotations

import itertools
import json
import logging
import re
import time

import numpy as np
import pytest

from benchmarks.faults import Fault, Faults
from musegnn.api import MuSeGNN
from musegnn.cluster.options import ClusterOptions
from musegnn.errors import ConfigError, RunError
from musegnn.run_folder import RunFolder
from musegnn.training.phases import PHASES

pytestmark = [pytest.mark.slow, pytest.mark.ray]
HOWS = ("exit", "kill", "stop", "exception")


@pytest.fixture(scope="module")
def alone(helpers, tmp_path_factory):
    """Train in one process, without Ray."""
    folder = tmp_path_factory.mktemp("alone")
    store, config = helpers.make_run(folder)
    model = MuSeGNN(store, config).train(folder / "run")
    return store, config, model, helpers.units(folder / "run")


@pytest.fixture
def train(ray_cluster, alone, tmp_path):
    """Return a function that trains on Ray and gives the monitor and the run folder."""
    from musegnn.cluster.options import Timeouts
    from musegnn.cluster.train import train_on_cluster

    store, config, _, _ = alone

    def run(
        actors, *, name="run", rounds=None, timeouts=None, faults=(), on_phase=None, owner=None, resume=False, **options
    ):
        training = config.training.model_copy(update={"rounds": rounds or config.training.rounds})
        folder = RunFolder.create(tmp_path / name, config.model_copy(update={"training": training}), store=store.path)
        monitor = train_on_cluster(
            folder,
            store,
            ClusterOptions(actors=actors, **options),
            resume=resume,
            timeouts=timeouts or Timeouts(silent=4.0),
            owner=owner,
            on_phase=on_phase or (Faults(faults, tmp_path / f"{name}-faults") if faults else None),
        )
        return monitor, folder

    return run


def status_of(folder):
    return json.loads((folder.path / "status.json").read_text())


@pytest.mark.parametrize(
    ("actors", "owner"),
    [(2, None), (4, None), (3, [2, 0, 0, 1] * 3), (2, [1] + [0] * 11)],
)
def test_any_number_of_actors_gives_the_bits_of_one_process(train, alone, helpers, actors, owner):
    _, folder = train(actors, owner=owner)

    assert helpers.units(folder.path) == alone[3]
    np.testing.assert_array_equal(
        MuSeGNN.load(folder.path, alone[0]).embeddings(layout=False).X, alone[2].embeddings(layout=False).X
    )
    rows = [row for row in folder.history() if row["kind"] == "losses"]
    expected = [row for row in alone[2].history if row["kind"] == "losses"]
    drop = lambda row: {k: v for k, v in row.items() if k != "seconds"}  # noqa: E731
    assert [drop(row) for row in rows] == [drop(row) for row in expected]
    assert {row["process"] for row in folder.history() if row["kind"] == "process"} == set(range(actors))


@pytest.fixture(scope="module")
def alone_with(helpers, alone, tmp_path_factory):
    """Return a function that trains some rounds in one process, which gives the vectors, the units and the records."""
    store, config, _, _ = alone
    known = {}

    def run(encoder, rounds):
        if (encoder, rounds) not in known:
            folder = tmp_path_factory.mktemp("alone") / "run"
            changed = few_rounds(config, encoder, rounds)
            model = MuSeGNN(store, changed).train(folder)
            known[encoder, rounds] = model.embeddings(layout=False).X, helpers.units(folder), records(model.history)
        return known[encoder, rounds]

    return run


def few_rounds(config, encoder, rounds):
    model = {"encoder": encoder}
    return config.model_copy(
        update={
            "model": config.model.model_copy(update=model),
            "training": config.training.model_copy(update={"rounds": rounds}),
        }
    )


def records(history):
    """Return what records say of vectors and losses, without times."""
    kept = [row for row in history if row["kind"] != "process"]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in kept]


@pytest.mark.parametrize(("encoder", "rounds"), [("none", 0), ("none", 3), ("transformer", 0)], ids=str)
@pytest.mark.parametrize("actors", [1, 2, 3, 4])
def test_closed_forms_and_a_few_rounds_have_the_bits_of_one_process(
    ray_cluster, alone, alone_with, helpers, tmp_path, actors, encoder, rounds
):
    from musegnn.cluster.train import train_on_cluster

    store, config, _, _ = alone
    vectors, units, rows = alone_with(encoder, rounds)
    folder = RunFolder.create(tmp_path / "run", few_rounds(config, encoder, rounds), store=store.path)
    train_on_cluster(folder, store, ClusterOptions(actors=actors))

    assert helpers.units(folder.path) == units
    assert units[0] == rounds
    np.testing.assert_array_equal(MuSeGNN.load(folder.path, store).embeddings(layout=False).X, vectors)
    assert records(folder.history()) == rows
    assert (status_of(folder)["state"], status_of(folder)["rounds"]) == ("done", rounds)


@pytest.mark.parametrize("phase", ["load", "reduce", "checkpoint"])
def test_a_failure_in_a_run_without_rounds_leaves_no_trace(ray_cluster, alone, alone_with, helpers, tmp_path, phase):
    from musegnn.cluster.options import Timeouts
    from musegnn.cluster.train import train_on_cluster

    store, config, _, _ = alone
    _, units, rows = alone_with("none", 0)
    folder = RunFolder.create(tmp_path / "run", few_rounds(config, "none", 0), store=store.path)
    faults = Faults([[Fault(rank=0, phase=phase, round=0, how="kill")]], tmp_path / "faults")
    train_on_cluster(folder, store, ClusterOptions(actors=2), timeouts=Timeouts(silent=30.0), on_phase=faults)
    train_on_cluster(folder, store, ClusterOptions(actors=2), resume=True)

    assert helpers.units(folder.path) == units
    assert records(folder.history()) == rows


def test_the_number_of_actors_may_change_at_every_stop(train, alone, helpers):
    for actors, rounds in ((4, 5), (2, 10), (3, 15), (1, 20)):
        _, folder = train(actors, rounds=rounds, resume=rounds > 5)

    assert helpers.units(folder.path) == alone[3]


def test_one_process_goes_on_where_actors_stopped(train, alone, helpers, tmp_path):
    store, config, _, expected = alone
    train(3, rounds=10)
    MuSeGNN(store, config).train(tmp_path / "run", resume=True)

    assert helpers.units(tmp_path / "run") == expected


@pytest.mark.parametrize(
    "faults",
    [
        [Fault(rank=1, phase="backward", round=8, how="kill")],
        [Fault(rank=0, phase="checkpoint", round=5, how="exit")],
        [Fault(rank=2, phase="exchange", round=7, how="stop")],
        [Fault(rank=0, phase="step", round=6, how="exception")],
    ],
    ids=lambda faults: "-".join([faults[0].phase, faults[0].how]),
)
def test_a_failure_leaves_no_trace(train, alone, helpers, faults):
    monitor, folder = train(3, spares=1, faults=[faults])

    assert helpers.units(folder.path) == alone[3]
    (failure,) = status_of(folder)["failures"]
    assert failure["rank"] == faults[0].rank
    assert failure["kind"] == ("failed" if faults[0].how == "exception" else "died")
    assert failure["rounds_lost"] <= 5
    assert len(monitor.recoveries) == 1


def test_failures_during_recovery_and_of_two_at_once_leave_no_trace(train, alone, helpers):
    faults = [
        [
            Fault(rank=0, phase="compare", round=7, how="kill"),
            Fault(rank=2, phase="reconstruct", round=7, how="exit"),
        ],
        [Fault(rank=0, phase="load", round=None, how="kill")],
    ]
    _, folder = train(3, faults=faults)

    assert helpers.units(folder.path) == alone[3]
    assert len(status_of(folder)["failures"]) == 2


@pytest.fixture
def replacement_is_ready(tmp_path):
    """Return the path of a file that appears when the first actor after the two of the beginning is ready."""
    path = tmp_path / "ready"

    class Watch(logging.Handler):
        def emit(self, record):
            if re.match(r"actor 2 .* computes on", record.getMessage()):
                path.touch()

    watch, watched = Watch(), logging.getLogger("musegnn.cluster.actor_pool")
    before = watched.level
    watched.setLevel(logging.INFO)
    watched.addHandler(watch)
    yield path
    watched.removeHandler(watch)
    watched.setLevel(before)


def test_an_actor_that_dies_is_replaced_at_a_later_checkpoint(train, alone, helpers, tmp_path, replacement_is_ready):
    faults = Faults([[Fault(rank=1, phase="encode", round=2, how="kill")]], tmp_path / "faults")

    def die_or_wait(task, now):
        faults(task, now)
        if task.size == 1 and (now.phase, now.round) == ("encode", 12):  # the last checkpoint but one is at 15
            until = time.monotonic() + 120
            while not replacement_is_ready.exists() and time.monotonic() < until:
                time.sleep(0.1)
            time.sleep(2)

    _, folder = train(2, rounds=20, on_phase=die_or_wait)

    assert helpers.units(folder.path) == alone[3]
    sizes = [len({row["process"] for row in group}) for _, group in processes_by_round(folder)]
    assert sizes[0] == 1 or sizes[0] == 2
    assert sizes[-1] == 2


def processes_by_round(folder):
    rows = sorted((r for r in folder.history() if r["kind"] == "process"), key=lambda r: r["round"])
    return [(k, list(g)) for k, g in itertools.groupby(rows, key=lambda r: r["round"])]


def test_a_dataset_that_kills_its_actors_stops_the_run_with_its_name(train, alone):
    faults = [[Fault(rank=0, phase="reconstruct", round=3, how="exception")]] * 3
    with pytest.raises(RunError, match=r"E443.*round 3.*d\d\d"):
        train(2, faults=faults, owner=[0] + [1] * 11)


def test_a_dataset_that_kills_its_actors_can_be_left_out(train, alone, helpers):
    store, config, _, _ = alone
    faults = [[Fault(rank=0, phase="reconstruct", round=3, how="exception")]] * 3
    _, folder = train(2, faults=faults, owner=[0] + [1] * 11, on_repeated_failure="skip")

    assert status_of(folder)["left_out"] == ["d00"]
    rows = [row for row in folder.history() if row["kind"] == "losses"]
    assert {row["dataset"] for row in rows} == {f"d{k:02d}" for k in range(1, 12)}
    resumed = MuSeGNN.from_run(folder.path, store, config)
    assert resumed.rounds == 20


def test_numbers_that_are_not_finite_stop_before_the_step_and_say_how_to_reproduce_it(helpers, ray_cluster, tmp_path):
    from musegnn.cluster.train import train_on_cluster

    store, config = helpers.make_run(tmp_path, n=3, lr_dataset=1e30, lr_shared=1e30, lr_decoder=1e30)
    folder = RunFolder.create(tmp_path / "run", config, store=store.path)
    with pytest.raises(RunError, match="E410"):
        train_on_cluster(folder, store, ClusterOptions(actors=2))

    (dump,) = (folder.path / "failures").glob("*.json")
    about = json.loads(dump.read_text())
    assert about["round"] >= 2
    assert about["datasets"]
    with pytest.raises(RunError, match=rf"E410.*round {about['round']}\b"):
        MuSeGNN(store, config).train(folder.path, resume=True)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"actors": 0}, "actors"),
        ({"actors": 2, "min_actors": 3}, "min_actors"),
        ({"actors": 2, "spares": -1}, "spares"),
    ],
)
def test_numbers_of_actors_that_make_no_sense_are_refused(train, options, match):
    with pytest.raises(ConfigError, match=match):
        train(**options)


def test_an_earlier_training_is_not_overwritten(train):
    train(2, rounds=5)
    with pytest.raises(RunError, match="E404"):
        train(2, rounds=5)


@pytest.mark.chaos
@pytest.mark.parametrize("rank", [0, 1, 2])
@pytest.mark.parametrize("phase", PHASES)
def test_every_failure_in_every_phase_leaves_no_trace(train, alone, helpers, phase, rank):
    """Exit, SIGKILL, SIGSTOP and an exception, one after the other."""
    from musegnn.cluster.options import Timeouts

    # Three failures at one place in a row stop a run, and there is one place in which to load.
    parts = [HOWS[:2], HOWS[2:]] if phase == "load" else [HOWS]
    for k, hows in enumerate(parts):
        rounds = {"load": [None] * 2, "checkpoint": [5, 10, 15, 20]}.get(phase, [4, 8, 13, 17])
        faults = [[Fault(rank=rank, phase=phase, round=r, how=how)] for r, how in zip(rounds, hows, strict=True)]
        spares = rank + 1  # so that there is somebody of this rank after three deaths
        monitor, folder = train(3, name=f"run{k}", spares=spares, faults=faults, timeouts=Timeouts())

        assert helpers.units(folder.path) == alone[3]
        failures = status_of(folder)["failures"]
        lost = [failure["rounds_lost"] for failure in failures]
        print(f"CHAOS {phase} rank {rank} {hows}: {[round(s, 1) for s in monitor.recoveries]} s, rounds lost {lost}")
        assert len(failures) == len(hows)
        assert max(lost) <= 5
        assert max(monitor.recoveries) <= 30
