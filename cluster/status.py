"""What a run on a cluster is doing: written to the run folder for `musegnn status`, and told to Prometheus.

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
from musegnn.errors import RunError
from musegnn.progress import shorten_warnings
from musegnn.text import some_of
from musegnn.training.checkpoint import manifests
from musegnn.training.diagnostics import problems
from musegnn.training.phases import WAITS
from musegnn.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from musegnn.cluster.actor_pool import ActorHandle, ActorPool
    from musegnn.cluster.controller import Failure
    from musegnn.cluster.messages import TaskResult
    from musegnn.cluster.plan import Plan
    from musegnn.cluster.prometheus import Metrics
    from musegnn.progress import Progress
    from musegnn.run_folder import RunFolder

logger = logging.getLogger(__name__)

FILE = "status.json"
WRITE_SECONDS = 1.0
OLD_SECONDS = 15.0
STALL_SECONDS = 30.0
RECENT_ROUNDS = 50


class RunMonitor:
    """Follows a run and says how it goes.

    Parameters
    ----------
    folder
        The run folder.
    names
        Names of the datasets, in the order of the atlas.
    rounds
        Rounds to train.
    progress
        Called after each round.
    metrics
        Told the same for Prometheus; ``None``: nobody is.
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
        self._generation = 0
        self._owned: list[list[str]] = []
        self._failures: list[dict[str, Any]] = []  # JSON
        self._quarantined: list[str] = []
        self._round = 0
        self._round_at: float | None = None
        self._furthest = 0
        self._seconds: list[float] = []
        self._broke_at: float | None = None
        self._recovering_since: float | None = None
        self._recoveries: list[float] = []
        self._written = 0.0
        self._reported: set[tuple[str, float]] = set()

    def waiting(self, pool: ActorPool, n: int) -> None:
        """Note that actors are awaited."""
        self._write(pool.members, note=f"{len(pool.ready)} of {n} actors are ready")

    def began(self, generation: int, members: Sequence[ActorHandle], plan: Plan) -> None:
        """Note that a generation has begun."""
        self._state, self._generation = "training", generation
        self._owned = [
            [name for name, owner in zip(self._names, plan.owner, strict=True) if owner == rank]
            for rank in range(len(members))
        ]
        self._round, self._round_at = self._checkpoint_round(), None
        self._recovering_since, self._broke_at = self._broke_at or self._recovering_since, None
        self._write(members, now=True)

    def last_heartbeat(self, pool: ActorPool, members: Sequence[ActorHandle]) -> None:
        """Note the pulses that have come."""
        pulses = [m.pulse for m in members if m.pulse is not None and m.pulse.generation == self._generation]
        self._furthest = max([self._furthest, *(pulse.rounds for pulse in pulses)])
        done = min((pulse.rounds for pulse in pulses), default=0) if len(pulses) == len(members) else 0
        if pulses and done > self._round:
            at = time.monotonic()
            if self._recovering_since is not None:
                self._recoveries.append(at - self._recovering_since)
                self._recovering_since = None
            elif self._round_at is not None:
                self._seconds += [(at - self._round_at) / (done - self._round)] * (done - self._round)
                del self._seconds[:-RECENT_ROUNDS]
            self._round, self._round_at = done, at
            if self._progress is not None:
                loss = statistics.fmean(pulse.loss for pulse in pulses)
                self._progress("train", done, self._total, f"loss {loss:.4f}, {len(members)} actors")
        if self._metrics is not None:
            self._metrics.tell(self._describe(members))
        self._report_stalls(pool, members)
        self._write(members)

    def broke(self) -> None:
        """Note that a failure has been noticed."""
        self._broke_at = self._broke_at or time.monotonic()

    def failed(self, failure: Failure) -> None:
        """Note that a generation has broken, and how many rounds it costs."""
        self._state = "recovering"
        self.broke()
        lost = max(0, self._furthest - self._checkpoint_round())
        entry = {**asdict(failure), "time": time.time(), "rounds_lost": lost}
        del entry["trace"]
        self._furthest = 0
        self._failures.append(entry)
        if self._metrics is not None:
            self._metrics.failed(failure.cause.split()[0])

    def refused(self, outcome: TaskResult) -> None:
        """Keep what is needed to see an error again in one process."""
        if not outcome.datasets:
            return
        folder = self._path.parent
        about = {
            "code": outcome.code,
            "message": outcome.message,
            "round": outcome.now.round,
            "datasets": list(outcome.datasets),
            "checkpoint_round": self._checkpoint_round(),
            "reproduce": f"musegnn train STORE --atlas ATLAS --out {folder.name} --resume",
        }
        path = folder / "failures" / f"round-{outcome.now.round:06d}.json"
        write_file(path, json.dumps(about, indent=1) + "\n")
        logger.error("what is needed to reproduce it is in %s", path)

    def quarantined(self, dataset: str) -> None:
        """Note that a dataset is left out from now on."""
        self._quarantined.append(dataset)

    def finished(self) -> None:
        """Note that all rounds are trained."""
        self._state, self._round = "done", self._total
        self._write([], now=True)

    def stopped(self, error: BaseException) -> None:
        """Note that the run ends without having finished."""
        self._state = "stopped"
        self._write([], now=True, note=str(error) or type(error).__name__)

    def median_round_seconds(self) -> float:
        """Return the median time of the last rounds; 0 before one."""
        return statistics.median(self._seconds) if self._seconds else 0.0

    @property
    def recoveries(self) -> list[float]:
        """Seconds from each failure to the end of the first round after it."""
        return list(self._recoveries)

    def _checkpoint_round(self) -> int:
        return max((manifest.round for manifest in manifests(self._path.parent / "checkpoints")), default=0)

    def _report_stalls(self, pool: ActorPool, members: Sequence[ActorHandle]) -> None:
        """Log once who holds the others up, where it is, and its stacks."""
        after = max(STALL_SECONDS, 10 * self.median_round_seconds())
        for member, line in _holding_up(members, self._generation, after):
            assert member.pulse is not None
            key = (member.name, member.pulse.now.since)
            if key not in self._reported:
                self._reported.add(key)
                logger.warning("%s; its stacks:\n%s", line, pool.stacks(member))

    def _describe(self, members: Sequence[ActorHandle]) -> dict[str, Any]:  # JSON
        seconds = self.median_round_seconds()
        actors = []
        for rank, member in enumerate(members):
            pulse = member.pulse if member.pulse is not None and member.pulse.generation == self._generation else None
            about: dict[str, Any] = {
                "actor": member.name,
                "rank": rank,
                "host": member.facts.host if member.facts else None,
                "pid": member.facts.pid if member.facts else None,
                "device": member.facts.device if member.facts else None,
                "datasets": self._owned[rank] if rank < len(self._owned) else [],
                "silent_seconds": round(member.silent, 1),
            }
            if pulse is not None:
                about |= {
                    "round": pulse.now.round,
                    "phase": pulse.now.phase,
                    "dataset": pulse.now.dataset,
                    "since_seconds": round(member.spent, 1),
                    "rounds": pulse.rounds,
                    "seconds": pulse.seconds,
                    "sent_bytes": pulse.sent_bytes,
                    "peak_bytes": pulse.peak_bytes,
                }
            actors.append(about)
        busy = [
            sum(s for phase, s in a["seconds"].items() if phase not in {*WAITS, "load"})
            for a in actors
            if "seconds" in a
        ]
        after = max(STALL_SECONDS, 10 * seconds)
        return {
            "format": "musegnn-status",
            "state": self._state,
            "updated": time.time(),
            "generation": self._generation,
            "rounds": self._round,
            "total": self._total,
            "seconds_per_round": seconds,
            "datasets_per_second": len(self._names) / seconds if seconds else 0.0,
            "imbalance": max(busy) / statistics.fmean(busy) if busy and sum(busy) else 1.0,
            "actors": actors,
            "failures": self._failures[-20:],
            "recovery_seconds": self._recoveries[-20:],
            "quarantined": self._quarantined,
            "stalled": [line for _, line in _holding_up(members, self._generation, after)],
        }

    def _write(self, members: Sequence[ActorHandle], *, now: bool = False, note: str = "") -> None:
        if not now and time.monotonic() - self._written < WRITE_SECONDS:
            return
        self._written = time.monotonic()
        status = self._describe(members) | ({"note": note} if note else {})
        write_file(self._path, json.dumps(status, indent=1) + "\n")


def _holding_up(members: Sequence[ActorHandle], generation: int, after: float) -> list[tuple[ActorHandle, str]]:
    """Return who has been in one phase for long while it is not waiting for others, and who is silent."""
    found = []
    for rank, member in enumerate(members):
        pulse = member.pulse
        if pulse is None or pulse.generation != generation:
            continue
        now = pulse.now
        if (now.phase not in WAITS and member.spent > after) or member.silent > after:
            what = f" of dataset {now.dataset}" if now.dataset else ""
            line = f"{member}, rank {rank}: in phase {now.phase}{what} of round {now.round} for {member.spent:.0f} s"
            found.append((member, line + (f", silent for {member.silent:.0f} s" if member.silent > after else "")))
    return found


def read_status(folder: RunFolder) -> dict[str, Any]:  # JSON
    """Read what a run last said of itself.

    Parameters
    ----------
    folder
        The run folder.

    Returns
    -------
    dict
        The content of ``status.json`` with ``age_seconds``, and ``problems`` as
        :mod:`musegnn.training.diagnostics` reads them from the metrics. For a run in one process, which writes
        none, the same as far as its metrics tell it: the state is ``done`` or ``training``, as of the newest record.

    Raises
    ------
    RunError
        E409 when the file is damaged.
    """
    path = folder.path / FILE
    if not path.is_file():
        return _from_metrics(folder) | {"problems": _problems(folder)}
    try:
        status: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        status["age_seconds"] = time.time() - float(status["updated"])
    except (ValueError, KeyError, TypeError) as error:
        msg, fix = f"{FILE} cannot be read ({error})", "delete it; a running training writes it again"
        raise RunError(msg, code="E409", where=str(folder.path), fix=fix) from None
    return status | {"problems": _problems(folder)}


def _problems(folder: RunFolder) -> list[str]:
    return [str(problem) for problem in problems(folder.history(), dim=folder.atlas().model.dim)]


def _from_metrics(folder: RunFolder) -> dict[str, Any]:  # JSON
    history = folder.history()
    losses = [row for row in history if row["kind"] == "losses"]
    total, done = folder.atlas().training.rounds, max((row["round"] for row in losses), default=0)
    recent = {row["round"]: row["seconds"] for row in losses if row["round"] > done - RECENT_ROUNDS}
    seconds = statistics.median(recent.values()) if recent else 0.0
    n_datasets = len({row["dataset"] for row in losses})
    updated = folder.metrics.stat().st_mtime if folder.metrics.is_file() else folder.lock.stat().st_mtime
    return {
        "format": "musegnn-status",
        "state": "done" if history and done >= total else "training",
        "updated": updated,
        "age_seconds": time.time() - updated,
        "generation": 0,
        "rounds": done,
        "total": total,
        "seconds_per_round": seconds,
        "datasets_per_second": n_datasets / seconds if seconds else 0.0,
        "imbalance": 1.0,
        "actors": [],
        "failures": [],
        "recovery_seconds": [],
        "quarantined": [],
        "stalled": [],
    }


def show_status(status: dict[str, Any]) -> str:  # JSON
    """Lay a status out for a terminal."""
    old = status["state"] in {"starting", "training", "recovering"} and status["age_seconds"] > OLD_SECONDS
    state = f"{status['state']}, but not last_heartbeat for {status['age_seconds']:.0f} s" if old else status["state"]
    lines = [
        f"{state}: round {status['rounds']} of {status['total']}, generation {status['generation']}"
        + (f", {status['note']}" if status.get("note") else "")
    ]
    if status["seconds_per_round"]:
        lines.append(
            f"{status['seconds_per_round']:.2f} s per round, {status['datasets_per_second']:.1f} datasets per second, "
            f"imbalance {status['imbalance']:.2f}"
        )
    for actor in status["actors"]:
        doing = "no word yet"
        if "phase" in actor:
            what = f" {actor['dataset']}" if actor["dataset"] else ""
            doing = f"round {actor['round']}, {actor['phase']}{what} for {actor['since_seconds']:.1f} s"
            doing += f"; {format_bytes(actor['sent_bytes'])} sent, {format_bytes(actor['peak_bytes'])} at most"
        place = f"{actor['host']} pid {actor['pid']}"
        lines.append(f"  rank {actor['rank']} {place} ({len(actor['datasets'])} datasets): {doing}")
    lines += shorten_warnings([f"stalled: {line}" for line in status["stalled"]])
    if status["quarantined"]:
        lines.append(f"left out: {some_of(status['quarantined'])}")
    lines += shorten_warnings(status.get("problems", []))
    for failure in status["failures"][-5:]:
        at = time.strftime("%H:%M:%S", time.localtime(failure["time"]))
        lines.append(f"failure at {at}: {failure['actor']}, rank {failure['rank']}: {failure['cause']}")
    return "\n".join(lines)
