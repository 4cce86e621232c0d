"""Trains a run with actors, through failures.

Actors work in *generations*: a generation is one group of processes, from the newest checkpoint to the end of the run,
or until one of them is lost. Then all others leave the group, and a new generation begins with those that live and
with spares that are ready; replacements join at a later checkpoint. Since everything random is a function of seed,
round and dataset and sums do not depend on who adds, no failure and no change of the number of actors changes a bit.

The controller computes nothing and holds no state that a checkpoint does not: when it dies, its actors die with it,
and the same command goes on from the newest checkpoint.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from musegnn.cluster.actor_pool import BEAT_SECONDS
from musegnn.cluster.cost import measured
from musegnn.cluster.messages import TrainTask
from musegnn.cluster.plan import gain, make_plan, place
from musegnn.errors import RunError
from musegnn.training.phases import WAITS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from musegnn.cluster.actor_pool import ActorHandle, ActorPool
    from musegnn.cluster.cost import DatasetCost
    from musegnn.cluster.messages import Fault, TaskResult
    from musegnn.cluster.plan import Plan
    from musegnn.cluster.status import RunMonitor

logger = logging.getLogger(__name__)

TRIES = 3
REPLAN_ROUNDS = 20
REPLAN_SECONDS = 30.0  # what it takes to stop, load and go on, with some to spare


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long the controller waits, in seconds.

    Attributes
    ----------
    start
        For the first actors to be ready.
    silent
        For the pulse of an actor before it counts as frozen.
    stall
        For an actor to leave a phase in which it computes before it is reported, and ended, as stalled; ten times the
        median round where that is longer.
    leave
        For the others to leave a broken group before they are ended.
    """

    start: float = 120.0
    silent: float = 8.0
    stall: float = 300.0
    leave: float = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What ended a generation.

    Attributes
    ----------
    generation, rank, actor
        Which group, and who in it.
    cause
        In one sentence.
    round, phase, dataset
        What it was doing, as far as known.
    trace
        A traceback, where there is one.
    """

    generation: int
    rank: int
    actor: str
    cause: str
    round: int
    phase: str
    dataset: str | None
    trace: str = ""

    def __str__(self) -> str:
        """Say it on one line, as the log does."""
        what = f", dataset {self.dataset}" if self.dataset else ""
        return f"{self.actor}, rank {self.rank}: {self.cause} (round {self.round}, phase {self.phase}{what})"


class Controller:
    """Runs generations until all rounds are trained.

    Parameters
    ----------
    pool
        The actors.
    costs
        Of the datasets, in the order of the atlas.
    rounds
        To train.
    actors, min_actors
        How many shall train, and how few may.
    first_generation
        Number of the first generation; above those of earlier runs.
    announce
        Called with the number of each generation before it begins; fences what is left of earlier ones.
    address
        Host and port of the key-value store in which actors find one another.
    watch
        Told what happens.
    memory
        Bytes that each actor may take; ``None``: no bound.
    on_repeated_failure
        What to do with a dataset on which actors fail again and again: ``fail`` stops the run, ``skip`` goes on
        without it.
    limits
        How long to wait.
    faults
        Failures to play: those of the first entry in the first generation that has such ranks, those of the second in
        the next one after that, and so on.
    placement
        Rank that owns each dataset in groups of so many actors, instead of a plan; ``None``: plans.
    left_out
        Datasets that take no part.
    """

    def __init__(
        self,
        pool: ActorPool,
        costs: Sequence[DatasetCost],
        *,
        rounds: int,
        actors: int,
        min_actors: int,
        first_generation: int,
        announce: Callable[[int], None],
        address: tuple[str, int],
        watch: RunMonitor,
        memory: int | None = None,
        on_repeated_failure: str = "fail",
        limits: Timeouts | None = None,
        faults: Sequence[Sequence[Fault]] = (),
        placement: Sequence[int] | None = None,
        left_out: Sequence[int] = (),
    ) -> None:
        self._pool, self._costs, self._watch = pool, list(costs), watch
        self._rounds, self._target, self._fewest = rounds, actors, min_actors
        self._generation = first_generation - 1
        self._fence_older_groups, self._address, self._on_repeated_failure = announce, address, on_repeated_failure
        self._limits, self._memory = limits or Timeouts(), memory
        self._replan_after = REPLAN_ROUNDS
        self._faults, self._placement = deque(tuple(entry) for entry in faults), placement
        self._left_out = set(left_out)
        self._seconds: dict[str, float] = {}
        self._failure_counts: Counter[tuple[str | None, int]] = Counter()

    def run(self) -> None:
        """Train until all rounds are done.

        Raises
        ------
        RunError
            The actors' own error where it would come again (such as E410); E442 when too few actors can be had, E443
            when actors fail again and again at the same place.
        """
        self._gather(self._target, self._limits.start)
        while True:
            members = self._gather(self._fewest, self._limits.start)[: self._target]
            self._generation += 1
            self._fence_older_groups(self._generation)
            outcomes, failure = self._work(members, self._make_plan(members))
            if failure is None and all(outcome is not None and outcome.kind == "done" for outcome in outcomes):
                self._watch.finished()
                return
            if failure is not None:
                if self._due(len(members)):
                    self._faults.popleft()
                self._watch.failed(failure)
                logger.error("generation %d ended: %s", self._generation, failure)
                if failure.trace:
                    logger.info("%s", failure.trace)
                self._raise_if_unrecoverable(failure, outcomes)
            missing = self._target - len(self._pool.ready) - len(self._pool.starting)
            self._pool.start_actors(max(missing, 0))

    def _gather(self, n: int, seconds: float) -> list[ActorHandle]:
        """Wait until enough actors are ready."""
        until, before = time.monotonic() + seconds, set(map(id, self._pool.members))
        while len(self._pool.ready) < n:
            short = n - len(self._pool.ready) - len(self._pool.starting)
            if time.monotonic() > until:
                msg = f"{len(self._pool.ready)} of {n} actors were ready after {seconds:.0f} s"
                fix = "ask for fewer actors, or see `ray status` for what the cluster lacks"
                raise RunError(msg, code="E442", where="cluster", fix=fix)
            hired = [member for member in self._pool.members if id(member) not in before]
            failed = [member for member in hired if member.dead and member.facts is None]
            if len(failed) >= TRIES * n:
                msg = f"{len(failed)} actors died before they were ready: {failed[0].dead}"
                raise RunError(msg, code="E442", where="cluster", fix="see Ray's logs of that node")
            self._pool.start_actors(max(short, 0))
            self._watch.waiting(self._pool, n)
            self._pool.listen(BEAT_SECONDS)
        self._pool.prepare_agents()
        return self._pool.ready

    def _due(self, size: int) -> tuple[Fault, ...]:
        """Return the failures to play in a group of so many."""
        return self._faults[0] if self._faults and all(fault.rank < size for fault in self._faults[0]) else ()

    def _make_plan(self, members: Sequence[ActorHandle]) -> Plan:
        held = {i: rank for rank, member in enumerate(members) for i in member.owned}
        if self._placement is not None and max(self._placement) + 1 == len(members):
            plan = place(measured(self._costs, self._seconds), self._placement)
        else:
            plan = make_plan(measured(self._costs, self._seconds), len(members), memory=self._memory, held=held)
        for rank, member in enumerate(members):
            member.owned = frozenset(i for i, owner in enumerate(plan.owner) if owner == rank)
        return plan

    def _work(self, members: Sequence[ActorHandle], plan: Plan) -> tuple[list[TaskResult | None], Failure | None]:
        """Run one generation and give how it ended for each member, and the root cause if it broke."""
        host, port = self._address
        running: dict[Any, int] = {}  # Ray's references
        for rank, member in enumerate(members):
            order = TrainTask(
                generation=self._generation,
                rank=rank,
                size=len(members),
                owner=tuple(plan.owner),
                left_out=tuple(sorted(self._left_out)),
                host=host,
                port=port,
                plan=plan.to_json() | {"left_out": sorted(self._left_out)},
                faults=self._due(len(members)),
            )
            running[self._pool.begin(member, order)] = rank
        self._watch.began(self._generation, members, plan)
        outcomes: list[TaskResult | None] = [None] * len(members)
        suspects: list[Failure] = []
        broken_at: float | None = None
        while running:
            self._pool.listen(BEAT_SECONDS)
            self._watch.last_heartbeat(self._pool, members)
            for ref in self._pool.finished(running):
                rank = running.pop(ref)
                outcomes[rank] = outcome = self._pool.outcome(members[rank], ref)
                if outcome is None or outcome.kind in {"lost", "failed", "refused"}:
                    suspects.append(self._failure(members[rank], rank, outcome))
                    broken_at = broken_at or time.monotonic()
            suspects += self._kill_unresponsive(members, set(running.values()), broken_at)
            if suspects:
                broken_at = broken_at or time.monotonic()
                self._watch.broke()
            else:
                self._improve(members, plan)
        return outcomes, min(suspects, key=_weight) if suspects else None

    def _kill_unresponsive(
        self, members: Sequence[ActorHandle], working: set[int], broken_at: float | None
    ) -> list[Failure]:
        """End actors that are frozen, stalled, or do not leave a broken group."""
        found = []
        for rank in sorted(working):
            member = members[rank]
            cause = self._why_end(member, broken_at)
            if cause and not member.dead:
                logger.warning("%s %s; its stacks:\n%s", member, cause, self._pool.stacks(member))
                self._pool.end(member, cause)
                found.append(self._failure(member, rank, None))
        return found

    def _why_end(self, member: ActorHandle, broken_at: float | None) -> str:
        if member.silent > self._limits.silent:
            return f"gave no sign of life for {member.silent:.0f} s"
        if broken_at is not None and time.monotonic() - broken_at > self._limits.leave:
            return "did not leave the broken group"
        pulse = member.pulse
        computes = pulse is not None and pulse.generation == self._generation and pulse.now.phase not in WAITS
        if computes and member.spent > max(self._limits.stall, 10 * self._watch.median_round_seconds()):
            return f"was in one phase for {member.spent:.0f} s"
        return ""

    def _improve(self, members: Sequence[ActorHandle], plan: Plan) -> None:
        """Stop at the next checkpoint when there are actors for a larger group, or a plan that is much better."""
        done = []
        for member in members:
            pulse = member.pulse
            if pulse is not None and pulse.generation == self._generation and pulse.dataset_seconds:
                self._seconds |= pulse.dataset_seconds
                done.append(pulse.rounds)
        grows = len(members) < min(self._target, len(self._pool.ready))
        knows = len(done) == len(members) and min(done) >= self._replan_after
        if grows:
            self._pool.pause(members[:1])
        elif knows and self._placement is None:
            saved = gain(plan, measured(self._costs, self._seconds), memory=self._memory)
            if saved * (self._rounds - min(done)) > REPLAN_SECONDS:
                self._pool.pause(members[:1])
            self._replan_after = min(done) + REPLAN_ROUNDS

    def _failure(self, member: ActorHandle, rank: int, outcome: TaskResult | None) -> Failure:
        pulse = member.pulse if member.pulse is not None and member.pulse.generation == self._generation else None
        now = outcome.now if outcome is not None else pulse.now if pulse is not None else None
        if outcome is None:
            cause = f"died ({member.dead})"
        else:
            cause = {"lost": "lost its group", "failed": "failed", "refused": "refused"}[outcome.kind]
            cause += f": {outcome.message}" if outcome.message else ""
        return Failure(
            generation=self._generation,
            rank=rank,
            actor=str(member),
            cause=cause,
            round=0 if now is None else now.round,
            phase="load" if now is None else now.phase,
            dataset=None if now is None else now.dataset,
            trace="" if outcome is None or outcome.kind == "lost" else outcome.trace,
        )

    def _raise_if_unrecoverable(self, failure: Failure, outcomes: Sequence[TaskResult | None]) -> None:
        """Stop the run where going on would only fail again."""
        for outcome in outcomes:
            if outcome is not None and outcome.kind == "refused":
                self._watch.refused(outcome)
                raise RunError(outcome.message, code=outcome.code, where=failure.actor, fix=outcome.fix)
        place = (failure.dataset, failure.round)
        self._failure_counts[place] += 1
        if self._failure_counts[place] < TRIES:
            return
        what = failure.dataset or f"phase {failure.phase}"
        if failure.dataset is not None and self._on_repeated_failure == "skip":
            self._left_out.add([cost.name for cost in self._costs].index(failure.dataset))
            logger.error("the run goes on without %s: %d actors failed on it", failure.dataset, TRIES)
            self._watch.quarantined(failure.dataset)
            return
        msg = f"{TRIES} actors failed in round {failure.round} at {what}; the last one: {failure}"
        fix = "read run.log for the traceback; `--on-repeated-failure skip` goes on without such a dataset"
        raise RunError(msg, code="E443", where="training", fix=fix)


def _weight(failure: Failure) -> tuple[int, int]:
    """TrainTask suspects: who failed by itself before who died, and both before who merely lost the others."""
    kinds = ("refused", "failed", "died", "lost")
    return next(k for k, kind in enumerate(kinds) if failure.cause.startswith(kind)), failure.rank
