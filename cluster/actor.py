"""Ray actors of a training run, which own datasets and train them.

A trainer joins a group, builds the part of the model that it owns, restores the newest checkpoint and runs the same
program as all others. When its group breaks, or the controller says so, it leaves at once, so that those who still
wait for it notice, and reports; process, device and datasets stay for the next group. An actor that its controller
does not ask for a heartbeat any more ends itself.
"""

from __future__ import annotations

import gc
import math
import os
import socket
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
    from collections.abc import Callable

    from musegnn.cluster.links import Address
    from musegnn.cluster.messages import Outcome, TrainTask
    from musegnn.cluster.preflight import Question
    from musegnn.training.phases import PhaseState
    from musegnn.training.prepare import Prepared, PreparedDataset
    from musegnn.training.torch_comm import Backend, TorchComm
    from musegnn.training.trainer import Trainer


FORGOTTEN_SECONDS = 30.0
"""Seconds without a question of the controller after which an actor ends itself."""


class TrainerActor:
    """Owner of datasets, which it trains.

    Parameters
    ----------
    folder
        Run folder, under the same path on all nodes.
    device
        ``cpu``, or ``cuda``: the GPU that Ray gave this actor.
    memory
        Bytes that training may take on a CPU; ``None``: not checked.
    on_phase
        Function called with the task as each phase begins.
    """

    def __init__(
        self,
        folder: str,
        device: str = "cpu",
        memory: int | None = None,
        on_phase: Callable[[TrainTask, PhaseState], None] | None = None,
    ) -> None:
        from musegnn.training.phases import Phases

        self._folder = Path(folder)
        self._device, self._memory, self._on_phase = device, memory, on_phase
        self._phases = Phases()
        self._trainer: Trainer | None = None
        self._task: TrainTask | None = None
        self._known: dict[int, PreparedDataset] = {}
        self._pause = threading.Event()
        self._loss = math.nan
        self._rounds = self._first = 0
        self._group: Any = None  # torch publishes no type for backends
        self._left_epoch = 0
        self._asked_at = math.inf
        self._result_of_task: TaskResult | None = None
        self._clock: int | None = None

    def info(self, question: Question, name: str) -> ActorInfo:
        """Return the location of this actor, and what it finds there, once it is ready to work."""
        from musegnn.cluster.device import describe_device
        from musegnn.cluster.links import PingListener
        from musegnn.cluster.preflight import gather_evidence

        self._listener = PingListener(_address())
        self._asked_at = time.monotonic()
        threading.Thread(target=self._end_when_forgotten, name="musegnn-controller", daemon=True).start()
        return ActorInfo(
            pid=os.getpid(),
            host=_address(),
            hostname=socket.gethostname(),
            ping_port=self._listener.port,
            device=describe_device(self._device),
            evidence=gather_evidence(question, name),
        )

    def run(self, task: TrainTask) -> TaskResult:
        """Train in a group until all rounds are done, an actor asks for a pause, or the group breaks.

        Heartbeats carry the result too, which reaches a controller whose connection was interrupted.
        """
        self._clock = time.pthread_getcpuclockid(threading.get_ident())
        self._result_of_task, self._task = None, task
        self._result_of_task = found = self._work(task)
        return found

    def _work(self, task: TrainTask) -> TaskResult:
        from musegnn.training.phases import Phases
        from musegnn.training.torch_comm import PeerLostError
        from musegnn.training.trainer import PausedError

        self._rounds, self._first, self._loss = 0, 0, math.nan
        self._phases = Phases(self._enter)
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
            self._trainer = self._group = None
            gc.collect()  # closes the sockets of the group
        return self._result("done")

    def _train(self, task: TrainTask) -> None:
        from musegnn.training.memory import check_memory
        from musegnn.training.torch_comm import find_members, make_group
        from musegnn.training.trainer import Trainer

        config = task.config
        backend: Backend = "nccl" if self._device.startswith("cuda") else "gloo"
        store = find_members(task.host, task.port, f"group_epoch-{task.group_epoch}")
        self._group = group = make_group(store, task.rank, task.size, backend=backend, host=_address())
        # After joining: some load for longer than others would wait, and a death while loading closes sockets.
        self._phases.enter("load", 0)
        data, comm = self._prepare(task, group)
        if self._memory is not None and self._device == "cpu":
            check_memory(data, config.model, config.training, self._memory)
        trainer = Trainer(
            data,
            config,
            comm=comm,
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

    def _enter(self, now: PhaseState) -> None:
        """Leave between two phases where the controller has said so."""
        from musegnn.training.torch_comm import PeerLostError

        assert self._task is not None
        if self._left_epoch >= self._task.group_epoch:
            msg = "the controller has ended the group"
            raise PeerLostError(msg, code="E441", where="training", fix="see the failure of another actor")
        if self._on_phase is not None:
            self._on_phase(self._task, now)

    def _prepare(self, task: TrainTask, group: Any) -> tuple[Prepared, TorchComm]:  # torch publishes no type of groups
        """Prepare the datasets that this actor has not prepared before, and agree with the group on all else."""
        from musegnn.data_store import Store
        from musegnn.training.spmd import prepare_together

        store, run = Store.open(task.store), self._folder
        return prepare_together(store, task.config, group, task.owner, run, device=self._device, known=self._known)

    def _record(self, round_: int, rows: list[dict[str, Any]]) -> None:
        self._rounds = round_
        if rows:
            self._loss = sum(row["loss"] for row in rows) / len(rows)

    def _result(self, outcome: Outcome, error: BaseException | None = None) -> TaskResult:
        from musegnn.cluster.device import is_lost

        return TaskResult(
            outcome=outcome,
            now=self._phases.now,
            error=error if isinstance(error, MuseGNNError) else None,
            message="" if error is None else f"{type(error).__name__}: {getattr(error, 'message', error)}",
            datasets=getattr(error, "datasets", ()),
            lost_device=outcome == "failed" and is_lost(self._device),
            trace="" if error is None else "".join(traceback.format_exception(error)),
        )

    @ray.method(concurrency_group="control")
    def heartbeat(self) -> Heartbeat:
        """Return the progress of this actor; answers while it works."""
        from musegnn.cluster.device import device_bytes
        from musegnn.training.torch_comm import traffic
        from musegnn.training.trainer import peak_bytes

        self._asked_at = time.monotonic()
        result = self._result_of_task  # before the rest, which is then as new as it
        trainer, task, group, now = self._trainer, self._task, self._group, self._phases.now
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
            device_bytes=device_bytes(self._device),
            thread_seconds=0.0 if self._clock is None else time.clock_gettime(self._clock),
            traffic=0 if group is None else traffic(group),
            result=result,
        )

    def _seconds_per_round(self) -> dict[str, float]:
        done = self._rounds - self._first
        return {name: spent / done for name, spent in self._phases.dataset_seconds().items()} if done > 0 else {}

    @ray.method(concurrency_group="control")
    def pause(self) -> None:
        """Stop the group at its next checkpoint."""
        self._pause.set()

    @ray.method(concurrency_group="control")
    def leave(self, group_epoch: int) -> None:
        """Leave a group, and those before it, even while waiting for other members."""
        from musegnn.training.torch_comm import leave_group

        self._left_epoch = max(self._left_epoch, group_epoch)
        task, group = self._task, self._group
        if group is not None and task is not None and task.group_epoch <= group_epoch:
            leave_group(group)

    @ray.method(concurrency_group="control")
    def unreachable(self, addresses: list[Address]) -> list[int]:
        """Return the indices of those addresses that do not answer this host."""
        from musegnn.cluster.links import Answer, ping

        return [k for k, answer in enumerate(ping(addresses)) if answer is Answer.SILENT]

    def _end_when_forgotten(self) -> None:
        while time.monotonic() - self._asked_at < FORGOTTEN_SECONDS:
            time.sleep(1.0)
        print(f"musegnn: no word of the controller for {FORGOTTEN_SECONDS:.0f} s; this actor ends", file=sys.stderr)
        sys.stderr.flush()
        os._exit(1)

    @ray.method(concurrency_group="control")
    def stacks(self) -> str:
        """Return the stack of every thread."""
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        parts = []
        for ident, frame in sys._current_frames().items():
            parts.append(f"thread {names.get(ident, ident)}\n{''.join(traceback.format_stack(frame))}")
        return "\n".join(parts)


def _address() -> str:
    address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]  # Ray publishes no type here
    return address
