"""A bad cable between two network interfaces: ``cable.py A B LOSS_PERCENT DELAY_MS MBIT``, until it is terminated.

It forwards every Ethernet frame, late and not faster than it may, and loses some. Frames keep the header in which the
sender leaves checksums and segmentation to its interface.
"""

from __future__ import annotations

import heapq
import random
import selectors
import socket
import sys
import time

SOL_PACKET, PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING, ETH_P_ALL = 263, 15, 23, 3
LARGEST = 1 << 17


def attach(name: str) -> socket.socket:
    found = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    found.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    found.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 23)
    found.bind((name, 0))
    found.settimeout(0.0)
    return found


def forward(one: str, other: str, loss: float, delay: float, mbit: float) -> None:
    ends = attach(one), attach(other)
    draw, count = random.Random(1), 0
    free = [0.0, 0.0]  # when the last frame in each direction has left
    due: list[tuple[float, int, int, bytes]] = []
    selector = selectors.DefaultSelector()
    for k, end in enumerate(ends):
        selector.register(end, selectors.EVENT_READ, k)
    while True:
        for key, _ in selector.select(max(0.0, due[0][0] - time.monotonic()) if due else None):
            try:
                frame = ends[key.data].recv(LARGEST)
            except OSError:  # the interface was down for a moment
                continue
            if draw.random() * 100 < loss:
                continue
            now = time.monotonic()
            free[key.data] = max(free[key.data], now) + (len(frame) * 8e-6 / mbit if mbit else 0.0)
            count += 1
            heapq.heappush(due, (free[key.data] + delay * 1e-3, count, 1 - key.data, frame))
        while due and due[0][0] <= time.monotonic():
            _, _, target, frame = heapq.heappop(due)
            try:
                ends[target].send(frame)
            except OSError:
                continue


if __name__ == "__main__":
    forward(sys.argv[1], sys.argv[2], *map(float, sys.argv[3:6]))
