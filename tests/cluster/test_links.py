"""Which addresses answer, and who is left out where two do not reach each other."""

from __future__ import annotations

import socket
import time

import pytest

from musegnn.cluster.links import Answer, PingListener, fewest_to_leave_out, ping


def test_a_listener_answers_and_a_port_without_one_refuses():
    listener = PingListener("127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as gone:
        closed = gone.getsockname()
    found = ping([("127.0.0.1", listener.port), closed, ("127.0.0.1", listener.port)], 5.0)
    assert found == [Answer.ACCEPTED, Answer.REFUSED, Answer.ACCEPTED]


def test_silence_takes_no_longer_than_asked():
    """A full backlog drops what comes next, as a cut cable does."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        fillers = []
        for _ in range(8):
            each = socket.socket()
            each.settimeout(0.0)
            each.connect_ex(full.getsockname())
            fillers.append(each)
        time.sleep(0.2)
        began = time.monotonic()
        assert ping([full.getsockname()] * 3, 0.5) == [Answer.SILENT] * 3
        assert time.monotonic() - began < 3.0
        for each in fillers:
            each.close()


@pytest.mark.parametrize(
    ("broken", "out"),
    [
        ([], []),
        ([(0, 1)], [1]),
        ([(0, 1), (0, 2)], [0]),
        ([(0, 1), (2, 3)], [3, 1]),
        ([(0, 2), (1, 2), (0, 3)], [2, 3]),
    ],
)
def test_the_fewest_are_left_out(broken, out):
    assert fewest_to_leave_out(broken) == out
