"""How the loops of edge attention are compiled.

Numba counts references to arrays with atomic operations wherever they are passed, which costs more than the edges of
a short row. Functions compiled here do not count, and so cannot allocate.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from numba import njit

if TYPE_CHECKING:
    from collections.abc import Callable

Function = TypeVar("Function", bound="Callable[..., Any]")

# Any: numba's published types do not know all options.
_INLINED: dict[str, Any] = {"_nrt": False, "forceinline": True}
_KERNEL: dict[str, Any] = {"_nrt": False, "nogil": True, "cache": True}


def inlined(function: Function) -> Function:
    """Compile a function as a part of whatever kernel calls it."""
    compiled: Function = njit(**_INLINED)(function)
    return compiled


def kernel(function: Function) -> Function:
    """Compile a kernel that releases the interpreter lock, or load what an earlier process compiled.

    Its arrays live in Python for as long as it runs.
    """
    compiled: Function = njit(**_KERNEL)(function)
    return compiled


@cache
def sources() -> str:
    """Return a digest of the code that is compiled into the kernels.

    Numba watches the file of a cached function, not the files of what it calls. What a closure holds is part of the
    cache's key, so a kernel names this digest.
    """
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
