"""Ray actors of a training run: trainers, which own datasets, and one agent per node.

A trainer joins a group, builds the part of the model that it owns, restores the newest checkpoint and runs the same
program as all others. When its group breaks it leaves at once, so that those who still wait for it notice, and
reports; process, device and datasets stay for the next group.
"""

from __future__ import annotations

import contextlib
import gc
import math
import os
import signal
import sys
import threading
import time
import traceback
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

from musegnn.cluster.messages import ActorInfo, Heartbeat, TaskResult
from musegnn.errors import MuseGNNError

if TYPE_CHECKING:
    from collections.abc import Callable

    from musegnn.cluster.messages import Outcome, TrainTask
    from musegnn.training.phases import PhaseState
    from musegnn.training.prepare import Prepared
    from musegnn.training.torch_comm import Backend
    from musegnn.training.trainer import Trainer


class TrainerActor:
    """Owner of datasets, which it trains.

    Parameters
    ----------
    folder
        Run folder, under the same path on all nodes.
    device
        ``auto``: the GPU that Ray gave this actor, else the CPU; or the name of a device.
    memory
        Bytes that training may take on a CPU; ``None``: not checked.
    on_phase
        Function called with the task as each phase begins.
    """

    def __init__(
        self,
        folder: str,
        device: str = "auto",
        memory: int | None = None,
        on_phase: Callable[[TrainTask, PhaseState], None] | None = None,
    ) -> None:
        from musegnn.training.phases import Phases

        self._folder = Path(folder)
        self._device, self._memory, self._on_phase = device, memory, on_phase
        self._phases = Phases()
        self._trainer: Trainer | None = None
        self._task: TrainTask | None = None
        self._data: tuple[frozenset[int], Prepared] | None = None
        self._pause = threading.Event()
        self._loss = math.nan
        self._rounds = self._first = 0

    def info(self) -> ActorInfo:
        """Return the location of this actor, once it is ready to work."""
        import torch

        if self._device == "auto":
            self._device = "cuda" if torch.cuda.is_available() and ray.get_gpu_ids() else "cpu"
        return ActorInfo(
            pid=os.getpid(),
            started=started(os.getpid()),
            node=ray.get_runtime_context().get_node_id(),
            host=_address(),
            device=self._device,
        )

    def run(self, task: TrainTask) -> TaskResult:
        """Train in a group until all rounds are done, an actor asks for a pause, or the group breaks."""
        from musegnn.training.phases import Phases
        from musegnn.training.torch_comm import PeerLostError
        from musegnn.training.trainer import PausedError

        self._rounds, self._first, self._loss = 0, 0, math.nan
        self._phases = Phases(None if self._on_phase is None else partial(self._on_phase, task))
        self._task = task
        self._pause.clear()
        try:
            self._train(task)
        except PausedError:
            return self._result("paused")
        except PeerLostError as error:
            return self._result("lost", error)
        except MuseGNNError as error:
            return self._result("refused", error)
        except BaseException as error:
            return self._result("failed", error)
        finally:
            self._trainer = None
            gc.collect()  # closes the sockets of the group
        return self._result("done")

    def _train(self, task: TrainTask) -> None:
        from musegnn.training.memory import check_memory
        from musegnn.training.spmd import connect
        from musegnn.training.torch_comm import find_members, make_group
        from musegnn.training.trainer import Trainer

        config = task.config
        backend: Backend = "nccl" if self._device.startswith("cuda") else "gloo"
        store = find_members(task.host, task.port, f"group_epoch-{task.group_epoch}")
        group = make_group(store, task.rank, task.size, backend=backend, host=_address())
        # After joining: some load for longer than others would wait, and a death while loading closes sockets.
        self._phases.enter("load", 0)
        data = self._read(task)
        if self._memory is not None and self._device == "cpu":
            check_memory(data, config.model, config.training, self._memory)
        trainer = Trainer(
            data,
            config,
            comm=connect(group, task.owner, data, config, device=self._device),
            owner=task.owner,
            device=self._device,
            phases=self._phases,
            plan=task.placement,
            group_epoch=task.group_epoch,
            left_out=task.left_out,
            wants_pause=self._pause.is_set,
        )
        self._trainer = trainer
        trainer.restore(self._folder, known=task.checkpoint)
        self._rounds = self._first = trainer.rounds
        trainer.run(self._folder, progress=self._record)

    def _read(self, task: TrainTask) -> Prepared:
        """Read the datasets, unless this actor has them already."""
        from musegnn.data_store import Store
        from musegnn.training.prepare import prepare

        owned = frozenset(i for i, rank in enumerate(task.owner) if rank == task.rank)
        if self._data is None or self._data[0] != owned:
            self._data = None
            self._data = owned, prepare(Store.open(task.store), task.config, owned=owned)
        return self._data[1]

    def _record(self, round_: int, rows: list[dict[str, Any]]) -> None:
        self._rounds = round_
        if rows:
            self._loss = sum(row["loss"] for row in rows) / len(rows)

    def _result(self, outcome: Outcome, error: BaseException | None = None) -> TaskResult:
        return TaskResult(
            outcome=outcome,
            now=self._phases.now,
            error=error if isinstance(error, MuseGNNError) else None,
            message="" if error is None else f"{type(error).__name__}: {getattr(error, 'message', error)}",
            datasets=getattr(error, "datasets", ()),
            trace="" if error is None else "".join(traceback.format_exception(error)),
        )

    @ray.method(concurrency_group="control")
    def heartbeat(self) -> Heartbeat:
        """Return the progress of this actor; answers while it works."""
        from musegnn.training.trainer import peak_bytes

        trainer, task, now = self._trainer, self._task, self._phases.now
        return Heartbeat(
            group_epoch=0 if task is None else task.group_epoch,
            now=now,
            spent=time.time() - now.since,
            rounds=self._rounds,
            loss=self._loss,
            seconds=self._phases.seconds(),
            dataset_seconds=self._seconds_per_round(),
            sent_bytes=0 if trainer is None else trainer.comm.sent,
            peak_bytes=peak_bytes(),
        )

    def _seconds_per_round(self) -> dict[str, float]:
        done = self._rounds - self._first
        return {name: spent / done for name, spent in self._phases.dataset_seconds().items()} if done > 0 else {}

    @ray.method(concurrency_group="control")
    def pause(self) -> None:
        """Stop the group at its next checkpoint."""
        self._pause.set()

    @ray.method(concurrency_group="control")
    def stacks(self) -> str:
        """Return the stack of every thread."""
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        parts = []
        for ident, frame in sys._current_frames().items():
            parts.append(f"thread {names.get(ident, ident)}\n{''.join(traceback.format_stack(frame))}")
        return "\n".join(parts)


class NodeAgent:
    """Agent of a node, which ends processes of that node that no longer answer."""

    def kill(self, pid: int, ticks: int) -> bool:
        """Send SIGKILL to a process and return whether it was there.

        Parameters
        ----------
        pid, ticks
            Process id, and start of the process as in :class:`musegnn.cluster.messages.ActorInfo`.
        """
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            if started(pid) == ticks:
                os.kill(pid, signal.SIGKILL)
                return True
        return False


def _address() -> str:
    address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]  # Ray publishes no type here
    return address


def started(pid: int) -> int:
    """Return the time at which a process started, in clock ticks since boot."""
    text = Path(f"/proc/{pid}/stat").read_text()
    return int(text.rpartition(")")[2].split()[19])
