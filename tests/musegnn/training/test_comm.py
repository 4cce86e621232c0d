"""One contract for every group of processes: what one process does alone is what several do together."""

from __future__ import annotations

import socket
import threading
import time
from datetime import timedelta
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import distributed

from musegnn.errors import ConfigError
from musegnn.training import torch_comm
from musegnn.training.comm import LocalComm
from musegnn.training.fixed_point import add_rounded, add_rounded_rows, scale_for, to_float
from musegnn.training.torch_comm import PeerLostError, TorchComm, claim_device, leave_group, make_group, traffic

D = 3
MEMBERS = {"shared/all": [0, 1, 2, 3, 4], "shared/even": [0, 2, 4], "shared/odd": [1, 3]}
SIZES = {"shared/all": 7, "shared/even": 4, "shared/odd": 5}


def make_round(seed, n=5):
    """Draw vectors, partners, gradients and contributions, with gaps."""
    random = np.random.default_rng(seed)
    n_genes = random.integers(1, 6, n).tolist()
    partner = {i: int(random.choice([k for k in range(n) if k != i] + [-1])) for i in range(n)}
    z = {i: torch.from_numpy(random.normal(size=(n_genes[i], D)).astype(np.float32)) for i in range(n)}
    gradients = {
        i: torch.from_numpy(random.normal(size=(n_genes[j], D)).astype(np.float32))
        for i, j in partner.items()
        if j >= 0 and random.random() < 0.7
    }
    contributions = {
        unit: {
            i: torch.from_numpy((random.normal(size=SIZES[unit]) * 10.0 ** random.integers(-8, 3)).astype(np.float32))
            for i in members
            if random.random() < 0.7
        }
        for unit, members in MEMBERS.items()
    }
    contributions = {unit: parts for unit, parts in contributions.items() if parts}
    return n_genes, partner, z, gradients, contributions


def own(mapping, owner, rank):
    return {i: value for i, value in mapping.items() if owner[i] == rank}


def equal(found, expected):
    return found.keys() == expected.keys() and all(torch.equal(found[k], expected[k]) for k in expected)


class OrderingWork:
    """A collective whose wait only orders what follows, as on a GPU: the host goes on before there is a result."""

    def __init__(self, work):
        self._work, self.is_success = work, lambda: True

    def wait(self):
        assert self._work.is_completed(), "the host reads a result that is not there yet"

    def is_completed(self):
        return self._work.is_completed()


class OrderingGroup:
    """A gloo group in the place of one of NCCL."""

    def __init__(self, group):
        self._group = group
        self.rank, self.size = group.rank, group.size

    def __getattr__(self, name):
        collective = getattr(self._group, name)
        return lambda *arguments: OrderingWork(collective(*arguments))


def make_comm(group, owner, n_genes, *, orders):
    comm = TorchComm(OrderingGroup(group) if orders else group, owner, n_genes, D)
    comm._polls = orders  # as on a GPU
    return comm


@pytest.mark.parametrize("orders", [False, True])
@pytest.mark.parametrize("owner", [[0] * 5, [0, 1, 0, 1, 0], [2, 0, 1, 1, 2], [3, 2, 1, 0, 3], [0, 1, 2, 3, 4]])
def test_several_processes_do_what_one_does(in_ranks, owner, orders):
    alone = LocalComm()
    rounds = [make_round(seed) for seed in range(12)]

    def work(rank, group):
        found = []
        for n_genes, partner, z, gradients, contributions in rounds:
            comm = make_comm(group, owner, n_genes, orders=orders)
            vectors = comm.exchange(own(z, owner, rank), partner)()
            returned = comm.return_gradients(own(gradients, owner, rank), partner)()
            mine = {unit: own(parts, owner, rank) for unit, parts in contributions.items()}
            found.append((vectors, returned, comm.reduce(mine, MEMBERS, [])))
        return found

    results = in_ranks(max(owner) + 1, work)

    for k, (_, partner, z, gradients, contributions) in enumerate(rounds):
        vectors, returned = alone.exchange(z, partner)(), alone.return_gradients(gradients, partner)()
        sums = alone.reduce(contributions, MEMBERS, []).sums
        for rank, found in enumerate(results):
            mine = {i for i, o in enumerate(owner) if o == rank}
            assert equal(found[k][0], {j: vectors[j] for j in {partner[i] for i in mine} if j >= 0})
            assert equal(found[k][1], {i: g for i, g in returned.items() if partner[i] in mine})
            units = {unit: total for unit, total in sums.items() if mine & set(MEMBERS[unit])}
            assert equal(found[k][2].sums, units)
            assert found[k][2].objections == []


def test_a_wait_that_only_orders_ends_when_the_group_is_aborted():
    aborted = threading.Event()
    work = SimpleNamespace(is_completed=aborted.is_set, is_success=lambda: False, wait=lambda: None)
    group = SimpleNamespace(rank=lambda: 0, size=lambda: 2, allreduce=lambda *_: work)
    comm = make_comm(group, [0, 1], [1, 1], orders=True)
    comm._group = group
    threading.Timer(0.05, aborted.set).start()
    with pytest.raises(PeerLostError, match=r"E441.*the sum of shared gradients \(the group was aborted\)"):
        comm.add_up(torch.zeros(3, dtype=torch.int64))


class FakeStore(dict):
    """A key-value store of one process."""

    def set(self, key, value):
        self[key] = value.encode()


def test_two_ranks_on_one_gpu_are_refused():
    store = FakeStore()
    for rank, gpu in enumerate(["h GPU-a", "h GPU-b", "k GPU-a"]):
        store.set(f"device-{rank}", gpu)
    for rank, gpu in enumerate(["h GPU-a", "h GPU-b", "k GPU-a"]):
        claim_device(store, rank, 3, gpu)
    store.set("device-2", "h GPU-a")
    with pytest.raises(ConfigError, match=r"E309.*ranks 0 and 2 use one GPU \(h GPU-a\)"):
        claim_device(store, 0, 3, "h GPU-a")


def test_an_objection_of_one_stops_all_and_names_its_datasets(in_ranks):
    _, _, _, _, contributions = make_round(3)
    contributions["shared/all"][0][2] = torch.nan
    owner = [1, 0, 1, 0, 2]

    def work(rank, group):
        comm = TorchComm(group, owner, [1] * 5, D)
        mine = {unit: own(parts, owner, rank) for unit, parts in contributions.items()}
        return comm.reduce(mine, MEMBERS, [4, 0] if rank == 2 else [0] if rank == 1 else [])

    for found in in_ranks(3, work):
        assert found.objections == [0, 4]
        assert not found.sums
    assert LocalComm().reduce(contributions, MEMBERS, {4, 0}).objections == [0, 4]


def test_records_come_in_order_of_rank(in_ranks):
    found = in_ranks(3, lambda rank, group: TorchComm(group, [0, 1, 2], [1] * 3, D).gather([{"rank": rank}] * rank))

    assert found == [[{"rank": 1}, {"rank": 2}, {"rank": 2}]] * 3
    assert LocalComm().gather([{"a": 1}]) == [{"a": 1}]


def test_vectors_wanted_twice_by_one_process_travel_once(in_ranks):
    n_genes = [4, 2, 2]
    partner = {0: -1, 1: 0, 2: 0}
    z = {i: torch.ones(n, D) for i, n in enumerate(n_genes)}

    def work(rank, group):
        comm = TorchComm(group, [0, 1, 1], n_genes, D)
        comm.exchange(own(z, [0, 1, 1], rank), partner)()
        return comm.sent

    assert in_ranks(2, work) == [4 * D * 4, 0]


def test_vectors_of_the_past_may_be_sent_and_received_ones_do_not_change(in_ranks):
    """What is sent is a copy of the moment: later changes of it do not travel."""

    def work(rank, group):
        comm = TorchComm(group, [0, 1], [2, 2], D)
        z = torch.full((2, D), float(rank))
        receive = comm.exchange({rank: z}, {0: 1, 1: 0})
        z.fill_(9.0)
        return receive()[1 - rank]

    found = in_ranks(2, work)
    assert torch.equal(found[0], torch.ones(2, D))
    assert torch.equal(found[1], torch.zeros(2, D))


def test_a_process_that_leaves_is_noticed_by_those_who_wait_for_it():
    store, errors = distributed.HashStore(), {}
    left = threading.Event()

    def work(rank):
        group = make_group(store, rank, 3)
        comm = TorchComm(group, [0, 1, 2], [1] * 3, D)
        if rank == 2:
            del comm, group
            left.set()
            return
        left.wait(20)
        try:
            comm.exchange({rank: torch.zeros(1, D)}, {0: 2, 1: 0, 2: 1})()
            comm.reduce({}, MEMBERS, [])
        except PeerLostError as error:
            errors[rank] = error
            del comm, group

    threads = [threading.Thread(target=work, args=(rank,), daemon=True) for rank in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not any(thread.is_alive() for thread in threads)
    assert errors.keys() == {0, 1}
    assert all(error.code == "E441" for error in errors.values())


def test_joining_alone_ends_with_an_error(monkeypatch):
    monkeypatch.setattr("musegnn.training.torch_comm.JOIN_TIMEOUT", timedelta(seconds=1))
    store = distributed.HashStore()
    store.set_timeout(timedelta(seconds=1))

    with pytest.raises(PeerLostError, match="E441"):
        make_group(store, 0, 2)


parts = st.lists(st.lists(st.floats(-1e30, 1e30), min_size=3, max_size=3), min_size=1, max_size=9)


@given(parts, st.randoms(use_true_random=False))
@settings(max_examples=300, deadline=None)
def test_a_fixed_point_sum_has_no_order_and_is_exact_to_many_digits(values, random):
    tensors = [torch.tensor(v, dtype=torch.float32) for v in values]
    most = max(t.abs().max().item() for t in tensors)
    scale = scale_for(most, len(tensors))
    sums = []
    for order in (tensors, random.sample(tensors, len(tensors))):
        total = torch.zeros(3, dtype=torch.int64)
        add_rounded(order, scale, total)
        sums.append(to_float(total, scale, torch.float64))

    assert torch.equal(*sums)
    for k, found in enumerate(sums[0].tolist()):
        exact = sum(Fraction(t[k].item()) for t in tensors)
        bound = len(tensors) ** 2 * Fraction(most) / 2**60 + abs(exact) / 2**52
        assert abs(Fraction(found) - exact) <= bound


@given(
    st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=20),
    st.randoms(use_true_random=False),
    st.floats(1e-3, 1e12),
)
@settings(max_examples=200, deadline=None)
def test_rows_are_added_with_the_same_bits_as_tables(values, random, largest):
    part = np.array(values)[:, None] * np.array([1.0, -0.5, largest / 1e3])
    rows = np.array(random.sample(range(30), len(values)))
    scale = scale_for(largest, 7)
    total, expected = np.ones((30, 3), np.int64), torch.ones((30, 3), dtype=torch.int64)

    add_rounded_rows(part, scale, rows, total)
    some = expected[rows]
    add_rounded([torch.from_numpy(part)], scale, some)
    expected[rows] = some

    assert (total == expected.numpy()).all()


@pytest.mark.parametrize("n", [1, 2, 3, 1024, 10_000])
@pytest.mark.parametrize("most", [1.0, 0.999, 3.4e38, 1e-45, 2.0**-126])
def test_a_fixed_point_sum_does_not_overflow(n, most):
    largest = torch.tensor([most, -most], dtype=torch.float32)
    scale = scale_for(largest.max().item(), n)
    one = torch.zeros(2, dtype=torch.int64)
    add_rounded([largest], scale, one)

    assert abs(int(one[0])) * n <= 2**62
    assert abs(int(one[0])) >= 2**40
    assert torch.equal(to_float(one, scale, torch.float32), largest)


def test_a_group_that_one_leaves_breaks_for_all_who_wait_at_once():
    """Without a word of the one that they wait for, who does nothing for a minute."""
    store, seconds = distributed.HashStore(), {}
    joined = threading.Barrier(4)
    over = threading.Event()

    def work(rank):
        group = make_group(store, rank, 3)
        comm = TorchComm(group, [0, 1, 2], [1] * 3, D)
        joined.wait(60)
        if rank == 2:
            over.wait(60)
            return
        if rank == 0:
            threading.Timer(0.5, leave_group, [group]).start()
        began = time.monotonic()
        with pytest.raises(PeerLostError, match="E441"):
            comm.gather([])
        seconds[rank] = time.monotonic() - began

    threads = [threading.Thread(target=work, args=(rank,), daemon=True) for rank in range(3)]
    for thread in threads:
        thread.start()
    joined.wait(60)
    for thread in threads[:2]:
        thread.join(timeout=30)
    over.set()
    threads[2].join(timeout=30)
    assert seconds.keys() == {0, 1}
    assert max(seconds.values()) < 5


@pytest.mark.skipif(not hasattr(socket, "TCP_INFO"), reason="the system does not count bytes of connections")
def test_traffic_counts_what_members_send_and_stands_still_while_all_wait(in_ranks):
    """A sum of n bytes sends and receives at least n bytes each in every member of two."""

    def work(rank, group):
        before = traffic(group)
        group.allreduce([torch.zeros(10**6, dtype=torch.uint8)], distributed.AllreduceOptions()).wait()
        group.barrier().wait()
        time.sleep(0.3)
        after = traffic(group)
        time.sleep(0.3)
        return after - before, traffic(group) - after

    for grown, later in in_ranks(2, work):
        assert grown >= 10**6
        assert later == 0


def test_connections_to_members_end_after_seconds_of_silence(in_ranks):
    """The system asks members that say nothing once per second, and gives up on those that do not answer."""

    def work(rank, group):
        return [
            (
                each.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
                each.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
                each.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
            )
            for each in torch_comm._sockets[group]._connections()
        ]

    for found in in_ranks(3, work):
        assert len(found) >= 2
        assert set(found) == {(1, 1, 7000)}
