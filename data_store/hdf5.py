"""Read HDF5 files from outside: what is missing, damaged, elsewhere or out of proportion is refused by one line.

Links out of the file, and arrays that declare far more than is stored, are refused before anything is allocated. What
reads groups and columns takes those of zarr as well.
"""

from __future__ import annotations

import errno
import re
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from musegnn.data_store.names import decode_names
from musegnn.data_store.validate import FROM_ANNDATA, raise_malformed
from musegnn.errors import InputError, MuseGNNError
from musegnn.text import one_line, shorten

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from musegnn.data_store.location import Location

BOMB_BYTES = 64 * 2**20
BOMB_RATIO = 1000


@contextmanager
def open_file(location: Location, *, chunk_cache: int | None = None) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading.

    Parameters
    ----------
    location
        The file.
    chunk_cache
        Bytes in which the library keeps uncompressed chunks of each array.

    Raises
    ------
    InputError
        E231 when the file is truncated, or when the HDF5 library meets damage while the file is open, which it reports
        by many types of errors; E237 when another program holds a lock on it, E238 when a filter is not installed.
    """
    fix = "copy or download the file again"
    options = {} if chunk_cache is None else {"rdcc_nbytes": chunk_cache}
    try:
        with ExitStack() as stack:
            target = stack.enter_context(location.open()) if location.is_remote else location.path
            with h5py.File(target, "r", **options) as file:
                yield file
    except MuseGNNError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError) as error:
        _raise_for_no_damage(error, location.where)
        sizes = re.search(r"eof = (\d+).*stored_eof = (\d+)", str(error))
        msg = f"damaged file ({one_line(error, 80)})"
        if sizes:
            msg = f"truncated file: it has {sizes[1]} bytes and says {sizes[2]}"
        raise InputError(msg, code="E231", where=location.where, fix=fix) from error


def _raise_for_no_damage(error: Exception, where: str) -> None:
    """Raise what the library reports of files that are whole."""
    text = str(error)
    if "unable to lock file" in text or (isinstance(error, OSError) and error.errno == errno.EAGAIN):
        msg = "the file is locked: another program has it open for writing"
        fix = "close it there or copy the file; where a file system has no locks, set HDF5_USE_FILE_LOCKING=FALSE"
        raise InputError(msg, code="E237", where=where, fix=fix) from error
    missing = re.search(r"required filter '([^']+)' is not registered|filter .*(\d{3,}).* (?:not|un)available", text)
    if missing or "filter plugin" in text or "plugin directory" in text or "can't open directory" in text:
        name = f" `{shorten(missing[1] or missing[2], 30)}`" if missing else ""
        msg = f"the data are compressed by a filter{name} of HDF5 that is not installed"
        raise InputError(msg, code="E238", where=where, fix="pip install hdf5plugin") from error


def is_group(node: object) -> bool:
    """Return whether a node of HDF5 or zarr is a group rather than an array."""
    return hasattr(node, "keys")


def names_in(group: Any) -> list[str]:
    """Return the names in a group of HDF5 or zarr, but those that are not UTF-8, which the library gives as bytes."""
    return [name for name in group if isinstance(name, str)]


def get_node(file: Any, key: str, where: str) -> Any:  # groups and arrays of HDF5 or zarr, which have no common type
    """Return what lies at a path inside a group, without following links."""
    node = file
    for part in key.split("/"):
        if isinstance(node, h5py.Group) and not isinstance(node.get(part, getlink=True), h5py.HardLink | None):
            msg = f"`{shorten(key, 40)}` is a link to another place"
            raise InputError(msg, code="E105", where=where, fix="write the data itself into the file")
        node = node.get(part) if is_group(node) else None
        if node is None:
            raise_malformed(f"`{shorten(key, 40)}` is missing", where)
    if not is_group(node):
        _refuse_bombs(node, key, where)
    return node


def _refuse_bombs(array: Any, key: str, where: str) -> None:  # an array of HDF5 or zarr
    if isinstance(array, h5py.Dataset) and (array.external or array.is_virtual):
        msg = f"`{shorten(key, 40)}` keeps its data in another file"
        raise InputError(msg, code="E105", where=where, fix="write the data itself into the file")
    declared = int(array.size or 0) * max(array.dtype.itemsize, 1)
    if declared <= BOMB_BYTES:
        return
    stored = array.id.get_storage_size() if isinstance(array, h5py.Dataset) else array.nbytes_stored()
    if declared > BOMB_RATIO * stored:
        msg = f"`{shorten(key, 40)}` declares {declared} bytes but stores {stored}"
        raise InputError(msg, code="E120", where=where, fix="write the file anew from its source")


def read_strings(group: Any, key: str, where: str) -> list[str]:  # a group of HDF5 or zarr
    """Read a column of text: plain, categorical or nullable; a missing value is the empty string.

    Raises
    ------
    InputError
        E102 for a malformed column, E240 or E241 for names that cannot be used.
    """
    label = f"{group.name.strip('/')}/{shorten(key, 30)}"
    node = get_node(group, key, where)
    if not is_group(node):
        if node.ndim != 1:
            raise_malformed(f"`{label}` is not a column", where)
        old = _old_categories(group, key, where)
        if old is not None and node.dtype.kind in "iu":
            decoded: list[str] = decode_categories(node[:], old, label, where).tolist()
            return decoded
        return decode_names(node[:].tolist(), where=where, what=label)
    if "codes" in node and "categories" in node:
        names: list[str] = _categorical(node, label, where).tolist()
        return names
    if "values" not in node or "mask" not in node:
        raise_malformed(f"`{label}` is not a column of text", where, FROM_ANNDATA)
    missing = get_node(node, "mask", where)[:].astype(bool)
    values = read_strings(node, "values", where)
    return ["" if absent else value for value, absent in zip(values, missing, strict=True)]


def index_key(group: Any) -> str:
    """Return the name of the column that holds the row names of a data frame of AnnData."""
    key = group.attrs.get("_index", "_index")
    return key.decode() if isinstance(key, bytes) else str(key)


def read_values(group: Any, key: str, where: str) -> NDArray[Any]:  # text or float64
    """Read a column in the form of :meth:`CountSource.obs`; those of AnnData before 0.8 may hold codes of categories.

    Raises
    ------
    InputError
        E102 when it is malformed, E240 or E241 for text that cannot be used.
    """
    node = get_node(group, key, where)
    old = _old_categories(group, key, where)
    if not is_group(node):
        if node.dtype.kind in "iu" and old is not None:
            return decode_categories(node[:], old, shorten(key, 30), where)
        if node.ndim == 1 and node.dtype.kind in "biuf":
            values: NDArray[Any] = node[:].astype(np.float64)
            return values
    elif "codes" in node and "categories" in node:
        return _categorical(node, shorten(key, 30), where)
    elif "values" in node and "mask" in node:
        values, absent = read_values(node, "values", where), get_node(node, "mask", where)[:].astype(np.bool_)
        if values.shape == absent.shape:
            values[absent] = np.nan if values.dtype.kind == "f" else ""
            return values
    return np.array(read_strings(group, key, where), dtype=np.str_)


def _old_categories(group: Any, key: str, where: str) -> list[str] | None:
    """Return the categories of a column of codes as AnnData before 0.8 wrote them, ``None`` for other columns."""
    old = get_node(group, "__categories", where) if "__categories" in group else None
    return read_strings(old, key, where) if old is not None and is_group(old) and key in old else None


def no_column(column: str, columns: list[str], *, where: str, table: str = "obs") -> InputError:
    """Make the error E255 for a column that does not exist, with up to five that do."""
    listed = ", ".join(shorten(key, 24) for key in columns[:5]) or "none"
    more = ", ..." if len(columns) > 5 else ""
    msg = f"there is no column `{shorten(column, 30)}` in {table} (columns: {listed}{more})"
    return InputError(msg, code="E255", where=where, fix=f"name one of the columns of {table}")


def _categorical(node: Any, label: str, where: str) -> NDArray[np.str_]:
    return decode_categories(get_node(node, "codes", where)[:], read_strings(node, "categories", where), label, where)


def decode_categories(codes: NDArray[Any], categories: list[str], label: str, where: str) -> NDArray[np.str_]:
    """Return the category of each code, the empty string for -1; E102 for codes outside the categories."""
    if codes.dtype.kind not in "iu" or (len(codes) and (codes.min() < -1 or codes.max() >= len(categories))):
        raise_malformed(f"`{label}` has codes outside its categories", where)
    # The last entry is that of the code -1.
    values: NDArray[np.str_] = np.array([*categories, ""], dtype=np.str_)[codes.astype(np.int64)]
    return values
