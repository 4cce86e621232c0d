"""Monitor of a run on a cluster: writes ``status.json`` for `musegnn status`, and feeds Prometheus.

``status.json`` is replaced as a whole once a second. It is a report only: nothing reads it to decide anything.
"""

from __future__ import annotations

import json
import logging
import statistics
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from musegnn.data_store.atomic_files import write_file
from musegnn.training.checkpoint import manifests
from musegnn.training.phases import FILES, WAITS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from musegnn.cluster.actor_handle import ActorHandle
    from musegnn.cluster.actor_pool import ActorPool
    from musegnn.cluster.messages import Failure, TaskResult
    from musegnn.cluster.placement import Placement
    from musegnn.cluster.prometheus import Metrics
    from musegnn.progress import Progress

logger = logging.getLogger(__name__)

FILE = "status.json"
WRITE_SECONDS = 1.0
STALL_SECONDS = 30.0
QUIET_SECONDS = 3.0
"""Silence of an actor from which on the status names it."""
RECENT_ROUNDS = 50


class RunMonitor:
    """Monitor, which follows a run and reports its state.

    Parameters
    ----------
    names
        Names of the datasets, in the order of the atlas.
    rounds
        Rounds to train.
    metrics
        Prometheus metrics to set; ``None``: none.
    """

    def __init__(
        self,
        folder: Path,
        names: Sequence[str],
        rounds: int,
        *,
        progress: Progress | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self._path, self._names, self._total = folder / FILE, list(names), rounds
        self._progress, self._metrics = progress, metrics
        self._state = "starting"
        self._group_epoch = 0
        self._owned: list[list[str]] = []
        self._failures: list[dict[str, Any]] = []  # JSON
        self._left_out: list[str] = []
        self._aside: list[str] = []
        self._note = ""
        self._round = 0
        self._round_at: float | None = None
        self._furthest = 0
        self._seconds: list[float] = []
        self._broke_at: float | None = None
        self._recovering_since: float | None = None
        self._written = 0.0
        self._reported: set[tuple[str, float]] = set()
        self.recoveries: list[float] = []
        """Seconds from each failure to the end of the first round after it."""

    def waiting(self, pool: ActorPool, n: int) -> None:
        """Record that actors are awaited."""
        self._aside = _aside(pool)
        self._write(pool.actors, note=f"{len(pool.ready)} of {n} actors are ready")

    def began(self, group_epoch: int, group: Sequence[ActorHandle], placement: Placement) -> None:
        """Record that a process group has begun."""
        self._state, self._group_epoch = "training", group_epoch
        self._owned = [
            [name for name, owner in zip(self._names, placement.owner, strict=True) if owner == rank]
            for rank in range(len(group))
        ]
        self._round, self._round_at = self._checkpoint_round(), None
        self._recovering_since, self._broke_at = self._broke_at or self._recovering_since, None
        self._write(group, now=True)

    def update(self, pool: ActorPool, group: Sequence[ActorHandle]) -> None:
        """Record the newest heartbeats."""
        found = [actor.heartbeat_of(self._group_epoch) for actor in group]
        heartbeats = [heartbeat for heartbeat in found if heartbeat is not None]
        self._furthest = max([self._furthest, *(heartbeat.rounds for heartbeat in heartbeats)])
        done = min(0 if heartbeat is None else heartbeat.rounds for heartbeat in found)
        if done > self._round:
            self._end_round(done)
            if self._progress is not None:
                loss = statistics.fmean(heartbeat.loss for heartbeat in heartbeats)
                self._progress("train", done, self._total, f"loss {loss:.4f}, {len(group)} actors")
        if self._metrics is not None:
            self._metrics.update(self._describe(group))
        self._aside = _aside(pool)
        self._report_stalls(pool, group)
        self._write(group)

    def _end_round(self, done: int) -> None:
        at = time.monotonic()
        if self._recovering_since is not None:
            self.recoveries.append(at - self._recovering_since)
            self._recovering_since = None
        elif self._round_at is not None:
            self._seconds += [(at - self._round_at) / (done - self._round)] * (done - self._round)
            del self._seconds[:-RECENT_ROUNDS]
        self._round, self._round_at = done, at

    def broke(self) -> None:
        """Record that a failure has been noticed."""
        self._broke_at = self._broke_at or time.monotonic()

    def failed(self, failure: Failure) -> None:
        """Record that a process group has broken, and how many rounds it costs."""
        self._state = "recovering"
        self.broke()
        lost = max(0, self._furthest - self._checkpoint_round())
        entry = {**asdict(failure), "cause": failure.cause, "time": time.time(), "rounds_lost": lost}
        del entry["message"], entry["trace"]
        self._furthest = 0
        self._failures.append(entry)
        if self._metrics is not None:
            self._metrics.failed(failure.kind)

    def refused(self, result: TaskResult) -> None:
        """Write what is needed to reproduce an error in one process."""
        if not result.datasets or result.error is None:
            return
        folder = self._path.parent
        about = {
            "code": result.error.code,
            "message": result.error.message,
            "round": result.now.round,
            "datasets": list(result.datasets),
            "checkpoint_round": self._checkpoint_round(),
            "reproduce": f"musegnn train STORE --atlas ATLAS --out {folder.name} --resume",
        }
        path = folder / "failures" / f"round-{result.now.round:06d}.json"
        write_file(path, json.dumps(about, indent=1) + "\n")
        logger.error("what is needed to reproduce it is in %s", path)

    def left_out(self, dataset: str) -> None:
        """Record that a dataset is left out from now on."""
        self._left_out.append(dataset)

    def note(self, text: str) -> None:
        """Record what the controller waits for while a group works; empty: nothing."""
        self._note = text

    def finished(self) -> None:
        """Record that all rounds are trained."""
        self._state, self._round = "done", self._total
        self._write([], now=True)

    def stopped(self, error: BaseException) -> None:
        """Record that the run ends without having finished."""
        self._state = "stopped"
        self._write([], now=True, note=str(error) or type(error).__name__)

    def median_round_seconds(self) -> float:
        """Return the median time of the last rounds; 0 before the first."""
        return statistics.median(self._seconds) if self._seconds else 0.0

    def _checkpoint_round(self) -> int:
        return max((manifest.round for manifest in manifests(self._path.parent / "checkpoints")), default=0)

    def _report_stalls(self, pool: ActorPool, group: Sequence[ActorHandle]) -> None:
        """Log once which actor holds the others up, where it is, and its stacks."""
        for actor, line in self._stalled(group):
            assert actor.heartbeat is not None
            key = (actor.name, actor.heartbeat.now.since)
            if key not in self._reported:
                self._reported.add(key)
                logger.warning("%s; its stacks:\n%s", line, pool.stacks(actor))

    def _stalled(self, group: Sequence[ActorHandle]) -> list[tuple[ActorHandle, str]]:
        """Return actors that are silent or long in a phase of computing, or all where nothing moves."""
        after = max(STALL_SECONDS, 10 * self.median_round_seconds())
        known = [actor for actor in group if actor.heartbeat_of(self._group_epoch) is not None]
        late = [actor for actor in known if _is_quiet(actor, after) or (_computes(actor) and actor.spent > after)]
        if not late and len(known) == len(group) and min((actor.idle for actor in known), default=0.0) > after:
            late = known
        return [(actor, _where(actor, group.index(actor), after)) for actor in late]

    def _describe(self, group: Sequence[ActorHandle]) -> dict[str, Any]:  # JSON
        seconds = self.median_round_seconds()
        actors = [self._describe_actor(rank, actor) for rank, actor in enumerate(group)]
        busy = [
            sum(s for phase, s in a["seconds"].items() if phase not in {*WAITS, "load"})
            for a in actors
            if "seconds" in a
        ]
        return {
            "format": "musegnn-status",
            "state": self._state,
            "updated": time.time(),
            "group_epoch": self._group_epoch,
            "rounds": self._round,
            "total": self._total,
            "seconds_per_round": seconds,
            "datasets_per_second": len(self._names) / seconds if seconds else 0.0,
            "imbalance": max(busy) / statistics.fmean(busy) if busy and sum(busy) else 1.0,
            "actors": actors,
            "failures": self._failures[-20:],
            "recovery_seconds": self.recoveries[-20:],
            "left_out": self._left_out,
            "stalled": [self._note] * bool(self._note) + [line for _, line in self._stalled(group)],
            "aside": self._aside,
            "hosts": sorted({about["host"] for about in actors if about["host"]}),
        }

    def _describe_actor(self, rank: int, actor: ActorHandle) -> dict[str, Any]:  # JSON
        about: dict[str, Any] = {
            "actor": actor.name,
            "rank": rank,
            "host": actor.info.host if actor.info else None,
            "pid": actor.info.pid if actor.info else None,
            "device": actor.info.device if actor.info else None,
            "datasets": self._owned[rank] if rank < len(self._owned) else [],
            "silent_seconds": round(actor.silent, 1),
        }
        heartbeat = actor.heartbeat_of(self._group_epoch)
        if heartbeat is not None:
            about |= {
                "round": heartbeat.now.round,
                "phase": heartbeat.now.phase,
                "dataset": heartbeat.now.dataset,
                "since_seconds": round(actor.spent, 1),
                "rounds": heartbeat.rounds,
                "seconds": heartbeat.seconds,
                "sent_bytes": heartbeat.sent_bytes,
                "peak_bytes": heartbeat.peak_bytes,
                "device_bytes": heartbeat.device_bytes,
            }
        return about

    def _write(self, group: Sequence[ActorHandle], *, now: bool = False, note: str = "") -> None:
        if not now and time.monotonic() - self._written < WRITE_SECONDS:
            return
        self._written = time.monotonic()
        status = self._describe(group) | ({"note": note} if note else {})
        write_file(self._path, json.dumps(status, indent=1) + "\n")


def _is_quiet(actor: ActorHandle, after: float) -> bool:
    return actor.silent > min(after, QUIET_SECONDS)


def _computes(actor: ActorHandle) -> bool:
    """Return whether it is in a phase in which it waits neither for another actor nor for files."""
    assert actor.heartbeat is not None
    return actor.heartbeat.now.phase not in {*WAITS, *FILES}


def _where(actor: ActorHandle, rank: int, after: float) -> str:
    """Describe where an actor is, since when, and what is wrong with it."""
    assert actor.heartbeat is not None
    now = actor.heartbeat.now
    what = f" of dataset {now.dataset}" if now.dataset else ""
    line = f"{actor}, rank {rank}: in phase {now.phase}{what} of round {now.round} for {actor.spent:.0f} s"
    if _is_quiet(actor, after):
        return f"{line}, silent for {actor.silent:.0f} s"
    return f"{line}, has computed and received nothing for {actor.idle:.0f} s" if actor.idle > after else line


def _aside(pool: ActorPool) -> list[str]:
    """Return which actors get no work for now, and why."""
    return [f"{actor}: {actor.aside}" for actor in pool.aside]
