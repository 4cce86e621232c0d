"""Controller of a training run on actors, through failures.

A *group epoch* is one group of processes, from the newest checkpoint to the end of the run,
or until one of them is lost. Then all others leave the group, and a new one begins with the living actors and
the spares that are ready; replacements join at a later checkpoint. The cause is judged when all have told what they
saw: who died or fell silent, else which two do not reach each other. An actor that answers and moves is not killed.
Since random numbers are a function of seed, round and dataset, and sums do not depend on the order of their terms, no
failure and no change of the number of actors changes a bit of the result.

The controller computes nothing and holds no state that a checkpoint does not: when it dies, its actors die with it,
and the same command goes on from the newest checkpoint.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from musegnn.cluster.actor_pool import POLL_SECONDS
from musegnn.cluster.links import fewest_to_leave_out
from musegnn.cluster.messages import Failure, FailureKind, TrainTask
from musegnn.cluster.options import Timeouts
from musegnn.cluster.placement import Placement, measured, place_datasets
from musegnn.errors import RunError
from musegnn.training.phases import FILES, WAITS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from musegnn.cluster.actor_handle import ActorHandle
    from musegnn.cluster.actor_pool import ActorPool
    from musegnn.cluster.messages import TaskResult
    from musegnn.cluster.options import ClusterOptions
    from musegnn.cluster.placement import DatasetCost
    from musegnn.cluster.run_monitor import RunMonitor
    from musegnn.config import AtlasConfig

logger = logging.getLogger(__name__)

MAX_FAILURES = 3
PATIENCE = 4.0
"""Multiple of the longest silence so far for which an actor is left alone whose host answers: hosts may be starved."""
PORTS = "open all TCP ports between the hosts of the cluster, or leave one of the two out"


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
        self._first_group_epoch, self._group_epoch = first_group_epoch, first_group_epoch - 1
        self._config, self._store, self._newest_checkpoint = config, store, newest_checkpoint
        self._fence, self._address, self._memory = fence, address, memory
        self._timeouts, self._fixed_owner = timeouts or Timeouts(), owner
        self._left_out = set(left_out)
        self._doubts = False
        self._seconds: dict[str, float] = {}
        self._failure_counts: Counter[tuple[str | None, int]] = Counter()

    def run(self) -> None:
        """Train until all rounds are done.

        Raises
        ------
        RunError
            The actors' own error where it would come again (such as E410); E442 when too few actors start, E443
            when actors fail repeatedly at the same place; E446 to E448 when hosts do not see the same files, differ,
            or do not reach one another.
        """
        self._put_aside(self._wait_for_actors(self._target))
        while True:
            group = self._choose_group()
            self._group_epoch += 1
            self._fence(self._group_epoch)
            results, failure = self._run_group(group, self._place(group))
            if failure is None and all(result is not None and result.outcome == "done" for result in results):
                self._monitor.finished()
                return
            for actor, result in zip(group, results, strict=True):
                if result is not None and result.lost_device:
                    self._pool.end(actor, "its GPU no longer answers")
            if failure is not None:
                self._monitor.failed(failure)
                logger.error("group_epoch %d ended: %s", self._group_epoch, failure)
                if failure.trace:
                    logger.info("%s", failure.trace)
                self._raise_if_unrecoverable(failure, results)
            self._start_missing(self._target)

    def _start_missing(self, n: int) -> None:
        pool = self._pool
        pool.start_actors(max(n - len(pool.ready) - len(pool.starting) - len(pool.aside), 0))

    def _choose_group(self) -> list[ActorHandle]:
        """Wait for enough actors; those that have worked together go on at once, new ones wait for one another."""
        ready = self._wait_for_actors(self._options.min_actors)
        until = time.monotonic() + self._timeouts.grace
        if not any(actor.owned for actor in ready):
            while self._pool.starting and len(self._pool.ready) < self._target and time.monotonic() < until:
                self._monitor.waiting(self._pool, self._target)
                self._pool.poll(POLL_SECONDS)
        return self._pool.ready[: self._target]

    def _wait_for_actors(self, n: int) -> list[ActorHandle]:
        """Wait until enough actors are ready."""
        began, before = time.monotonic(), set(map(id, self._pool.actors))
        until = began + self._timeouts.start
        while len(self._pool.ready) < n:
            aside = self._pool.aside
            if len(self._pool.ready) + len(aside) >= n and time.monotonic() - began > self._timeouts.links:
                raise RunError(aside[0].aside, code="E447", where=str(aside[0]), fix=PORTS)
            refused = [a.refused for a in self._pool.actors if a.refused is not None]
            if refused and self._group_epoch < self._first_group_epoch:
                raise refused[0]
            if time.monotonic() > until:
                ready = f"{len(self._pool.ready)} of {n} actors were ready after {self._timeouts.start:.0f} s"
                msg = f"{ready}; {self._pool.offers()}"
                fix = "ask for fewer actors, or see `ray status` for what the cluster lacks"
                raise RunError(msg, code="E442", where="cluster", fix=fix)
            failed = [a for a in self._pool.actors if id(a) not in before and a.dead and a.info is None]
            if len(failed) >= MAX_FAILURES * n:
                msg = f"{len(failed)} actors died before they were ready: {failed[0].dead}"
                raise RunError(msg, code="E442", where="cluster", fix="see Ray's logs of that node")
            self._start_missing(n)
            self._monitor.waiting(self._pool, n)
            self._pool.poll(POLL_SECONDS)
        return self._pool.ready

    def _put_aside(self, group: Sequence[ActorHandle]) -> Failure | None:
        """Leave out the fewest actors such that all others reach one another; return the failure, if it is one."""
        broken = self._pool.broken_links(group)
        failure = None
        for rank in fewest_to_leave_out(broken):
            one, other = next(pair for pair in broken if rank in pair)
            peer = group[one if rank == other else other]
            group[rank].aside = f"it and {peer} do not reach each other"
            logger.warning("%s gets no work for now: %s", group[rank], group[rank].aside)
            failure = failure or self._failure(group[rank], rank, None, FailureKind.LINK, group[rank].aside)
        return failure

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
        hosts = Counter(actor.info.host for actor in group if actor.info is not None)
        logger.info("group_epoch %d: actors by host: %s", self._group_epoch, dict(hosts))
        self._monitor.began(self._group_epoch, group, placement)
        results: list[TaskResult | None] = [None] * len(group)
        failures: list[Failure] = []
        broken_at: float | None = None
        while running:
            self._pool.poll(POLL_SECONDS)
            self._monitor.update(self._pool, group)
            self._record_seconds(group)
            for ref in self._pool.finished({ref: group[rank] for ref, rank in running.items()}):
                rank = running.pop(ref)
                results[rank] = result = self._pool.result(group[rank], ref)
                if result is None or result.outcome not in {"done", "paused"}:
                    failures.append(self._failure(group[rank], rank, result))
            failures += self._kill_unresponsive(group, set(running.values()), broken_at)
            if not failures and running:
                failures += self._deadlocked(group, running.values())
            self._forget_passed_failures(group)
            if failures:
                if broken_at is None:
                    broken_at = time.monotonic()
                    self._pool.leave([group[rank] for rank in running.values()], self._group_epoch)
                self._monitor.broke()
            elif len(group) < min(self._target, len(self._pool.ready)):
                group[0].handle.pause.remote()  # a larger group begins at the next checkpoint
        return results, self._root_cause(group, failures)

    def _root_cause(self, group: Sequence[ActorHandle], failures: Sequence[Failure]) -> Failure | None:
        """Return the failure that the others follow from; where no actor is to blame, living ones ping each other."""
        if not failures:
            return None
        kinds = list(FailureKind)
        first = min(failures, key=lambda f: (kinds.index(f.kind), f.rank))
        if first.kind is FailureKind.PEER_LOST and not any(actor.dead for actor in group):
            return self._put_aside(group) or first
        return first

    def _forget_passed_failures(self, group: Sequence[ActorHandle]) -> None:
        """Count failures at a place anew once a group has trained past it."""
        heartbeats = [actor.heartbeat_of(self._group_epoch) for actor in group]
        done = [h.rounds for h in heartbeats if h is not None and h.dataset_seconds]
        if len(done) == len(group):
            passed = [place for place in self._failure_counts if place[1] <= min(done)]
            for place in passed:
                del self._failure_counts[place]

    def _record_seconds(self, group: Sequence[ActorHandle]) -> None:
        """Keep the measured seconds of datasets for the next placement."""
        for actor in group:
            heartbeat = actor.heartbeat_of(self._group_epoch)
            if heartbeat is not None:
                self._seconds |= heartbeat.dataset_seconds

    def _kill_unresponsive(
        self, group: Sequence[ActorHandle], working: set[int], broken_at: float | None
    ) -> list[Failure]:
        """Kill actors that are frozen, stalled, or cannot leave a broken group."""
        found: list[Failure] = []
        silent = max((group[rank].silent for rank in working), default=0.0)
        if self._timeouts.silent < silent < self._timeouts.doubt and self._pool.hears_nobody():
            self._doubts = True
            self._monitor.note(f"no actor has answered for {silent:.0f} s, which may be due to this host's own network")
            return found
        if self._doubts and silent < self._timeouts.doubt:
            self._pool.forgive()  # hosts come back one after the other
        self._doubts = False
        self._monitor.note("")
        slowest = max(actor.longest_silence for actor in self._pool.actors)
        for rank in sorted(working):
            actor = group[rank]
            reason = self._reason_to_kill(actor, broken_at, slowest)
            if reason and not actor.dead:
                logger.warning("%s %s; its stacks:\n%s", actor, reason, self._pool.stacks(actor))
                self._pool.end(actor, reason)
                found.append(self._failure(actor, rank, None, FailureKind.DIED, reason))
        return found

    def _reason_to_kill(self, actor: ActorHandle, broken_at: float | None, slowest: float = 0.0) -> str:
        """Return why an actor has to be killed; `slowest` is the longest silence that one has come back from."""
        starved = min(PATIENCE * slowest, self._timeouts.hang)
        frozen = max(self._timeouts.frozen, self._timeouts.silent, starved)
        if actor.silent > self._timeouts.silent and (actor.silent > frozen or not self._pool.host_answers(actor)):
            return f"sent no heartbeat for {actor.silent:.0f} s"
        heartbeat = actor.heartbeat_of(self._group_epoch)
        if heartbeat is None:
            return ""
        if broken_at is not None and min(actor.idle, time.monotonic() - broken_at) > self._timeouts.leave:
            return f"did not leave the broken group: it has computed and received nothing for {actor.idle:.0f} s"
        phase = heartbeat.now.phase
        if phase in (*WAITS, *FILES):  # it may wait for another one, or for a disk
            return ""
        if actor.idle > self._timeouts.hang:
            return f"has computed nothing in phase {phase} for {actor.idle:.0f} s"
        stall = max(self._timeouts.stall, 10 * self._monitor.median_round_seconds())
        return f"was in one phase for {actor.spent:.0f} s" if actor.spent > stall else ""

    def _deadlocked(self, group: Sequence[ActorHandle], working: Iterable[int]) -> list[Failure]:
        """Return a failure where no actor of a group computes or receives anything, so that it has to be left."""
        ranks = sorted(working)
        heartbeats = [group[rank].heartbeat_of(self._group_epoch) for rank in ranks]
        idle = min((group[rank].idle for rank in ranks), default=0.0)
        if None in heartbeats or idle <= max(self._timeouts.wait, 10 * self._monitor.median_round_seconds()):
            return []
        msg = f"no actor of the group has computed or received anything for {idle:.0f} s"
        return [self._failure(group[ranks[0]], ranks[0], None, FailureKind.PEER_LOST, msg)]

    def _failure(
        self,
        actor: ActorHandle,
        rank: int,
        result: TaskResult | None,
        kind: FailureKind | None = None,
        message: str | None = None,
    ) -> Failure:
        heartbeat = actor.heartbeat_of(self._group_epoch)
        now = result.now if result is not None else heartbeat.now if heartbeat is not None else None
        if kind is None:
            kind = FailureKind.DIED if result is None else FailureKind(result.outcome)
        if message is None:
            message = actor.dead if result is None else result.message
        return Failure(
            group_epoch=self._group_epoch,
            rank=rank,
            actor=str(actor),
            kind=kind,
            message=message,
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
        if failure.kind is FailureKind.LINK:
            return
        place = (failure.dataset, failure.round)
        self._failure_counts[place] += 1
        if self._failure_counts[place] < MAX_FAILURES:
            return
        if failure.dataset is not None and self._options.on_repeated_failure == "skip":
            self._left_out.add([cost.name for cost in self._costs].index(failure.dataset))
            logger.error("the run goes on without %s: %d actors failed on it", failure.dataset, MAX_FAILURES)
            self._monitor.left_out(failure.dataset)
            return
        what = failure.dataset or f"phase {failure.phase}"
        msg = f"{MAX_FAILURES} actors failed in round {failure.round} at {what}; the last one: {failure}"
        fix = "read run.log for the traceback; `--on-repeated-failure skip` goes on without such a dataset"
        raise RunError(msg, code="E443", where="training", fix=fix)
