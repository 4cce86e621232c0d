"""Rounds, metrics and checkpoints: the same program in every process of a training run.

Processes agree on what to do without a leader: which checkpoint to restore is settled among them, each writes
the units it owns, and the one of rank 0 writes the manifest when all have written. Whoever starts them, Ray, torchrun
or nobody, calls :meth:`Trainer.run`.

A checkpoint is written while the next round is computed and becomes valid before that round's step, so a failure costs
at most the rounds between two checkpoints.

Legend: N genes, d dimensions of the embedding.
"""

from __future__ import annotations

import logging
import resource
import socket
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from musegnn.errors import CheckpointDamagedError, RunError
from musegnn.progress import shorten_warnings
from musegnn.text import some_of
from musegnn.training.added import Fixed, fit_added, mean_align
from musegnn.training.checkpoint import (
    VISIBLE_SECONDS,
    Shard,
    Writer,
    announce,
    commit,
    find_manifest,
    has_checkpoint,
    is_in_sight,
    manifests,
    newest_group_epoch,
    read_units,
)
from musegnn.training.comm import LocalComm
from musegnn.training.diagnostics import problems
from musegnn.training.engine import Engine
from musegnn.training.initialize import initialize
from musegnn.training.metrics_log import RunLog, describe_space
from musegnn.training.phases import Phases
from musegnn.training.prepare import fingerprint, make_model

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from musegnn.config import AtlasConfig
    from musegnn.model.model import AtlasModel
    from musegnn.training.comm import Comm
    from musegnn.training.diagnostics import Problem
    from musegnn.training.prepare import Prepared


class PausedError(Exception):
    """Training stopped at a checkpoint because a process wanted to."""


class Trainer:
    """Trains the datasets of one process.

    Parameters
    ----------
    comm
        The group of processes; ``None``: this one alone.
    owner
        Rank that owns each dataset, shape (T,); ``None``: all are this process's.
    plan
        JSON that is recorded in checkpoints.
    group_epoch
        Number of this group of processes, announced by whoever started it; ``None``: a process that is alone.
    left_out
        Datasets of the atlas that take no part.
    wants_pause
        Asked at every checkpoint; when it returns true in one process, all stop there.
    like
        Model of the same data, device and type, whose node features are used.
    at_a_time
        Datasets computed at a time, see :class:`~musegnn.training.engine.Engine`.

    Attributes
    ----------
    history
        Records so far; of all processes where this one has rank 0.
    """

    def __init__(
        self,
        data: Prepared,
        config: AtlasConfig,
        *,
        comm: Comm | None = None,
        owner: Sequence[int] | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        phases: Phases | None = None,
        plan: dict[str, Any] | None = None,  # JSON
        group_epoch: int | None = None,
        left_out: Collection[int] = (),
        wants_pause: Callable[[], bool] = lambda: False,
        like: AtlasModel | None = None,
        at_a_time: int = 1,
    ) -> None:
        self.config = config
        self.comm: Comm = LocalComm() if comm is None else comm
        self.phases = Phases() if phases is None else phases
        self._owner = [0] * len(data.graphs) if owner is None else list(owner)
        owned = [i for i, rank in enumerate(self._owner) if rank == self.comm.rank]
        self.model = make_model(data, config, owned=owned, device=device, dtype=dtype, like=like)
        self._added = [i for i, graph in enumerate(data.graphs) if graph.added]
        left_out = {*left_out, *self._added}
        self.engine = Engine(
            self.model,
            config.training,
            comm=self.comm,
            phases=self.phases,
            left_out=left_out,
            at_a_time=at_a_time,
        )
        self.history: list[dict[str, Any]] = []
        self.rounds = 0
        self._has_start = False
        self._data, self._plan, self._group_epoch, self._wants_pause = data, plan, group_epoch, wants_pause
        self._saving: tuple[int, Writer] | None = None
        self._unsent: list[dict[str, Any]] = []
        self._told: dict[str, float] = {}
        self._problems: list[Problem] | None = None
        self._warned: set[tuple[str, str]] = set()
        self._fingerprint: str | None = None

    @property
    def fingerprint(self) -> str:
        """The sha256 of all data and settings that decide a trained bit, as hex digits."""
        if self._fingerprint is None:
            self._fingerprint = fingerprint(self._data, self.config, self.model.dtype)
        return self._fingerprint

    def restore(self, folder: Path, *, known: tuple[int, str] | None = None) -> bool:
        """Set weights and moments to the newest checkpoint that is whole for all processes, if there is one.

        The processes agree on its round and digest; what one of them sees, the others wait for some seconds. `known`
        are round and digest of a checkpoint that whoever started the processes has seen.

        Raises
        ------
        RunError
            E402 when it is of other data or settings, E403 when there are checkpoints and none is whole for all, E446
            when processes read different data or settings.
        """
        self.phases.enter("load", self.rounds)
        checkpoints, host = folder / "checkpoints", socket.gethostname()
        mine = [[manifest.round, manifest.sha256] for manifest in manifests(checkpoints)]
        mine += [] if known is None else [list(known)]
        rows = self.comm.gather([{"host": host, "fingerprint": self.fingerprint, "checkpoints": mine}])
        _refuse_differences(rows)
        patience = VISIBLE_SECONDS if self.comm.size > 1 or known is not None else 0.0
        missing: list[str] = []
        for round_, sha256 in sorted({(r, s) for row in rows for r, s in row["checkpoints"]}, reverse=True):
            units, why = None, ""
            try:
                units, left_out = self._read(folder, round_, sha256, patience)
            except CheckpointDamagedError as error:
                why = error.message
                logger.warning("%s; trying the checkpoint before it", error)
            seen = self.comm.gather([{"host": host, "why": why}])
            if not any(row["why"] for row in seen):
                assert units is not None
                for unit, state in units.items():
                    self.engine.load_state(unit, state)
                self.engine.leave_out(left_out)
                self.rounds, self._has_start = round_, True
                return True
            missing += [f"round {round_} on {row['host']}: {row['why']}" for row in seen if row["why"]]
        if missing:
            msg = f"no checkpoint is whole for all processes ({'; '.join(missing[:3])})"
            fix = "see that all hosts mount the run folder, or train again into another folder"
            raise CheckpointDamagedError(msg, code="E403", where=str(folder), fix=fix)
        return False

    def _read(self, folder: Path, round_: int, sha256: str, patience: float) -> tuple[dict[str, Any], Sequence[int]]:
        """Read a checkpoint's units of this process, and the datasets that it leaves out."""
        manifest = find_manifest(folder / "checkpoints", round_, sha256, patience=patience)
        if manifest.fingerprint != self.fingerprint or not set(self.model.units) <= set(manifest.units):
            msg = "the checkpoint was trained on other data or with other settings"
            raise RunError(msg, code="E402", where=str(folder), fix="use the store and the configuration of the run")
        units = read_units(folder / "checkpoints", manifest, list(self.model.units), patience=patience)
        return units, manifest.plan.get("left_out", ())

    def run(
        self, folder: Path | None = None, *, progress: Callable[[int, list[dict[str, Any]]], None] | None = None
    ) -> None:
        """Train until ``config.training.rounds`` rounds are done.

        `folder` is the run folder for checkpoints and metrics; ``None`` writes nothing. `progress` is called after each
        round with its number and the records of this process.

        Raises
        ------
        RunError
            E410 when numbers stop being finite, E441 when another process is lost.
        PausedError
            When a process wanted to pause; the newest checkpoint is of the last round trained.
        """
        training, alone = self.config.training, self.comm.size == 1
        self._fence_older_groups(folder)
        place = folder if self.comm.rank == 0 else None
        with (
            threads(training.threads),
            RunLog(place, after=self.rounds if self._has_start else -1, history=self.history) as log,
        ):
            self.history = log.history
            if not self._has_start:
                self.start()
                if training.rounds == 0:
                    self.engine.compare()
                    self._describe()
                    self._write(log)
            while self.rounds < training.rounds:
                began = time.perf_counter()
                rows = self.engine.round(self.rounds + 1, before_step=lambda: self._commit_checkpoint(folder, log))
                self.rounds += 1
                seconds = time.perf_counter() - began
                self._unsent += [{"kind": "losses", **row, "seconds": seconds} for row in rows]
                last = self.rounds == training.rounds
                if last:
                    self._fit_added()
                if self.rounds % training.checkpoint_every == 0 or last:
                    self._describe()
                    if folder is not None:
                        self._save(folder)
                if alone or last:
                    self._write(log)
                if progress is not None:
                    progress(self.rounds, rows)
            if folder is not None and self._saving is None and not self._any(bool(manifests(folder / "checkpoints"))):
                self._save(folder)
            self._commit_checkpoint(folder, log)

    def start(self) -> None:
        """Set the maps to their closed forms, see :mod:`musegnn.training.initialize`."""
        self.phases.enter("load", 0)
        initialize(self.model, self.comm, seed=self.config.training.seed, phases=self.phases)
        self._fit_added()
        self._has_start = True

    def _fit_added(self) -> None:
        """Place the added datasets in the space of those before them."""
        for i in self._added:
            before = [self.model.graph(j) for j in range(i)]
            with torch.no_grad():
                vectors = [self.model.encode(j).cpu().numpy() for j in range(i)]
            aligns = [self.model.maps(j).align for j in range(i) if not self.model.graphs[j].added]
            fixed = Fixed(graphs=before, vectors=vectors, align=mean_align(aligns))
            fit_added(self.model, i, fixed, seed=self.config.training.seed)

    def state(self) -> dict[str, dict[str, torch.Tensor]]:
        """Return weights and moments of all units of this process."""
        return {unit: self.engine.state(unit) for unit in self.model.units}

    def save(self, folder: Path) -> None:
        """Write a checkpoint of the present round and wait until it is valid."""
        self._fence_older_groups(folder)
        self._save(folder)
        self._commit_checkpoint(folder, None)

    def vectors(self) -> dict[str, NDArray[np.float32]]:
        """Return the vectors of all genes of each owned dataset, by dataset name, shape (N, d)."""
        with torch.no_grad(), threads(self.config.training.threads):
            return {
                self.model.graphs[i].name: self.model.encode(i).cpu().numpy().astype(np.float32)
                for i in self.model.owned
            }

    def _fence_older_groups(self, folder: Path | None) -> None:
        """Take over from groups of processes that trained here before, if any."""
        if self._group_epoch is None:
            before = 0 if folder is None else newest_group_epoch(folder / "checkpoints")
            self._group_epoch = before + 1 if before else 0
            if folder is not None and before:
                announce(folder / "checkpoints", self._group_epoch)

    def _describe(self) -> None:
        self._unsent += describe_space(self.vectors(), self.rounds) + self.engine.watched
        self.engine.watched = []
        seconds = self.phases.seconds()
        spent = {f"{phase}_seconds": total - self._told.get(phase, 0.0) for phase, total in seconds.items()}
        self._told = seconds
        about = {"kind": "process", "round": self.rounds, "process": self.comm.rank}
        self._unsent.append(about | spent | {"sent_bytes": self.comm.sent, "peak_bytes": peak_bytes()})

    def _save(self, folder: Path) -> None:
        """Begin to write the units whose home is this process."""
        self.phases.enter("checkpoint", self.rounds)
        units = {name: self.engine.state(name) for name in self.model.units if self._is_home(name)}
        self._saving = (self.rounds, Writer(folder / "checkpoints", units))

    def _commit_checkpoint(self, folder: Path | None, log: RunLog | None) -> None:
        """Make the checkpoint under way valid, together with the metrics up to its round."""
        if self._saving is None or folder is None:
            return
        (round_, writer), self._saving = self._saving, None
        self.phases.enter("checkpoint", self.phases.now.round)
        mine = {"shards": [shard.to_json() for shard in writer.wait()], "pause": self._wants_pause()}
        reports = self.comm.gather([mine])
        if log is not None:
            self._write(log)
        if self.comm.rank == 0:
            assert self._group_epoch is not None
            commit(
                folder / "checkpoints",
                round_,
                [Shard.from_json(entry) for report in reports for entry in report["shards"]],
                fingerprint=self.fingerprint,
                plan=self._plan,
                group_epoch=self._group_epoch,
            )
        self.comm.gather([])  # nobody steps before the checkpoint is valid
        self._refuse_other_folders(folder / "checkpoints", round_)
        if round_ < self.config.training.rounds and any(report["pause"] for report in reports):
            raise PausedError

    def _refuse_other_folders(self, checkpoints: Path, round_: int) -> None:
        """Raise E448 where a host does not see the checkpoint that the process of rank 0 has written."""
        if self.comm.size == 1:
            return
        rows = self.comm.gather([{"host": socket.gethostname(), "sees": is_in_sight(checkpoints, round_)}])
        blind = sorted({str(row["host"]) for row in rows if not row["sees"]})
        if blind:
            msg = f"{checkpoints}: what {rows[0]['host']} writes there is not seen on {some_of(blind)}"
            fix = "mount one shared folder under this path on all hosts"
            raise RunError(msg, code="E448", where=str(checkpoints), fix=fix)

    def _any(self, here: bool) -> bool:  # noqa: FBT001
        """Return whether something holds in any process."""
        return any(row["here"] for row in self.comm.gather([{"here": here}]))

    def _is_home(self, unit: str) -> bool:
        """Return whether this process writes a unit: that of its first dataset does."""
        members = self.model.shared.members.get(unit)
        return members is None or self._owner[members[0]] == self.comm.rank

    def _write(self, log: RunLog) -> None:
        rows, self._unsent = self.comm.gather(self._unsent), []
        names = [graph.name for graph in self.model.graphs]
        order = {name: i for i, name in enumerate(names)}
        log.write(sorted(rows, key=lambda row: (row["round"], row["kind"], order.get(row.get("dataset", ""), 0))))
        if self.comm.rank == 0 and any(row["kind"] == "space" for row in rows):
            self._problems = None
            new = [p for p in self.problems() if (p.code, p.dataset) not in self._warned]
            self._warned |= {(p.code, p.dataset) for p in new}
            for line in shorten_warnings([str(p) for p in new]):
                logger.warning("%s", line)

    def problems(self) -> list[Problem]:
        """Return what went wrong in silence so far; of all processes where this one has rank 0."""
        if self._problems is None:
            self._problems = problems(self.history, dim=self.config.model.dim)
        return self._problems


def _refuse_differences(rows: Sequence[Mapping[str, Any]]) -> None:
    first = rows[0]
    for rank, row in enumerate(rows):
        if row["fingerprint"] != first["fingerprint"]:
            msg = f"{row['host']} (rank {rank}) reads other data or settings than {first['host']} (rank 0)"
            fix = "give all hosts the same store and the same version of musegnn"
            raise RunError(msg, code="E446", where="training", fix=fix)


def refuse_old_checkpoints(folder: Path, *, resume: bool) -> None:
    """Refuse a run folder with checkpoints, by E404, unless they shall be resumed."""
    if not resume and has_checkpoint(folder / "checkpoints"):
        msg = "the folder holds checkpoints of an earlier training"
        raise RunError(msg, code="E404", where=str(folder), fix="resume it, or choose another folder")


@contextmanager
def threads(n: int) -> Iterator[None]:
    """Compute with a fixed number of torch threads, which sums depend on."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def peak_bytes() -> int:
    """Return the largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
