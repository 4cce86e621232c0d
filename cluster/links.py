"""Links between hosts: which addresses answer, and whom to leave out where two hosts do not reach each other.

A process that is alive says nothing of the network between two others. So each actor has a listener that others try
to connect to. The system accepts connections for a process that is busy or frozen, so an answer is about the host
and the network alone.
"""

from __future__ import annotations

import errno
import selectors
import socket
import threading
import time
from contextlib import ExitStack, suppress
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    Address = tuple[str, int]

PING_SECONDS = 2.5
"""Seconds for a connection, in which the system asks twice."""


class Answer(StrEnum):
    """Outcome of a try to connect: accepted, refused by a host on which nobody listens, or nothing."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    SILENT = "silent"


class PingListener:
    """A listener on one interface for as long as the process lives; ``port`` is its port."""

    def __init__(self, host: str) -> None:
        self._socket = socket.create_server((host, 0), backlog=128)
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, name="musegnn-ping", daemon=True).start()

    def _accept(self) -> None:
        while True:
            with suppress(OSError):
                self._socket.accept()[0].close()


def ping(addresses: Sequence[Address], seconds: float = PING_SECONDS) -> list[Answer]:
    """Try to connect to all addresses at the same time, and return how each one answered."""
    answers = [Answer.SILENT] * len(addresses)
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        for k, address in enumerate(addresses):
            trying = stack.enter_context(socket.socket())
            trying.settimeout(0.0)
            code = trying.connect_ex(address)
            if code == errno.EINPROGRESS:
                selector.register(trying, selectors.EVENT_WRITE, k)
            else:
                answers[k] = _answer(code)
        until = time.monotonic() + seconds
        left = seconds
        while selector.get_map() and left > 0:
            left = until - time.monotonic()  # a last look where this process did not run for long
            for key, _ in selector.select(max(left, 0.0)):
                trying = key.fileobj  # type: ignore[assignment]  # it was registered above
                answers[key.data] = _answer(trying.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
                selector.unregister(trying)
    return answers


def _answer(code: int) -> Answer:
    return {0: Answer.ACCEPTED, errno.ECONNREFUSED: Answer.REFUSED}.get(code, Answer.SILENT)


def fewest_to_leave_out(broken: Iterable[tuple[int, int]]) -> list[int]:
    """Return ranks without which no broken link is left: the one with most broken links first, of equal ones the last.

    Examples
    --------
    >>> fewest_to_leave_out([(0, 2), (1, 2), (0, 3)])
    [2, 3]
    """
    left, out = set(broken), []
    while left:
        ends = [rank for pair in left for rank in pair]
        worst = max(set(ends), key=lambda rank: (ends.count(rank), rank))
        out.append(worst)
        left = {pair for pair in left if worst not in pair}
    return out
