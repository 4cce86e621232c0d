"""Controller of a training run on actors, through failures.

A *group epoch* is one group of processes, from the newest checkpoint to the end of the run,
or until one of them is lost. Then all others leave the group, and a new one begins with the living actors and
the spares that are ready; replacements join at a later checkpoint. Since random numbers are a function of seed, round
and dataset, and sums do not depend on the order of their terms, no failure and no change of the number of actors
changes a bit of the result.

The controller computes nothing and holds no state that a checkpoint does not: when it dies, its actors die with it,
and the same command goes on from the newest checkpoint.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from musegnn.cluster.actor_pool import POLL_SECONDS
from musegnn.cluster.cost import measured
from musegnn.cluster.messages import Failure, FailureKind, TrainTask
from musegnn.cluster.placement import Placement, place_datasets
from musegnn.errors import RunError
from musegnn.training.phases import WAITS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from musegnn.cluster.actor_pool import ActorHandle, ActorPool
    from musegnn.cluster.cost import DatasetCost
    from musegnn.cluster.messages import TaskResult
    from musegnn.cluster.options import ClusterOptions
    from musegnn.cluster.run_monitor import RunMonitor
    from musegnn.config import AtlasConfig

logger = logging.getLogger(__name__)

MAX_FAILURES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Times that the controller waits, in seconds.

    Attributes
    ----------
    start
        Until enough actors are ready.
    silent
        Without a heartbeat before an actor counts as frozen and is killed.
    stall
        In one phase of computing before an actor is killed; ten times the median round where that is longer.
    leave
        Until the other actors have left a broken group; those that have not are killed.
    """

    start: float = 120.0
    silent: float = 8.0
    stall: float = 300.0
    leave: float = 20.0


class Controller:
    """Controller, which runs group epochs until all rounds are trained.

    Parameters
    ----------
    costs
        Costs of the datasets, in the order of the atlas.
    first_group_epoch
        Number of the first group_epoch, above those of earlier runs.
    config, store
        Configuration of the run and path of its store, which every task carries.
    newest_checkpoint
        Function that returns round and sha256 of the newest checkpoint, or ``None``.
    fence
        Function called with the number of each process group before it begins; fences older groups.
    address
        Host and port of the key-value store in which actors find one another.
    memory
        Memory of each actor in bytes; ``None``: unlimited.
    owner
        Rank that owns each dataset in groups of that size, instead of a computed placement.
    left_out
        Indices of datasets that take no part.
    """

    def __init__(
        self,
        pool: ActorPool,
        costs: Sequence[DatasetCost],
        options: ClusterOptions,
        *,
        first_group_epoch: int,
        config: AtlasConfig,
        store: str,
        newest_checkpoint: Callable[[], tuple[int, str] | None],
        fence: Callable[[int], None],
        address: tuple[str, int],
        monitor: RunMonitor,
        memory: int | None = None,
        timeouts: Timeouts | None = None,
        owner: Sequence[int] | None = None,
        left_out: Sequence[int] = (),
    ) -> None:
        self._pool, self._costs, self._options, self._monitor = pool, list(costs), options, monitor
        self._target = options.actors or 1
        self._group_epoch = first_group_epoch - 1
        self._config, self._store, self._newest_checkpoint = config, store, newest_checkpoint
        self._fence, self._address, self._memory = fence, address, memory
        self._timeouts, self._fixed_owner = timeouts or Timeouts(), owner
        self._left_out = set(left_out)
        self._seconds: dict[str, float] = {}
        self._failure_counts: Counter[tuple[str | None, int]] = Counter()

    def run(self) -> None:
        """Train until all rounds are done.

        Raises
        ------
        RunError
            The actors' own error where it would come again (such as E410); E442 when too few actors start, E443
            when actors fail repeatedly at the same place.
        """
        self._wait_for_actors(self._target)
        while True:
            group = self._wait_for_actors(self._options.min_actors)[: self._target]
            self._group_epoch += 1
            self._fence(self._group_epoch)
            results, failure = self._run_group(group, self._place(group))
            if failure is None and all(result is not None and result.outcome == "done" for result in results):
                self._monitor.finished()
                return
            if failure is not None:
                self._monitor.failed(failure)
                logger.error("group_epoch %d ended: %s", self._group_epoch, failure)
                if failure.trace:
                    logger.info("%s", failure.trace)
                self._raise_if_unrecoverable(failure, results)
            self._start_missing(self._target)

    def _start_missing(self, n: int) -> None:
        self._pool.start_actors(max(n - len(self._pool.ready) - len(self._pool.starting), 0))

    def _wait_for_actors(self, n: int) -> list[ActorHandle]:
        """Wait until enough actors are ready."""
        until, before = time.monotonic() + self._timeouts.start, set(map(id, self._pool.actors))
        while len(self._pool.ready) < n:
            if time.monotonic() > until:
                msg = f"{len(self._pool.ready)} of {n} actors were ready after {self._timeouts.start:.0f} s"
                fix = "ask for fewer actors, or see `ray status` for what the cluster lacks"
                raise RunError(msg, code="E442", where="cluster", fix=fix)
            failed = [a for a in self._pool.actors if id(a) not in before and a.dead and a.info is None]
            if len(failed) >= MAX_FAILURES * n:
                msg = f"{len(failed)} actors died before they were ready: {failed[0].dead}"
                raise RunError(msg, code="E442", where="cluster", fix="see Ray's logs of that node")
            self._start_missing(n)
            self._monitor.waiting(self._pool, n)
            self._pool.poll(POLL_SECONDS)
        self._pool.prepare_agents()
        return self._pool.ready

    def _place(self, group: Sequence[ActorHandle]) -> Placement:
        costs = measured(self._costs, self._seconds)
        if self._fixed_owner is not None and max(self._fixed_owner) + 1 == len(group):
            placement = Placement.of(costs, self._fixed_owner)
        else:
            home = {i: rank for rank, actor in enumerate(group) for i in actor.owned}
            placement = place_datasets(costs, len(group), memory=self._memory, home=home)
        for rank, actor in enumerate(group):
            actor.owned = frozenset(i for i, owner in enumerate(placement.owner) if owner == rank)
        return placement

    def _run_group(
        self, group: Sequence[ActorHandle], placement: Placement
    ) -> tuple[list[TaskResult | None], Failure | None]:
        """Run one process group; return the result of each actor, and the root cause if the group broke."""
        host, port = self._address
        left_out, checkpoint = sorted(self._left_out), self._newest_checkpoint()
        running: dict[Any, int] = {}  # Ray's references
        for rank, actor in enumerate(group):
            task = TrainTask(
                group_epoch=self._group_epoch,
                rank=rank,
                size=len(group),
                owner=placement.owner,
                left_out=tuple(left_out),
                host=host,
                port=port,
                placement=placement.to_json() | {"left_out": left_out},
                config=self._config,
                store=self._store,
                checkpoint=checkpoint,
            )
            running[self._pool.begin(actor, task)] = rank
        self._monitor.began(self._group_epoch, group, placement)
        results: list[TaskResult | None] = [None] * len(group)
        failures: list[Failure] = []
        broken_at: float | None = None
        while running:
            self._pool.poll(POLL_SECONDS)
            self._monitor.update(self._pool, group)
            self._record_seconds(group)
            for ref in self._pool.finished(running):
                rank = running.pop(ref)
                results[rank] = result = self._pool.result(group[rank], ref)
                if result is None or result.outcome not in {"done", "paused"}:
                    failures.append(self._failure(group[rank], rank, result))
                    broken_at = broken_at or time.monotonic()
            failures += self._kill_unresponsive(group, set(running.values()), broken_at)
            if failures:
                broken_at = broken_at or time.monotonic()
                self._monitor.broke()
            elif len(group) < min(self._target, len(self._pool.ready)):
                group[0].handle.pause.remote()  # a larger group begins at the next checkpoint
        kinds = list(FailureKind)
        return results, min(failures, key=lambda f: (kinds.index(f.kind), f.rank)) if failures else None

    def _record_seconds(self, group: Sequence[ActorHandle]) -> None:
        """Keep the measured seconds of datasets for the next placement."""
        for actor in group:
            heartbeat = actor.heartbeat_of(self._group_epoch)
            if heartbeat is not None:
                self._seconds |= heartbeat.dataset_seconds

    def _kill_unresponsive(
        self, group: Sequence[ActorHandle], working: set[int], broken_at: float | None
    ) -> list[Failure]:
        """Kill actors that are frozen, stalled, or do not leave a broken group."""
        found = []
        for rank in sorted(working):
            actor = group[rank]
            reason = self._reason_to_kill(actor, broken_at)
            if reason and not actor.dead:
                logger.warning("%s %s; its stacks:\n%s", actor, reason, self._pool.stacks(actor))
                self._pool.end(actor, reason)
                found.append(self._failure(actor, rank, None))
        return found

    def _reason_to_kill(self, actor: ActorHandle, broken_at: float | None) -> str:
        if actor.silent > self._timeouts.silent:
            return f"sent no heartbeat for {actor.silent:.0f} s"
        if broken_at is not None and time.monotonic() - broken_at > self._timeouts.leave:
            return "did not leave the broken group"
        heartbeat = actor.heartbeat_of(self._group_epoch)
        stall = max(self._timeouts.stall, 10 * self._monitor.median_round_seconds())
        if heartbeat is not None and heartbeat.now.phase not in WAITS and actor.spent > stall:
            return f"was in one phase for {actor.spent:.0f} s"
        return ""

    def _failure(self, actor: ActorHandle, rank: int, result: TaskResult | None) -> Failure:
        heartbeat = actor.heartbeat_of(self._group_epoch)
        now = result.now if result is not None else heartbeat.now if heartbeat is not None else None
        kind = FailureKind.DIED if result is None else FailureKind(result.outcome)
        return Failure(
            group_epoch=self._group_epoch,
            rank=rank,
            actor=str(actor),
            kind=kind,
            message=actor.dead if result is None else result.message,
            round=0 if now is None else now.round,
            phase="load" if now is None else now.phase,
            dataset=None if now is None else now.dataset,
            trace="" if result is None or kind is FailureKind.PEER_LOST else result.trace,
        )

    def _raise_if_unrecoverable(self, failure: Failure, results: Sequence[TaskResult | None]) -> None:
        """Stop the run where going on would only fail again."""
        for result in results:
            if result is not None and result.outcome == "refused":
                assert result.error is not None
                self._monitor.refused(result)
                error = result.error
                raise type(error)(error.message, code=error.code, where=failure.actor, fix=error.fix)
        place = (failure.dataset, failure.round)
        self._failure_counts[place] += 1
        if self._failure_counts[place] < MAX_FAILURES:
            return
        if failure.dataset is not None and self._options.on_repeated_failure == "skip":
            self._left_out.add([cost.name for cost in self._costs].index(failure.dataset))
            logger.error("the run goes on without %s: %d actors failed on it", failure.dataset, MAX_FAILURES)
            self._monitor.quarantined(failure.dataset)
            return
        what = failure.dataset or f"phase {failure.phase}"
        msg = f"{MAX_FAILURES} actors failed in round {failure.round} at {what}; the last one: {failure}"
        fix = "read run.log for the traceback; `--on-repeated-failure skip` goes on without such a dataset"
        raise RunError(msg, code="E443", where="training", fix=fix)
