"""A silent host, a broken link and a folder that is not shared, on four hosts; `make hosts` plays all faults."""

from __future__ import annotations

import pytest

from tests.hosts.__main__ import environment, helpers, problem
from tests.hosts.faults import FAULTS, play
from tests.hosts.lab import Lab, why_not
from tests.hosts.plays import Cluster, make_store

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")]
SILENT_SECONDS = 12.0
NAMED_SECONDS = 15.0


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hosts")
    store, config = make_store(folder / "data", helpers(), rounds=90)
    with Lab(4, folder, env=environment()) as lab:
        cluster = Cluster(lab)
        cluster.start()
        yield cluster, folder, store, config


@pytest.mark.parametrize("name", ["hidden_run", "split", "cut"])
def test_a_fault_ends_with_the_bytes_of_one_process_or_in_one_line(laboratory, name):
    cluster, folder, store, config = laboratory
    outcome = play(name, cluster, folder / name, store, config)
    cluster.lab.restore()

    assert problem(name, outcome) == "", outcome
    if name == "split":
        assert "do not reach each other" in outcome.cause
        assert outcome.named <= NAMED_SECONDS
    if name == "cut":
        assert "sent no heartbeat" in outcome.cause
        assert outcome.seconds <= SILENT_SECONDS


def test_every_fault_has_a_title_of_its_own():
    titles = [fault.title for fault in FAULTS.values()]
    assert len(set(titles)) == len(titles)
