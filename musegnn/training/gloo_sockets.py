"""The TCP sockets of a gloo group in this process: limits for silence, and a way to leave that interrupts waiting.

gloo has neither: who waits for a host that has gone silent waits until the timeout of the group, and ``abort`` of a
gloo group does nothing. Both are properties of its sockets, which this process can reach by their file descriptors.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SILENT_SECONDS = 7
"""Silence of a connected host after which the system closes the connection."""
LARGEST_PAUSE = 44, 1000
"""Option of Linux 6.15 and later, TCP_RTO_MAX_MS: at most 1 s between two tries to send, so that a connection goes on
soon after a short silence. Else tries are up to 3.2 s apart."""

BYTES_AT = 120
"""Place of `tcpi_bytes_acked` and `tcpi_bytes_received` in `struct tcp_info` of Linux 4.1 and later."""

_making = threading.Lock()
_KEEPALIVE = (("TCP_KEEPIDLE", 1), ("TCP_KEEPINTVL", 1), ("TCP_KEEPCNT", SILENT_SECONDS))


class GlooSockets:
    """Sockets of one member of a group, between its listener and those of other members.

    Parameters
    ----------
    make_device
        Function that makes the gloo device of the member, which is :attr:`device`.
    """

    def __init__(self, make_device: Callable[[], Any]) -> None:  # torch publishes no type for devices
        with _making:  # so that the listener which appears is that of this device
            before = set(_listeners())
            self.device = make_device()
            mine = set(_listeners()) - before
        self._mine, self._others = mine, set[tuple[str, int]]()

    def meet(self, store: Any, rank: int, size: int) -> None:  # torch publishes no type for stores
        """Learn the listeners of all members, through the store of the group, and limit the silence of each.

        All members call this, once they have joined.
        """
        store.set(f"listener-{rank}", " ".join(f"{host}|{port}" for host, port in sorted(self._mine)))
        for other in range(size):
            if other != rank:
                for text in store.get(f"listener-{other}").decode().split():
                    host, _, port = text.partition("|")
                    self._others.add((host, int(port)))
        for connection in self._connections():
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in _KEEPALIVE:
                if hasattr(socket, name):
                    connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENT_SECONDS * 1000)
            with suppress(OSError):
                connection.setsockopt(socket.IPPROTO_TCP, *LARGEST_PAUSE)

    def shut_down(self) -> None:
        """Shut down all connections: who waits in gloo, here or at the other end, gets an error at once."""
        for connection in self._connections():
            with suppress(OSError):  # the other end was faster
                connection.shutdown(socket.SHUT_RDWR)

    def traffic(self) -> int:
        """Return the bytes acknowledged and received over all connections; 0 where the system does not count them."""
        total = 0
        for connection in self._connections():
            with suppress(OSError, AttributeError, struct.error):
                found = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 136)
                total += sum(struct.unpack_from("QQ", found, BYTES_AT))
        return total

    def _connections(self) -> Iterator[socket.socket]:
        for each in _sockets():
            with suppress(OSError):  # not connected, as a listener is not
                there = each.getpeername()[:2]
                if there in self._others or each.getsockname()[:2] in self._mine:
                    yield each


def _listeners() -> Iterator[tuple[str, int]]:
    for each in _sockets():
        with suppress(OSError):
            if each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                yield each.getsockname()[:2]


def _sockets() -> Iterator[socket.socket]:
    """Open every internet stream socket of this process a second time, for the moment."""
    for entry in Path("/proc/self/fd").glob("*"):
        try:
            if not str(entry.readlink()).startswith("socket:"):
                continue
            found = socket.socket(fileno=os.dup(int(entry.name)))
        except OSError:  # closed meanwhile
            continue
        with found:
            if found.family in {socket.AF_INET, socket.AF_INET6} and found.type == socket.SOCK_STREAM:
                yield found
