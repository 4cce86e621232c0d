"""Run the tasks of graph builds with dask: on threads, on a dask cluster, or on Ray.

Every scheduler sees the same dask graph of independent tasks. A task leaves its result in a file, so that tasks can
run anywhere that sees the files, in any order and more than once, without changing a bit of the outcome.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from concurrent.futures import Future, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol
from uuid import uuid4

from dask.base import compute
from dask.delayed import delayed
from threadpoolctl import threadpool_limits

from musegnn.cluster.ray_session import ray_session
from musegnn.coexpression.tasks import Task, complete, run_here
from musegnn.coexpression.warm_up import warm_up
from musegnn.errors import ConfigError, GraphError, MissingDependencyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from musegnn.coexpression.tasks import Runner

SCHEDULERS = ("threads", "synchronous", "distributed", "ray")
POLL_SECONDS = 0.1
SMALL = (str, bytes, int, float, bool, type(None))


@dataclass(frozen=True, slots=True)
class Workers:
    """Scheduler that is ready to run tasks.

    Attributes
    ----------
    run
        Function that runs the tasks of one stage.
    count, per_process
        Number of tasks that run at a time, and of those within one process, which share its memory.
    stop
        Event; when it is set, no further task begins, and `run` raises :class:`StoppedError` within about a task.
    """

    run: Runner
    count: int
    per_process: int
    stop: threading.Event


class StoppedError(Exception):
    """Error of a build that was stopped."""


class _Get(Protocol):
    """Interface of a dask scheduler."""

    def __call__(self, dsk: Any, keys: Any, **kwargs: Any) -> Any:  # dask publishes no types
        """Compute keys of a graph."""


def check_scheduler(scheduler: str) -> None:
    """Refuse a scheduler that does not exist: ``ConfigError`` E302."""
    if scheduler not in SCHEDULERS and "://" not in scheduler:
        msg = f"there is no scheduler {scheduler!r}"
        fix = f"use {', '.join(SCHEDULERS)} or the address of a dask scheduler (tcp://host:port)"
        raise ConfigError(msg, code="E302", where="scheduler", fix=fix)


@contextmanager
def open_workers(scheduler: str) -> Iterator[Workers]:
    """Open a scheduler, yield it ready to run tasks, and close what was started for it.

    Parameters
    ----------
    scheduler
        ``threads``: this process, one thread per core; ``synchronous``: one task after the other, for debugging;
        ``distributed``: a dask cluster of processes on this machine; ``tcp://host:port``: a running dask cluster;
        ``ray``: the Ray cluster that ``RAY_ADDRESS`` names, else one on this machine.
    """
    check_scheduler(scheduler)
    stop = threading.Event()
    if scheduler == "synchronous":
        opened = _synchronous(stop)
    elif scheduler == "threads":
        opened = _threads(stop)
    elif scheduler == "ray":
        opened = _ray(stop)
    else:
        opened = _distributed(None if scheduler == "distributed" else scheduler, stop)
    with opened as workers:
        try:
            yield workers
        except BaseException:
            stop.set()
            raise


def expected_workers(scheduler: str) -> tuple[int, int]:
    """Return the tasks that will run at a time, and those in one process, without starting the scheduler."""
    if scheduler == "synchronous":
        return 1, 1
    return cores(), cores() if scheduler == "threads" else 1


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


@contextmanager
def _synchronous(stop: threading.Event) -> Iterator[Workers]:
    def run(tasks: Sequence[Task], done: Callable[[Task], None]) -> None:
        for task in tasks:
            _check(stop)
            run_here([task], done)

    with threadpool_limits(limits=1, user_api="blas"):
        yield Workers(run, 1, 1, stop)


@contextmanager
def _threads(stop: threading.Event) -> Iterator[Workers]:
    from concurrent.futures import ThreadPoolExecutor

    from dask.threaded import get

    # Set here, because libraries take the limit of one controlling thread only, and it has to outlast all tasks.
    warm_up()
    with threadpool_limits(limits=1, user_api="blas"), ThreadPoolExecutor(cores()) as pool:
        yield Workers(_dask_runner(partial(get, pool=pool), stop, remote=False), cores(), cores(), stop)


@contextmanager
def _distributed(address: str | None, stop: threading.Event) -> Iterator[Workers]:
    from distributed import Client, LocalCluster

    with ExitStack() as stack:
        place: Any = address  # distributed publishes no types
        if address is None:
            stack.enter_context(_only_errors("distributed"))
            with _without_main():
                place = LocalCluster(  # type: ignore[no-untyped-call]  # as above
                    n_workers=cores(),
                    threads_per_worker=1,
                    dashboard_address=None,
                    host="127.0.0.1",
                    scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
                    silence_logs=logging.ERROR,
                )
            stack.callback(place.close)
        try:
            client = stack.enter_context(Client(place, set_as_default=False))  # type: ignore[no-untyped-call]  # as above
        except OSError as error:
            msg = f"no dask scheduler answers at {address} ({type(error).__name__})"
            raise ConfigError(msg, code="E305", where="scheduler", fix="check the address, and that it runs") from error
        if address is None:
            client.register_worker_callbacks(setup=_leave_stopping_to_the_client)
        threads = list(client.nthreads().values())
        run = _dask_runner(client.get, stop, remote=True)
        yield Workers(_explained(run), max(sum(threads), 1), max(threads, default=1), stop)


@contextmanager
def _without_main() -> Iterator[None]:
    """Keep new processes from running the user's script again, which may have no main guard; tasks need none of it."""
    main = sys.modules["__main__"]
    hidden = {name: vars(main)[name] for name in ("__file__", "__spec__") if name in vars(main)}
    for name in hidden:
        setattr(main, name, None)
    try:
        yield
    finally:
        for name, value in hidden.items():
            setattr(main, name, value)


def _leave_stopping_to_the_client() -> None:
    """Leave Ctrl-C, which a terminal sends to all processes, to the one that builds, and end without a message.

    A worker whose heartbeat finds the scheduler closed prints a traceback. What fails in a task goes to the client.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.getLogger("distributed.worker").setLevel(logging.CRITICAL)


@contextmanager
def _only_errors(name: str) -> Iterator[None]:
    """Limit a logger and those below it to errors."""
    known = [logging.getLogger(n) for n in [name, *logging.root.manager.loggerDict] if f"{n}.".startswith(f"{name}.")]
    levels = [logger.level for logger in known]
    for logger in known:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(known, levels, strict=True):
            logger.setLevel(level)


def _explained(run: Runner) -> Runner:
    """Raise a GraphError when workers of a dask cluster are lost."""
    from concurrent.futures import CancelledError

    from distributed import KilledWorker
    from distributed.comm.core import CommClosedError

    def explained(tasks: Sequence[Task], done: Callable[[Task], None]) -> None:
        try:
            run(tasks, done)
        except (KilledWorker, CommClosedError, CancelledError, TimeoutError) as error:
            msg = f"workers of the dask cluster died, probably of memory ({type(error).__name__})"
            fix = "give less --memory or fewer workers, and run the same command again to go on"
            raise GraphError(msg, code="E276", where="scheduler", fix=fix) from error

    return explained


@contextmanager
def _ray(stop: threading.Event) -> Iterator[Workers]:
    with ray_session(None, cpus=cores()) as ray:
        try:
            from ray.util.dask import ray_dask_get
        except ImportError as error:
            msg = f"Ray cannot run dask's tasks ({error})"
            raise MissingDependencyError(msg, code="E430", fix="pip install ray pyarrow") from None
        resources = ray.cluster_resources()
        count = max(int(resources.get("CPU", 1)), 1)
        yield Workers(_dask_runner(ray_dask_get, stop, remote=True), count, 1, stop)


def _dask_runner(get: _Get, stop: threading.Event, *, remote: bool) -> Runner:
    """Run stages by a scheduler of dask.

    Tasks in this process look for `stop` themselves. Those elsewhere are left to their cluster, which drops what has
    not begun when it is closed or its client leaves.
    """

    def run(tasks: Sequence[Task], done: Callable[[Task], None]) -> None:
        slim, shared = _without_shared(tasks)
        # A scheduler that several builds share takes what has the same key for the same.
        run_id = uuid4().hex
        leaves = [delayed(v, name=f"musegnn-shared-{run_id}-{k}", traverse=False) for k, v in enumerate(shared)]
        sealed = [delayed(_Sealed(t), name=f"musegnn-task-{run_id}-{k}", traverse=False) for k, t in enumerate(slim)]
        job = delayed(_complete, pure=False, traverse=False)
        jobs = [job(task, None if remote else stop, *leaves) for task in sealed]
        _check(stop)
        with _watched(tasks, done):
            start = partial(compute, *jobs, scheduler=get, optimize_graph=False)
            if remote:
                _wait(start, stop)
            else:
                start()

    return run


def _check(stop: threading.Event) -> None:
    if stop.is_set():
        raise StoppedError


def _wait(function: Callable[[], object], stop: threading.Event) -> None:
    """Call a function in a thread of its own and wait for its end, or until told to stop."""
    call: Future[object] = Future()

    def work() -> None:
        try:
            call.set_result(function())
        except BaseException as error:
            call.set_exception(error)

    threading.Thread(target=work, name="musegnn-build-stage", daemon=True).start()
    while not wait([call], timeout=POLL_SECONDS).done:
        _check(stop)
    call.result()


class _Sealed:
    """Task that dask does not look into."""

    def __init__(self, task: Task) -> None:
        self.task = task


@dataclass(frozen=True, slots=True)
class _Shared:
    """Place of an argument that many tasks have in common."""

    place: int


def _without_shared(tasks: Sequence[Task]) -> tuple[list[Task], list[Any]]:  # whatever functions take
    """Take arguments that several tasks have in common out of them, so that each worker gets these once."""
    seen: dict[int, int] = {}
    for task in tasks:
        for value in task.arguments:
            if not isinstance(value, SMALL):
                seen[id(value)] = seen.get(id(value), 0) + 1
    shared: list[Any] = []  # whatever functions take
    places: dict[int, _Shared] = {}
    slim = []
    for task in tasks:
        arguments = []
        for value in task.arguments:
            if seen.get(id(value), 0) < 2:
                arguments.append(value)
                continue
            if id(value) not in places:
                places[id(value)] = _Shared(len(shared))
                shared.append(value)
            arguments.append(places[id(value)])
        slim.append(replace(task, arguments=tuple(arguments)))
    return slim, shared


def _complete(sealed: _Sealed, stop: threading.Event | None, *shared: Any) -> None:  # whatever functions take
    """Complete a task; `stop` is ``None`` in processes that do not have it."""
    if stop is None:
        _hold_blas()
    else:
        _check(stop)
    task = sealed.task
    arguments = tuple(shared[value.place] if isinstance(value, _Shared) else value for value in task.arguments)
    complete(replace(task, arguments=arguments))


_blas_limit: list[threadpool_limits] = []


def _hold_blas() -> None:
    """Limit BLAS to one thread in a worker process for as long as it lives."""
    if not _blas_limit:
        _blas_limit.append(threadpool_limits(limits=1, user_api="blas"))


@contextmanager
def _watched(tasks: Sequence[Task], done: Callable[[Task], None]) -> Iterator[None]:
    """Report tasks as their files appear."""
    waiting = list(tasks)
    stop = threading.Event()

    def sweep() -> None:
        for task in [task for task in waiting if task.path.exists()]:
            waiting.remove(task)
            done(task)

    def watch() -> None:
        while not stop.wait(POLL_SECONDS):
            sweep()

    watcher = threading.Thread(target=watch, name="musegnn-build-progress", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join()
    sweep()
    if waiting:
        msg = f"{len(waiting)} tasks left no result in {waiting[0].path.parent}"
        fix = "make sure that all workers see the folder of the store under the same path"
        raise GraphError(msg, code="E275", where="scheduler", fix=fix)
