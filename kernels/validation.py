"""What the kernels share: the choice of an implementation, and checks of the arrays that it gets."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Block = tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]

Impl = Literal["auto", "numba", "reference"]


def resolve_impl(
    impl: str, names: Sequence[str] = ("numba", "reference"), refusals: Mapping[str, str] | None = None
) -> str:
    """Return the implementation to run; one that is named is used or refused, never replaced.

    Parameters
    ----------
    impl
        Name of an implementation, or ``auto`` for the first one that takes the call.
    names
        Implementations in the order in which ``auto`` prefers them.
    refusals
        Why an implementation does not take the call, by name, for those that do not.

    Raises
    ------
    ValueError
        For an unknown name.
    TypeError
        For a name among the refusals.
    """
    refusals = refusals or {}
    available = [name for name in names if name not in refusals]
    if impl == "auto":
        return available[0]
    if impl in refusals:
        msg = f"impl={impl!r} {refusals[impl]}; available for this call: {', '.join(available)}"
        raise TypeError(msg)
    if impl not in available:
        msg = f"impl must be auto or one of {', '.join(names)}, got {impl!r}"
        raise ValueError(msg)
    return impl


def load_impl(kernel: str, impl: str, names: Sequence[str] = ("numba", "reference")) -> Any:
    """Return the module of the implementation to run, imported at its first use; see :func:`resolve_impl`."""
    return import_module(f"musegnn.kernels.{kernel}.impl.{resolve_impl(impl, names)}")


def csr_parts(block: csr_matrix) -> Block:
    """Return the arrays of a CSR block, checked so that compiled loops stay inside memory.

    These are ``indptr`` int64, ``indices`` int32 and ``data`` int32.

    Raises
    ------
    TypeError
        When it is not CSR with int32 data.
    ValueError
        When row pointers or column indices are out of range.
    """
    if getattr(block, "format", None) != "csr" or block.data.dtype != np.int32:
        kind = f"{getattr(block, 'format', type(block).__name__)} of {getattr(block, 'dtype', 'unknown dtype')}"
        msg = f"block must be CSR with int32 data, got {kind}"
        raise TypeError(msg)
    indptr = block.indptr.astype(np.int64, copy=False)
    indices = block.indices.astype(np.int32, copy=False)
    check_array("data", block.data, indices.shape, np.int32)
    check_pointers("row pointers", indptr, len(indices))
    check_range("column indices", indices, 0, block.shape[1])
    return indptr, indices, block.data


def check_pointers(name: str, pointers: NDArray[np.integer], n_entries: int) -> None:
    """Raise ValueError unless pointers rise from 0 to the number of entries."""
    if not len(pointers) or pointers[0] != 0 or pointers[-1] != n_entries or bool((np.diff(pointers) < 0).any()):
        msg = f"{name} must rise from 0 to the number of entries ({n_entries}) without decreasing"
        raise ValueError(msg)


def check_range(name: str, values: NDArray[np.integer], lowest: int, end: int) -> None:
    """Raise ValueError unless all values are in [lowest, end)."""
    if len(values) and not (values.min() >= lowest and values.max() < end):
        msg = f"{name} must be in [{lowest}, {end}), got {values.min()} to {values.max()}"
        raise ValueError(msg)


def check_array(name: str, array: NDArray[np.generic], shape: tuple[int, ...], dtype: type[np.generic]) -> None:
    """Raise ValueError for an array of another shape, TypeError for another dtype or memory order than C."""
    if array.shape != shape:
        msg = f"{name} must have shape {shape}, got {array.shape}"
        raise ValueError(msg)
    if array.dtype != dtype or not array.flags.c_contiguous:
        msg = f"{name} must be {np.dtype(dtype)} in C order, got {array.dtype}"
        raise TypeError(msg)
