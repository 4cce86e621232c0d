"""Prometheus metrics of a run, which Ray serves at the metrics port of each node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX = "musegnn"


class Metrics:
    """Metrics of a run, whose name is the label of every series."""

    def __init__(self, run: str) -> None:
        from ray.util.metrics import Counter, Gauge

        def gauge(name: str, about: str, *tags: str) -> Any:  # Ray publishes no types
            made = Gauge(f"{PREFIX}_{name}", description=about, tag_keys=("run", *tags))
            made.set_default_tags({"run": run})
            return made

        self._rounds = gauge("rounds", "Rounds trained")
        self._round_seconds = gauge("round_seconds", "Median seconds of the last rounds")
        self._datasets = gauge("datasets_per_second", "Datasets trained per second")
        self._imbalance = gauge("imbalance", "Largest over mean computing time of the actors")
        self._group_epoch = gauge("group_epoch", "Number of the present group of actors")
        self._actors = gauge("actors", "Actors in the group")
        self._phase = gauge("phase_seconds", "Seconds that an actor has spent in a phase", "rank", "phase")
        self._sent = gauge("sent_bytes", "Bytes that an actor has sent to others", "rank")
        self._peak = gauge("peak_bytes", "Largest resident memory of an actor", "rank")
        self._recovery = gauge("recovery_seconds", "From the last failure to the end of the next round")
        self._failures = Counter(f"{PREFIX}_failures", description="Failures by kind", tag_keys=("run", "kind"))
        self._failures.set_default_tags({"run": run})

    def update(self, status: Mapping[str, Any]) -> None:  # JSON
        """Set the metrics to a status of :class:`musegnn.cluster.run_monitor.RunMonitor`."""
        self._rounds.set(status["rounds"])
        self._round_seconds.set(status["seconds_per_round"])
        self._datasets.set(status["datasets_per_second"])
        self._imbalance.set(status["imbalance"])
        self._group_epoch.set(status["group_epoch"])
        self._actors.set(len(status["actors"]))
        if status["recovery_seconds"]:
            self._recovery.set(status["recovery_seconds"][-1])
        for actor in status["actors"]:
            rank = {"rank": str(actor["rank"])}
            for phase, seconds in actor.get("seconds", {}).items():
                self._phase.set(seconds, tags={**rank, "phase": phase})
            if "sent_bytes" in actor:
                self._sent.set(actor["sent_bytes"], tags=rank)
                self._peak.set(actor["peak_bytes"], tags=rank)

    def failed(self, kind: str) -> None:
        """Count a failure."""
        self._failures.inc(1, tags={"kind": kind})
