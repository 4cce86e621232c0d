"""What can go wrong with hosts and the network between them, and what came of it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from musegnn.cluster.actor import FORGOTTEN_SECONDS
from tests.hosts.builds import play_build
from tests.hosts.plays import HEAD, START_ROUND, WORKERS, Cluster, Run, new_run, units

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PATIENCE = 300.0
NAMES = re.compile("do not reach|received nothing")
"""Words of lines of the status that name more than a moment of silence."""
GONE_SECONDS = 30.0
"""Seconds after the fault's end in which nothing may be left behind."""

ALONE_SECONDS = FORGOTTEN_SECONDS + 10.0
"""The same on a host that stays cut off, where actors end themselves."""


@dataclass
class Outcome:
    """What came of a fault.

    ``exit`` is None for a command that had to be killed. ``seconds`` are those from the fault to the end of the next
    round after a recovery, ``named`` those until the status named the cause, which is ``cause``. ``message`` is the
    last line of the command, ``round_seconds`` the median of the last rounds. ``killed`` says that an actor on a host
    without a fault was replaced.
    """

    exit: int | None
    same_bytes: bool
    seconds: float | None = None
    named: float | None = None
    cause: str = ""
    killed: bool = False
    left: dict[int, list[int]] = field(default_factory=dict)
    message: str = ""
    over: float = 0.0
    round_seconds: float = 0.0
    failures: int = 0
    hosts: int = 0
    """Most hosts with actors at a time."""


class Fault(NamedTuple):
    """A fault by name: what it is, in words, and a function that plays it on a run and gives the hosts concerned."""

    title: str
    play: Callable[[Run], set[int]]
    prepare: Callable[[Cluster, Path], None] | None = None
    options: dict = {}  # noqa: RUF012  of Run


def watch(run: Run, seconds: float) -> None:
    """Look on, whether the command goes on or not."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        run.look()
        time.sleep(0.1)


def nothing(run: Run) -> set[int]:
    return set()


def bad_cables(**how: float) -> Callable[[Run], set[int]]:
    def play(run: Run) -> set[int]:
        for host in WORKERS:
            run.lab.bad_cable(host, **how)
        run.reach(START_ROUND + 30, 180)
        return set()

    return play


def cut(seconds: float | None, rank: int = 1) -> Callable[[Run], set[int]]:
    def play(run: Run) -> set[int]:
        host = run.host_of(rank)
        run.lab.cut(host)
        if seconds is not None:
            watch(run, seconds)
            run.lab.mend(host)
        return {host}

    return play


def one_way(kind: str, seconds: float = 20.0) -> Callable[[Run], set[int]]:
    """Let a host receive nothing (deaf) or send nothing (mute)."""

    def play(run: Run) -> set[int]:
        host = run.host_of(1)
        others = [k for k in run.lab.hosts if k != host]
        ways = [(host, k) if kind == "mute" else (k, host) for k in others]
        for way in ways:
            run.lab.silence(*way)
        watch(run, seconds)
        for way in ways:
            run.lab.hear(*way)
        return {host}

    return play


def kill(run: Run) -> set[int]:
    host = run.host_of(1)
    run.lab.kill_all(host)
    return {host}


def power_off(run: Run) -> set[int]:
    host = run.host_of(1)
    run.lab.power_off(host)
    return {host}


def hang(kind: str, phase: str) -> Callable[[Run], set[int]]:
    """Let an actor hang in a phase: in a system call, or with Python's lock."""

    def play(run: Run) -> set[int]:
        host = run.host_of(1)
        (run.folder / "hang").write_text(f"{kind} {phase}")
        return {host}

    return play


def freeze(run: Run) -> set[int]:
    host = run.host_of(1)
    os.kill(next(iter(run.lab.processes(host, "ray::TrainerActor").values())), signal.SIGSTOP)
    return {host}


def kill_actors(run: Run) -> set[int]:
    for host in WORKERS:
        for pid in run.lab.processes(host, "ray::TrainerActor").values():
            os.kill(pid, signal.SIGKILL)
    return set(WORKERS)


def cut_majority(run: Run) -> set[int]:
    run.lab.cut(WORKERS[0])
    watch(run, 30)
    run.lab.mend(WORKERS[0])
    return {WORKERS[0]}


def more_cpus(sizes: dict[int, int]) -> Callable[[Cluster, Path], None]:
    return lambda cluster, folder: cluster.resize(sizes)


def split(seconds: float | None) -> Callable[[Run], set[int]]:
    def play(run: Run) -> set[int]:
        pair = run.host_of(0), run.host_of(1)
        run.lab.isolate(*pair)
        if seconds is not None:
            watch(run, seconds)
            run.lab.isolate(*pair, on=False)
        return set(pair)

    return play


def cut_head(seconds: float) -> Callable[[Run], set[int]]:
    def play(run: Run) -> set[int]:
        run.lab.cut(HEAD)
        watch(run, seconds)
        run.lab.mend(HEAD)
        return {HEAD}

    return play


def lose_head(run: Run) -> set[int]:
    """The head dies, and the command with it where it is there; the same command goes on with a new cluster."""
    run.lab.kill_all(HEAD)
    if run.host == HEAD:
        run.process.wait()
    else:
        run.end(120)
        run.message = run.log.read_text().strip().splitlines()[-1]
    watch(run, 5)
    run.cluster.repair()
    run.begin()
    return set(run.lab.hosts)


def split_before(cluster: Cluster, folder: Path) -> None:
    cluster.lab.isolate(WORKERS[0], WORKERS[1])


def hide_run(cluster: Cluster, folder: Path) -> None:
    cluster.lab.run(WORKERS[1], ["mount", "-t", "tmpfs", "none", str(folder)])


def hide_store(cluster: Cluster, folder: Path) -> None:
    cluster.lab.run(WORKERS[1], ["mount", "-t", "tmpfs", "none", str(folder.parent / "data" / "store.zarr")])


def old_listing(cluster: Cluster, folder: Path) -> None:
    """Let a host see `checkpoints/` without the newest manifest."""
    checkpoints, old = folder / "checkpoints", folder.parent / "old"
    shutil.rmtree(old, ignore_errors=True)
    (old / "shards").mkdir(parents=True)
    shutil.copy(sorted(checkpoints.glob("round-*.json"))[0], old)
    script = f"mount --bind {checkpoints}/shards {old}/shards && mount --rbind {old} {checkpoints}"
    cluster.lab.run(WORKERS[1], ["sh", "-c", script])


def see_again(run: Run) -> set[int]:
    """Show the folder as it is, some seconds after all are there."""
    run.wait(lambda r: len(r.status.get("actors", [])) == r.actors, 120)
    watch(run, 3)
    run.lab.run(WORKERS[1], ["umount", "-l", str(run.folder / "checkpoints")])
    run.reach(25)
    return set()


BEFORE = {"from_start": True}
FAULTS = {
    "none": Fault("undisturbed", nothing),
    "spread": Fault("hosts with 16 CPUs each", nothing, more_cpus(dict.fromkeys(WORKERS, 16))),
    "cut5": Fault("cable of a host out for 5 s", cut(5)),
    "loss": Fault("all actors' hosts lose 2 % of the packets", bad_cables(loss=2.0)),
    "slow": Fault("50 ms and 50 Mbit/s between all hosts", bad_cables(delay=25.0, mbit=50.0)),
    "kill": Fault("all processes of a host killed", kill),
    "kill_all": Fault("all actors killed at once, their hosts stay", kill_actors),
    "cut30": Fault("cable out for 30 s", cut(30)),
    "cut": Fault("cable out for ever", cut(None)),
    "cut_writer": Fault("cable of the host that writes manifests out for 30 s", cut(30, rank=0)),
    "deaf": Fault("a host receives nothing for 20 s", one_way("deaf")),
    "mute": Fault("a host sends nothing for 20 s", one_way("mute")),
    "majority": Fault(
        "cable of a host with 3 of 5 actors out for 30 s", cut_majority, more_cpus({WORKERS[0]: 3}), {"actors": 5}
    ),
    "freeze": Fault("an actor is frozen, its host answers", freeze),
    "gil": Fault("an actor hangs and sends no heartbeats", hang("gil", "encode")),
    "hang": Fault("an actor hangs while it computes, and sends heartbeats", hang("call", "encode")),
    "hang_wait": Fault("an actor hangs while all wait, and sends heartbeats", hang("call", "reduce")),
    "power": Fault("a host without power", power_off),
    "split60": Fault("two hosts do not reach each other for 60 s", split(60)),
    "split": Fault("two hosts do not reach each other, for ever", split(None)),
    "firewall": Fault("two hosts never reached each other", nothing, split_before, BEFORE),
    "head20": Fault("head and command cut off for 20 s", cut_head(20)),
    "head": Fault("head and command die; the same command on a new cluster", lose_head),
    "head_only": Fault("head dies, command elsewhere; the same command on a new cluster", lose_head, None, {"host": 2}),
    "hidden_run": Fault("a host does not see the run folder", nothing, hide_run, BEFORE),
    "hidden_store": Fault("a host does not see the store", nothing, hide_store, BEFORE),
    "old_listing": Fault("a host sees an old listing of checkpoints/ for some seconds", see_again, old_listing, BEFORE),
    "old_for_ever": Fault("a host sees an old listing of checkpoints/ for ever", nothing, old_listing, BEFORE),
    "build_ray": Fault("a build on Ray, undisturbed", nothing),
    "build_ray_cut": Fault("a build on Ray, cable of a host out for 30 s", nothing),
    "build_dask": Fault("a build on dask (`tcp://`), undisturbed", nothing),
}
SILENT = ("cut30", "cut", "cut_writer", "majority", "deaf", "mute", "power")
LIMITS = {"kill": 4.0} | dict.fromkeys(SILENT, 12.0)
"""Seconds from a fault to the end of the next round."""
NAMED = {"split60": 15.0, "split": 15.0} | dict.fromkeys(("freeze", "gil", "hang", "hang_wait"), 60.0)
"""Seconds until the status names the cause."""
BUILDS = {"build_ray": ("ray", None), "build_ray_cut": ("ray", 30.0), "build_dask": ("dask", None)}
REFUSED = {"hidden_run": "E448", "hidden_store": "E448", "old_for_ever": "E448"}


def play(name: str, cluster: Cluster, folder: Path, store, config) -> Outcome:
    """Play a fault on a new run, and return what came of it when the command has ended."""
    fault, began = FAULTS[name], time.monotonic()
    if name in BUILDS:
        exit_, same, seconds, message = play_build(cluster, folder, *BUILDS[name])
        return Outcome(exit_, same, seconds, message=message, over=time.monotonic() - began)
    shutil.rmtree(folder, ignore_errors=True)
    options = dict(fault.options)
    from_start = options.pop("from_start", False)
    run = new_run(
        cluster, folder, store, config, prepare=fault.prepare, trained=20 if name.startswith("old") else 0, **options
    )
    if not from_start:
        if not run.reach(START_ROUND):
            msg = f"round {START_ROUND} was not reached: {run.log.read_text()[-2000:]}"
            raise RuntimeError(msg)
        run.fault()
    hosts = fault.play(run)
    at = time.monotonic()
    exit_ = run.end(PATIENCE)
    last = dict(run.status)
    limit = ALONE_SECONDS if run.lab.cut_off else GONE_SECONDS
    while run.left_behind() and time.monotonic() - at < limit:
        time.sleep(0.5)
    causes = [(s, text) for s, text in run.causes if not text.startswith("actor") or NAMES.search(text)]
    failures = last.get("failures", [])
    return Outcome(
        exit=exit_,
        same_bytes=exit_ == 0 and units(folder) == units(folder.parent / "data" / "alone"),
        seconds=run.seconds,
        named=causes[0][0] if causes else None,
        cause=failures[0]["actor"] + ": " + failures[0]["cause"] if failures else "; ".join(last.get("aside", [])),
        killed=not run.same_actors(set(WORKERS) - hosts),
        left=run.left_behind(),
        message=run.message or (run.log.read_text().strip().splitlines() or [""])[-1],
        over=time.monotonic() - began,
        round_seconds=last.get("seconds_per_round", 0.0),
        failures=len(failures),
        hosts=run.hosts,
    )
