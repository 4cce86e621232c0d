"""A group of processes on ``torch.distributed``: gloo between CPUs, NCCL between GPUs.

The group is an object of its own, not torch's global default: after a failure the living processes drop it and make
the next one, with a new name in the same key-value store, without leaving their memory or their devices.

NCCL has not been run by this project. What it does otherwise is covered by tests with gloo in its place: its waits only
order the work of the GPU, so the host polls until a collective has ended or was aborted; and a GPU holds one rank.

Legend: P processes, T datasets, N genes of a dataset, d dimensions of the embedding, U shared units of the atlas.
"""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import distributed

from musegnn.errors import ConfigError, RunError
from musegnn.training.comm import Reduction, largest, read_numbers
from musegnn.training.fixed_point import add_rounded, scale_for, to_float
from musegnn.training.gloo_sockets import GlooSockets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from musegnn.training.comm import Contributions, Vectors

Backend = Literal["gloo", "nccl"]
POLL_SECONDS = 0.0005
NCCL_SETTINGS = {"TORCH_NCCL_ASYNC_ERROR_HANDLING": "2", "TORCH_NCCL_ENABLE_MONITORING": "0"}
"""Environment of a process that outlives its group: a broken communicator is aborted, and the process goes on."""
TIMEOUT = timedelta(minutes=30)  # a peer that is alive but slow is no failure; one that is silent is, see gloo_sockets
JOIN_TIMEOUT = timedelta(seconds=20)
JOINING = "joining the group"


_sockets: WeakKeyDictionary[Any, GlooSockets] = WeakKeyDictionary()
"""Sockets of the gloo groups of this process."""


class PeerLostError(RunError):
    """Another process of the group is gone, or has left it."""


@contextmanager
def rendezvous(host: str) -> Iterator[tuple[str, int]]:
    """Offer a key-value store for :func:`find_members` on one interface and no other; yield its host and port."""
    kinds: Any = distributed  # torch publishes no types for stores
    with socket.socket() as listener:
        listener.bind((host, 0))
        listener.listen(1024)
        port = listener.getsockname()[1]
        store = kinds.TCPStore(
            host,
            port,
            is_master=True,
            timeout=JOIN_TIMEOUT,
            wait_for_workers=False,
            master_listen_fd=os.dup(listener.fileno()),
        )
        yield host, port
        del store


def find_members(host: str, port: int, name: str) -> Any:  # torch publishes no types for stores
    """Connect to the store of a :func:`rendezvous`, under a name that no other group has.

    Raises
    ------
    PeerLostError
        E441 when there is no answer within 20 seconds.
    """
    kinds: Any = distributed  # as above
    try:
        return kinds.PrefixStore(name, kinds.TCPStore(host, port, is_master=False, timeout=JOIN_TIMEOUT))
    except RuntimeError as error:
        raise _lost(JOINING, error) from error


def make_group(
    store: Any, rank: int, size: int, *, backend: Backend = "gloo", host: str = "127.0.0.1"
) -> Any:  # torch publishes no types for stores and backends
    """Join a group of processes; returns when all have. Leave it by :func:`leave_group`, from any thread.

    Parameters
    ----------
    store
        Store in which the members find one another; groups that follow one another need other prefixes.
    host
        Address or name of the interface on which gloo listens.

    Raises
    ------
    PeerLostError
        E441 when not all have joined within 20 seconds.
    """
    kinds: Any = distributed  # as above
    try:
        if backend == "nccl":
            torch.cuda.set_device(torch.cuda.current_device())  # barriers take the device that is bound
            claim_device(store, rank, size, f"{socket.gethostname()} {_device_id()}")
            options = kinds.ProcessGroupNCCL.Options()
            options._timeout = TIMEOUT
            group = kinds.ProcessGroupNCCL(store, rank, size, options)
            _join(group.barrier())
        else:
            options = kinds.ProcessGroupGloo._Options()
            sockets = GlooSockets(lambda: kinds.ProcessGroupGloo.create_device(hostname=host))
            options._devices = [sockets.device]
            options._timeout = JOIN_TIMEOUT
            group = kinds.ProcessGroupGloo(store, rank, size, options)
            group.barrier().wait()
            sockets.meet(store, rank, size)
            _sockets[group] = sockets
            group._set_default_timeout(TIMEOUT)
    except RuntimeError as error:
        raise _lost(JOINING, error) from error
    return group


def claim_device(store: Any, rank: int, size: int, device: str) -> None:  # torch publishes no type for stores
    """Announce the GPU of a rank to all members, and refuse one that two ranks use: NCCL would fail with it, or hang.

    Raises
    ------
    ConfigError
        E309 naming the two ranks and the GPU.
    """
    store.set(f"device-{rank}", device)
    found = [store.get(f"device-{other}").decode() for other in range(size)]
    first, last = found.index(device), size - 1 - found[::-1].index(device)
    if first != last:
        msg = f"ranks {first} and {last} use one GPU ({device}), and NCCL needs one per rank"
        raise ConfigError(msg, code="E309", where="device", fix="start fewer processes, or bind each to its own GPU")


def _join(work: Any) -> None:  # torch publishes no type for works
    """Wait for a barrier whose wait only orders the work of a GPU."""
    until = time.monotonic() + JOIN_TIMEOUT.total_seconds()
    while not work.is_completed():
        if time.monotonic() > until:
            msg = f"not all have joined within {JOIN_TIMEOUT.total_seconds():.0f} s"
            raise RuntimeError(msg)
        time.sleep(POLL_SECONDS)


def _device_id() -> str:
    about = torch.cuda.get_device_properties(torch.cuda.current_device())
    return str(getattr(about, "uuid", torch.cuda.current_device()))


def leave_group(group: Any) -> None:  # torch publishes no type for backends
    """Leave a group at once: whoever waits for it, in any of its processes, gets an error."""
    if group in _sockets:
        _sockets[group].shut_down()
    else:
        group.abort()


def traffic(group: Any) -> int:  # torch publishes no type for backends
    """Return the bytes that have gone over the connections of a gloo group, in both directions; 0 for NCCL."""
    return _sockets[group].traffic() if group in _sockets else 0


class TorchComm:
    """Communication over a process group, with the same bits for any number of processes and any placement.

    `owner` and `n_genes`, shapes (T,), are the rank that owns each dataset and its N; `dim` is d.
    """

    def __init__(
        self,
        group: Any,  # torch publishes no type for backends
        owner: Sequence[int],
        n_genes: Sequence[int],
        dim: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.rank: int = group.rank()
        self.size: int = group.size()
        self.sent = 0
        self._group = group
        self._owner, self._n_genes, self._dim = list(owner), list(n_genes), dim
        self._dtype, self._device = dtype, torch.device(device)
        self._polls = self._device.type == "cuda"

    def exchange(self, z: Mapping[int, torch.Tensor], partner: Mapping[int, int]) -> Callable[[], Vectors]:
        """Send the vectors of each dataset once to every process that compares with it."""
        wanted = self._wanted(partner)
        outgoing = [[z[j].reshape(-1) for j in wanted[rank][self.rank]] for rank in range(self.size)]
        incoming = [wanted[self.rank][rank] for rank in range(self.size)]
        counts = [sum(self._n_genes[j] for j in js) * self._dim for js in incoming]
        receive = self._all_to_all(outgoing, counts, "the exchange of vectors")

        def found() -> Vectors:
            vectors = {j: z[j] for j in {partner[i] for i in z} if j in z}
            for js, part in zip(incoming, receive(), strict=True):
                for j, piece in zip(js, torch.split(part, [self._n_genes[j] * self._dim for j in js]), strict=True):
                    vectors[j] = piece.view(self._n_genes[j], self._dim)
            return vectors

        return found

    def return_gradients(
        self, gradients: Mapping[int, torch.Tensor], partner: Mapping[int, int]
    ) -> Callable[[], Vectors]:
        """Send each gradient to the owner of the partner, behind a number that says whether there is one."""
        subjects = [i for i, j in sorted(partner.items()) if j >= 0]
        places = [
            [
                [i for i in subjects if self._owner[i] == source and self._owner[partner[i]] == target]
                for target in range(self.size)
            ]
            for source in range(self.size)
        ]
        outgoing = [
            [
                part
                for i in ([] if rank == self.rank else places[self.rank][rank])
                for part in self._marked(gradients, i, partner)
            ]
            for rank in range(self.size)
        ]
        incoming = [[] if rank == self.rank else places[rank][self.rank] for rank in range(self.size)]
        counts = [sum(1 + self._n_genes[partner[i]] * self._dim for i in part) for part in incoming]
        receive = self._all_to_all(outgoing, counts, "the return of gradients")

        def found() -> Vectors:
            returned = {i: g for i, g in gradients.items() if self._owner[partner[i]] == self.rank}
            pieces: dict[int, torch.Tensor] = {}
            for subjects, part in zip(incoming, receive(), strict=True):
                sizes = [1 + self._n_genes[partner[i]] * self._dim for i in subjects]
                pieces |= zip(subjects, torch.split(part, sizes), strict=True)
            marks = read_numbers([piece[0] for piece in pieces.values()])
            for (i, piece), mark in zip(pieces.items(), marks, strict=True):
                if mark:
                    returned[i] = piece[1:].view(self._n_genes[partner[i]], self._dim)
            return returned

        return found

    def reduce(
        self, contributions: Contributions, members: Mapping[str, Sequence[int]], objections: Iterable[int]
    ) -> Reduction:
        """Agree on the step and on a common scale by one all-reduce, then add integers by another."""
        mine, units = sorted(objections), sorted(members)
        agreed = self._agree(contributions, units, objects=bool(mine))
        if agreed.objected:
            every = self.gather([{"dataset": i} for i in mine])
            return Reduction({}, sorted({int(row["dataset"]) for row in every}))
        units = [unit for unit in units if agreed.sizes[unit]]
        sizes = [agreed.sizes[unit] for unit in units]
        scales = {unit: scale_for(agreed.largest[unit], len(members[unit])) for unit in units}
        total = torch.zeros(sum(sizes), dtype=torch.int64, device=self._device)
        places = dict(zip(units, torch.split(total, sizes), strict=True))
        for unit, parts in contributions.items():
            add_rounded(parts.values(), scales[unit], places[unit])
        if self.size > 1:
            self._all_reduce(total, distributed.ReduceOp.SUM)
        here = [unit for unit in units if self.rank in {self._owner[i] for i in members[unit]}]
        return Reduction({unit: to_float(places[unit], scales[unit], self._dtype) for unit in here}, [])

    def add_up(self, total: torch.Tensor) -> torch.Tensor:
        """Return the sum over all processes of an int64 tensor, which it overwrites."""
        if self.size > 1:
            self._all_reduce(total, distributed.ReduceOp.SUM)
        return total

    def gather(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Gather JSON records of all processes in order of rank."""
        text = torch.frombuffer(bytearray(json.dumps(list(rows)).encode()), dtype=torch.uint8).to(self._device)
        lengths = [torch.zeros(1, dtype=torch.int64, device=self._device) for _ in range(self.size)]
        self._wait(
            lambda: self._group.allgather([lengths], [torch.tensor([text.numel()], device=self._device)]), "a report"
        )
        longest = max(int(n.item()) for n in lengths)
        padded = torch.zeros(longest, dtype=torch.uint8, device=self._device)
        padded[: text.numel()] = text
        parts = [torch.zeros_like(padded) for _ in range(self.size)]
        self._wait(lambda: self._group.allgather([parts], [padded]), "a report")
        self.sent += (self.size - 1) * (8 + longest)
        return [
            row
            for n, part in zip(lengths, parts, strict=True)
            for row in json.loads(part[: int(n)].cpu().numpy().tobytes())
        ]

    def _wanted(self, partner: Mapping[int, int]) -> list[list[list[int]]]:
        """List the datasets whose vectors each process (first index) needs of each other one (second), ascending."""
        wanted: list[list[set[int]]] = [[set() for _ in range(self.size)] for _ in range(self.size)]
        for i, j in partner.items():
            if j >= 0 and self._owner[i] != self._owner[j]:
                wanted[self._owner[i]][self._owner[j]].add(j)
        return [[sorted(js) for js in row] for row in wanted]

    def _marked(self, gradients: Mapping[int, torch.Tensor], i: int, partner: Mapping[int, int]) -> list[torch.Tensor]:
        gradient = gradients.get(i)
        size = self._n_genes[partner[i]] * self._dim
        mark = torch.full((1,), float(gradient is not None), dtype=self._dtype, device=self._device)
        empty = torch.zeros(size, dtype=self._dtype, device=self._device)
        return [mark, empty if gradient is None else gradient.reshape(-1)]

    def _all_to_all(
        self, outgoing: Sequence[Sequence[torch.Tensor]], counts: Sequence[int], what: str
    ) -> Callable[[], Sequence[torch.Tensor]]:
        """Begin to send a list of tensors to each rank; the result waits for the numbers that each rank sent."""
        flat = [part for parts in outgoing for part in parts]
        sizes = [sum(part.numel() for part in parts) for parts in outgoing]
        self.sent += sum(sizes) * self._dtype.itemsize
        nothing = torch.empty(0, dtype=self._dtype, device=self._device)
        send = torch.cat(flat) if flat else nothing
        received = torch.empty(sum(counts), dtype=self._dtype, device=self._device)
        work = self._start(lambda: self._group.alltoall_base(received, send, list(counts), sizes), what)

        def receive() -> Sequence[torch.Tensor]:
            assert send is not None  # held until all has been sent
            self._finish(work, what)
            return torch.split(received, list(counts))

        return receive

    def _agree(self, contributions: Contributions, units: Sequence[str], *, objects: bool) -> _Agreement:
        """Take the maximum over processes of who objects and of each unit's largest gradient and size."""
        mine = {} if objects else contributions
        sizes = [max((part.numel() for part in mine.get(unit, {}).values()), default=0) for unit in units]
        found = torch.tensor([float(objects), *sizes, *[0.0] * len(units)], dtype=torch.float64, device=self._device)
        for k, unit in enumerate(units, 1 + len(units)):
            if mine.get(unit):
                found[k] = largest(mine[unit].values())
        if self.size > 1:
            self._all_reduce(found, distributed.ReduceOp.MAX)
        objected, *numbers = found.tolist()
        return _Agreement(
            bool(objected),
            dict(zip(units, numbers[len(units) :], strict=True)),
            dict(zip(units, map(int, numbers[: len(units)]), strict=True)),
        )

    def _all_reduce(self, tensor: torch.Tensor, how: Any) -> None:  # torch publishes no type for operations
        options = distributed.AllreduceOptions()
        options.reduceOp = how
        self.sent += 2 * (self.size - 1) * tensor.numel() * tensor.itemsize // self.size
        self._wait(lambda: self._group.allreduce([tensor], options), "the sum of shared gradients")

    def _wait(self, start: Callable[[], Any], what: str) -> None:  # torch publishes no type for works
        self._finish(self._start(start, what), what)

    def _start(self, start: Callable[[], Any], what: str) -> Any:  # as above
        try:
            return start()
        except RuntimeError as error:
            raise _lost(what, error) from error

    def _finish(self, work: Any, what: str) -> None:  # as above
        """Wait until a collective has ended; raise when another process is lost or the group was aborted."""
        try:
            while self._polls and not work.is_completed():
                time.sleep(POLL_SECONDS)
            work.wait()
            if self._polls and not work.is_success():
                raise _lost(what, RuntimeError("the group was aborted"))
        except RuntimeError as error:
            raise _lost(what, error) from error


class _Agreement:
    def __init__(self, objected: bool, largest: dict[str, float], sizes: dict[str, int]) -> None:  # noqa: FBT001
        self.objected, self.largest, self.sizes = objected, largest, sizes


def _lost(what: str, error: Exception) -> PeerLostError:
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    msg = f"another process of the group was lost during {what} ({first})"
    return PeerLostError(msg, code="E441", where="training", fix="look for the error of the process that failed first")
