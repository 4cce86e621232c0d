"""The processes of a training run on Ray: trainers, which own datasets, and one agent per node.

A trainer computes nothing on its own account: it joins a group, builds the part of the model that it owns, takes up
the newest checkpoint and runs the same program as everybody else. When its group breaks it drops the group at once,
so that those who still wait for it notice, and reports; process, device and datasets stay for the next group.
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
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

from musegnn.cluster.messages import ActorInfo, Heartbeat, TaskResult
from musegnn.errors import MuseGNNError

if TYPE_CHECKING:
    from musegnn.cluster.messages import Kind, TrainTask
    from musegnn.training.phases import PhaseState
    from musegnn.training.prepare import Prepared
    from musegnn.training.torch_comm import Backend
    from musegnn.training.trainer import Trainer


class TrainerActor:
    """Owns datasets of a run and trains them.

    Parameters
    ----------
    folder
        The run folder, seen under this path by all nodes.
    device
        ``auto``: the GPU that Ray gave this actor, else the CPU; or the name of a device.
    memory
        Bytes that training may take on a CPU; ``None``: not checked.
    """

    def __init__(self, folder: str, device: str = "auto", memory: int | None = None) -> None:
        from musegnn.training.phases import Phases

        self._folder = Path(folder)
        self._device, self._memory = device, memory
        self._phases = Phases()
        self._trainer: Trainer | None = None
        self._order: TrainTask | None = None
        self._data: tuple[frozenset[int], Prepared] | None = None
        self._pause = threading.Event()
        self._loss = math.nan
        self._rounds = self._first = 0

    def facts(self) -> ActorInfo:
        """Say where this actor lives; answers once it is ready to work."""
        import torch

        if self._device == "auto":
            self._device = "cuda" if torch.cuda.is_available() and ray.get_gpu_ids() else "cpu"
        context = ray.get_runtime_context()
        return ActorInfo(
            pid=os.getpid(),
            started=started(os.getpid()),
            node=context.get_node_id(),
            host=_address(),
            device=self._device,
        )

    def run(self, order: TrainTask) -> TaskResult:
        """Train in a group until all rounds are done, somebody wants to pause, or the group breaks."""
        from musegnn.training.phases import Phases
        from musegnn.training.torch_comm import PeerLostError
        from musegnn.training.trainer import PausedError

        self._rounds, self._first, self._loss = 0, 0, math.nan
        self._phases = Phases(self._play)
        self._order = order
        self._pause.clear()
        try:
            self._train(order)
        except PausedError:
            return self._outcome("paused")
        except PeerLostError as error:
            return self._outcome("lost", error)
        except MuseGNNError as error:
            return self._outcome("refused", error)
        except BaseException as error:
            return self._outcome("failed", error)
        finally:
            self._trainer = None
            gc.collect()  # closes the sockets of the group
        return self._outcome("done")

    def _train(self, order: TrainTask) -> None:
        from musegnn.run_folder import RunFolder
        from musegnn.training.memory import check_memory
        from musegnn.training.spmd import connect
        from musegnn.training.torch_comm import find_members, make_group
        from musegnn.training.trainer import Trainer

        config = RunFolder.open(self._folder).atlas()
        backend: Backend = "nccl" if self._device.startswith("cuda") else "gloo"
        store = find_members(order.host, order.port, f"generation-{order.generation}")
        group = make_group(store, order.rank, order.size, backend=backend, host=_address())
        # After joining: some load for longer than others would wait, and a death while loading closes sockets.
        self._phases.enter("load", 0)
        data = self._read(order)
        if self._memory is not None and self._device == "cpu":
            check_memory(data, config.model, config.training, self._memory)
        trainer = Trainer(
            data,
            config,
            comm=connect(group, order.owner, data, config, device=self._device),
            owner=order.owner,
            device=self._device,
            phases=self._phases,
            plan=order.plan,
            group_epoch=order.generation,
            left_out=order.left_out,
            wants_pause=self._pause.is_set,
        )
        self._trainer = trainer
        trainer.restore(self._folder)
        self._rounds = self._first = trainer.rounds
        trainer.run(self._folder, progress=self._note)

    def _read(self, order: TrainTask) -> Prepared:
        """Read the datasets, unless this actor has them already."""
        from musegnn.data_store import Store
        from musegnn.run_folder import RunFolder
        from musegnn.training.prepare import prepare

        owned = frozenset(i for i, rank in enumerate(order.owner) if rank == order.rank)
        if self._data is None or self._data[0] != owned:
            self._data = None
            folder = RunFolder.open(self._folder)
            self._data = owned, prepare(Store.open(folder.store_path()), folder.atlas(), owned=owned)
        return self._data[1]

    def _note(self, round_: int, rows: list[dict[str, Any]]) -> None:
        self._rounds = round_
        if rows:
            self._loss = sum(row["loss"] for row in rows) / len(rows)

    def _play(self, now: PhaseState) -> None:
        """Fail where a test wants it."""
        order = self._order
        assert order is not None
        for fault in order.faults:
            here = (fault.rank, fault.phase) == (order.rank, now.phase)
            if here and fault.round in {None, now.round}:
                if fault.how == "exit":
                    os._exit(13)
                if fault.how == "exception":
                    msg = f"a failure was played in {now.phase} of round {now.round}"
                    raise ArithmeticError(msg)
                os.kill(os.getpid(), signal.SIGKILL if fault.how == "kill" else signal.SIGSTOP)

    def _outcome(self, kind: Kind, error: BaseException | None = None) -> TaskResult:
        order, now = self._order, self._phases.now
        assert order is not None
        code, message, fix, trace = "", "", "", ""
        if error is not None:
            trace = "".join(traceback.format_exception(error))
            message = f"{type(error).__name__}: {error}"
        if isinstance(error, MuseGNNError):
            code, message, fix = error.code, error.message, error.fix
        return TaskResult(
            kind=kind,
            generation=order.generation,
            rank=order.rank,
            now=now,
            rounds=self._rounds,
            code=code,
            message=message,
            fix=fix,
            datasets=getattr(error, "datasets", ()),
            trace=trace,
        )

    @ray.method(concurrency_group="control")
    def pulse(self) -> Heartbeat:
        """Say what this actor is doing now; answers while it works."""
        from musegnn.training.trainer import peak_bytes

        trainer, order, now = self._trainer, self._order, self._phases.now
        return Heartbeat(
            generation=0 if order is None else order.generation,
            now=now,
            spent=time.time() - now.since,
            rounds=self._rounds,
            loss=self._loss,
            seconds=self._phases.seconds(),
            dataset_seconds=self._per_round(),
            sent_bytes=0 if trainer is None else trainer.comm.sent,
            peak_bytes=peak_bytes(),
        )

    def _per_round(self) -> dict[str, float]:
        done = self._rounds - self._first
        return {name: spent / done for name, spent in self._phases.dataset_seconds().items()} if done > 0 else {}

    @ray.method(concurrency_group="control")
    def pause(self) -> None:
        """Stop at the next checkpoint, and everybody with this actor."""
        self._pause.set()

    @ray.method(concurrency_group="control")
    def stacks(self) -> str:
        """Return the stack of every thread, to see where an actor hangs."""
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        parts = []
        for ident, frame in sys._current_frames().items():
            parts.append(f"thread {names.get(ident, ident)}\n{''.join(traceback.format_stack(frame))}")
        return "\n".join(parts)


class NodeAgent:
    """Ends processes of its node, also those that no longer answer."""

    def kill(self, pid: int, ticks: int) -> bool:
        """Send SIGKILL to a process, unless it is gone.

        Parameters
        ----------
        pid, ticks
            As :class:`musegnn.cluster.messages.ActorInfo` gives them.

        Returns
        -------
        bool
            Whether there was such a process.
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
