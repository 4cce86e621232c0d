"""Status of a training run, from its run folder, as `musegnn status` shows it."""

from __future__ import annotations

import json
import statistics
import time
from typing import TYPE_CHECKING, Any

from musegnn.cluster.run_monitor import FILE, RECENT_ROUNDS
from musegnn.errors import RunError
from musegnn.progress import shorten_warnings
from musegnn.text import some_of
from musegnn.training.diagnostics import problems
from musegnn.units import format_bytes

if TYPE_CHECKING:
    from musegnn.run_folder import RunFolder

OLD_SECONDS = 15.0


def read_status(folder: RunFolder) -> dict[str, Any]:  # JSON
    """Return ``status.json`` with ``age_seconds``, and ``problems`` of :mod:`musegnn.training.diagnostics`.

    A run in one process writes no such file; its status is that of the newest record of its metrics. A damaged file is
    a ``RunError`` E409.
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
        "group_epoch": 0,
        "rounds": done,
        "total": total,
        "seconds_per_round": seconds,
        "datasets_per_second": n_datasets / seconds if seconds else 0.0,
        "imbalance": 1.0,
        "actors": [],
        "failures": [],
        "recovery_seconds": [],
        "left_out": [],
        "stalled": [],
        "aside": [],
        "hosts": [],
    }


def is_silent(status: dict[str, Any]) -> bool:  # JSON
    """Return whether the controller of a run that is not over has reported nothing for long."""
    return status["state"] in {"starting", "training", "recovering"} and status["age_seconds"] > OLD_SECONDS


def is_well(status: dict[str, Any]) -> bool:  # JSON
    """Return whether a run is over or goes on: it has not stopped, nothing stalls, and its controller reports.

    A training in one process says nothing during a round, however long.
    """
    silent = bool(status["hosts"]) and is_silent(status)
    return status["state"] != "stopped" and not status["stalled"] and not silent


def show_status(status: dict[str, Any]) -> str:  # JSON
    """Format a status for a terminal."""
    state = status["state"]
    if is_silent(status):
        state += f", but its controller has been silent for {status['age_seconds']:.0f} s"
    lines = [
        f"{state}: round {status['rounds']} of {status['total']}, group epoch {status['group_epoch']}"
        + (f", {status['note']}" if status.get("note") else "")
    ]
    if status["seconds_per_round"]:
        lines.append(
            f"{status['seconds_per_round']:.2f} s per round, {status['datasets_per_second']:.1f} datasets per second, "
            f"imbalance {status['imbalance']:.2f}"
        )
    if len(status.get("hosts", [])) > 1:
        lines.append(f"{len(status['actors'])} actors on {len(status['hosts'])} hosts: {some_of(status['hosts'], 8)}")
    for actor in status["actors"]:
        doing = "no heartbeat yet"
        if "phase" in actor:
            what = f" {actor['dataset']}" if actor["dataset"] else ""
            doing = f"round {actor['round']}, {actor['phase']}{what} for {actor['since_seconds']:.1f} s"
            doing += f"; {format_bytes(actor['sent_bytes'])} sent, {format_bytes(actor['peak_bytes'])} at most"
            doing += f", {format_bytes(actor['device_bytes'])} on the GPU" if actor.get("device_bytes") else ""
        place = f"{actor['host']} pid {actor['pid']}"
        place += f" on {actor['device']}" if actor.get("device") else ""
        lines.append(f"  rank {actor['rank']} {place} ({len(actor['datasets'])} datasets): {doing}")
    lines += shorten_warnings([f"stalled: {line}" for line in status["stalled"]])
    lines += shorten_warnings([f"put aside: {line}" for line in status.get("aside", [])])
    if status["left_out"]:
        lines.append(f"left out: {some_of(status['left_out'])}")
    lines += shorten_warnings(status.get("problems", []))
    for failure in status["failures"][-5:]:
        at = time.strftime("%H:%M:%S", time.localtime(failure["time"]))
        lines.append(f"failure at {at}: {failure['actor']}, rank {failure['rank']}: {failure['cause']}")
    return "\n".join(lines)
