"""Arrays of the page as few bytes: little-endian byte planes under deflate, in text that a page can hold.

A block is ``base64(deflate(uint32 length of header | header as JSON | arrays))``. The header lists its arrays:
``name``, ``type`` (``u1``, ``u2``, ``u4`` or ``f4``) and ``size``. An array of w bytes per value is w planes, the
lowest bytes first, because equal places of numbers compress together.

Points are in Morton order: sorted by the number whose bits are those of x and y in turn. Neighbours on the map then
have near numbers, and a sorted list of places is stored as small gaps.

Legend: P points, k neighbours.
"""

from __future__ import annotations

import base64
import json
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

STEPS = 65535
COSINE_STEPS = 2000  # of .001, so that the codes of a list of cosines differ by few bits
DEFLATE_LEVEL = 6


class Packer:
    """Collects arrays and describes them in the header of a block."""

    def __init__(self) -> None:
        self._entries: list[dict[str, Any]] = []
        self._blobs: list[bytes] = []

    def add(self, name: str, values: NDArray[Any], kind: str) -> None:
        """Append an array, flat, as one of the types that the page reads."""
        array = np.ascontiguousarray(values, dtype="<" + kind).ravel()
        planes = array.view(np.uint8).reshape(-1, array.dtype.itemsize).T
        self._entries.append({"name": name, "type": kind, "size": len(array)})
        self._blobs.append(np.ascontiguousarray(planes).tobytes())

    def text(self, header: Mapping[str, Any]) -> str:
        """Return the block with a header of JSON values."""
        content = dict(header) | {"arrays": self._entries}
        head = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
        body = b"".join([len(head).to_bytes(4, "little"), head, *self._blobs])
        return base64.b64encode(zlib.compress(body, DEFLATE_LEVEL)).decode("ascii")


def place(layout: NDArray[np.floating]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Return Morton codes of coordinates (P, 2) in 16 bits each, ascending, and the points in this order."""
    low, span = (layout.min(axis=0), np.ptp(layout, axis=0)) if len(layout) else (np.zeros(2), np.zeros(2))
    steps = np.where(span > 0, STEPS / np.where(span > 0, span, 1), 0.0)
    x, y = np.round((layout - low) * steps).astype(np.uint32).T
    code = _spread(x) | (_spread(y) << np.uint32(1))
    order = np.argsort(code, kind="stable")
    return code[order], order


def _spread(bits: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Move the 16 low bits of each number to its even places."""
    for shift, mask in ((8, 0x00FF00FF), (4, 0x0F0F0F0F), (2, 0x33333333), (1, 0x55555555)):
        bits = (bits | (bits << np.uint32(shift))) & np.uint32(mask)
    return bits


def gaps(rising: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return the first value and then the differences of a sorted array."""
    wide = np.concatenate([[0], rising.astype(np.int64)])
    found: NDArray[np.int64] = wide[1:] - wide[:-1]
    return found


def zigzag(values: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return whole numbers of any sign as numbers of at least 0: 0, -1, 1, -2, ... become 0, 1, 2, 3, ..."""
    wide = values.astype(np.int64)
    return (wide << 1) ^ (wide >> 63)


def cosine_code(cosine: NDArray[np.floating]) -> NDArray[np.int64]:
    """Return cosines as whole numbers from 0 (for -1, and for unknown) to COSINE_STEPS."""
    known = np.clip(np.nan_to_num(cosine, nan=-1.0).astype(np.float64), -1.0, 1.0)
    code: NDArray[np.int64] = np.round((known + 1.0) * (COSINE_STEPS / 2)).astype(np.int64)
    return code


def falling(values: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return rows (P, k) of mostly falling numbers as the first and then the differences, which may be negative."""
    wide = values.astype(np.int64)
    return np.concatenate([wide[:, :1], wide[:, :-1] - wide[:, 1:]], axis=1)
