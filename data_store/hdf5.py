"""Read HDF5 files from outside: what is missing, damaged, elsewhere or out of proportion is refused by one line.

Links out of the file, and arrays that declare far more than is stored, are refused before anything is allocated.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from musegnn.data_store.names import decode_names
from musegnn.data_store.validate import FROM_ANNDATA, raise_malformed
from musegnn.errors import InputError
from musegnn.text import one_line, short_path, shorten

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
BOMB_BYTES = 64 * 2**20
BOMB_RATIO = 1000


@contextmanager
def open_file(path: Path) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading.

    Raises
    ------
    InputError
        E230 when the file is missing or something else; E231 when it is truncated, or when the HDF5 library meets
        damage while the file is open, which it reports by many types of errors.
    """
    _sniff(path)
    fix = "copy or download the file again"
    try:
        with h5py.File(path, "r") as file:
            yield file
    except InputError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError) as error:
        sizes = re.search(r"eof = (\d+).*stored_eof = (\d+)", str(error))
        msg = f"damaged file ({one_line(error, 80)})"
        if sizes:
            msg = f"truncated file: it has {sizes[1]} bytes and says {sizes[2]}"
        raise InputError(msg, code="E231", where=short_path(path), fix=fix) from error


def _sniff(path: Path) -> None:
    where = short_path(path)
    if not path.is_file():
        what = "a folder, expected a .h5ad file" if path.is_dir() else "there is no such file"
        raise InputError(what, code="E230", where=where, fix="correct `path` in the atlas file")
    with path.open("rb") as file:
        head = file.read(512)
    if head.startswith(HDF5_SIGNATURE):
        return
    known = (
        (not head, "the file is empty", "download the file again"),
        (head[:2] == b"\x1f\x8b", "a gzip file, not HDF5", "decompress it with gunzip"),
        (head[:2] == b"PK", "a zip file, not HDF5", "extract the .h5ad file from it"),
        (head.startswith(b"version https://git-lfs"), "a Git LFS pointer, not the data", "run git lfs pull"),
        (head.lstrip()[:1] == b"<", "an HTML or XML page, not HDF5", "download the file itself"),
        (head.startswith(b"%%MatrixMarket"), "a Matrix Market file", "read it with scanpy and write a .h5ad file"),
    )
    for matches, what, fix in known:
        if matches:
            raise InputError(what, code="E230", where=where, fix=fix)
    msg = "not an HDF5 file"
    raise InputError(msg, code="E230", where=where, fix="give a .h5ad file written by AnnData")


def get_node(file: h5py.Group, key: str, where: str) -> h5py.Group | h5py.Dataset:
    """Return what lies at a path inside the file, without following links."""
    node: Any = file
    for part in key.split("/"):
        if not isinstance(node, h5py.Group) or part not in node:
            raise_malformed(f"`{shorten(key, 40)}` is missing", where)
        if not isinstance(node.get(part, getlink=True), h5py.HardLink):
            msg = f"`{shorten(key, 40)}` is a link to another place"
            raise InputError(msg, code="E105", where=where, fix="write the data itself into the file")
        node = node[part]
    if isinstance(node, h5py.Dataset):
        _refuse_bombs(node, key, where)
    return node


def _refuse_bombs(dataset: h5py.Dataset, key: str, where: str) -> None:
    if dataset.external or dataset.is_virtual:
        msg = f"`{shorten(key, 40)}` keeps its data in another file"
        raise InputError(msg, code="E105", where=where, fix="write the data itself into the file")
    declared = int(dataset.size or 0) * dataset.dtype.itemsize
    stored = dataset.id.get_storage_size()
    if declared > BOMB_BYTES and declared > BOMB_RATIO * stored:
        msg = f"`{shorten(key, 40)}` declares {declared} bytes but stores {stored}"
        raise InputError(msg, code="E120", where=where, fix="write the file anew from its source")


def read_strings(group: h5py.Group, key: str, where: str) -> list[str]:
    """Read a column of text: plain, categorical or nullable; a missing value is the empty string.

    Raises
    ------
    InputError
        E102 for a malformed column, E240 or E241 for names that cannot be used.
    """
    label = f"{group.name.strip('/')}/{shorten(key, 30)}"
    node = get_node(group, key, where)
    if isinstance(node, h5py.Dataset):
        if node.ndim != 1:
            raise_malformed(f"`{label}` is not a column", where)
        return decode_names([v if isinstance(v, bytes) else str(v) for v in node[()].tolist()], where=where, what=label)
    if "codes" in node and "categories" in node:
        names: list[str] = _categorical(node, label, where).tolist()
        return names
    if "values" not in node or "mask" not in node:
        raise_malformed(f"`{label}` is not a column of text", where, FROM_ANNDATA)
    missing = get_node(node, "mask", where)[()].astype(bool)
    values = read_strings(node, "values", where)
    return ["" if absent else value for value, absent in zip(values, missing, strict=True)]


def read_index(file: h5py.File, frame: str, where: str) -> list[str]:
    """Read the row names of a data frame such as ``obs``."""
    group = get_node(file, frame, where)
    key = group.attrs.get("_index", "_index")
    return read_strings(group, key.decode() if isinstance(key, bytes) else str(key), where)


def read_column(file: h5py.File, frame: str, column: str, n_rows: int, where: str) -> NDArray[Any]:  # text or float64
    """Read a column of a data frame such as ``obs``, in the form of :meth:`CountSource.obs`.

    Raises
    ------
    InputError
        E255 when there is no such column, E102 when it is malformed, E240 or E241 for text that cannot be used.
    """
    group = get_node(file, frame, where)
    index = group.attrs.get("_index", "_index")
    columns = [key for key in group if key not in {str(index), "_index", "__categories"}]
    if column not in columns:
        raise no_column(column, columns, where=where)
    values = _read_values(group, column, where)
    if values.shape != (n_rows,):
        raise_malformed(f"`{frame}/{shorten(column, 30)}` has shape {values.shape}, expected {n_rows} rows", where)
    return values


def no_column(column: str, columns: list[str], *, where: str) -> InputError:
    """Make the error E255 for a column of cells that does not exist, with up to five that do."""
    listed = ", ".join(shorten(key, 24) for key in columns[:5]) or "none"
    more = ", ..." if len(columns) > 5 else ""
    msg = f"there is no column `{shorten(column, 30)}` in obs (columns: {listed}{more})"
    return InputError(msg, code="E255", where=where, fix="name one of the columns of obs")


def _read_values(group: h5py.Group, key: str, where: str) -> NDArray[Any]:  # text or float64
    node = get_node(group, key, where)
    old = get_node(group, "__categories", where) if "__categories" in group else None
    if isinstance(node, h5py.Dataset):
        if node.dtype.kind in "iu" and isinstance(old, h5py.Group) and key in old:
            return _decode(node[()], read_strings(old, key, where), shorten(key, 30), where)
        if node.ndim == 1 and node.dtype.kind in "biuf":
            values: NDArray[Any] = node[()].astype(np.float64)
            return values
    elif "codes" in node and "categories" in node:
        return _categorical(node, shorten(key, 30), where)
    elif "values" in node and "mask" in node:
        values, absent = _read_values(node, "values", where), get_node(node, "mask", where)[()].astype(np.bool_)
        if values.shape == absent.shape:
            values[absent] = np.nan if values.dtype.kind == "f" else ""
            return values
    return np.array(read_strings(group, key, where), dtype=np.str_)


def _categorical(node: h5py.Group, label: str, where: str) -> NDArray[np.str_]:
    return _decode(get_node(node, "codes", where)[()], read_strings(node, "categories", where), label, where)


def _decode(codes: NDArray[Any], categories: list[str], label: str, where: str) -> NDArray[np.str_]:
    if codes.dtype.kind not in "iu" or (len(codes) and (codes.min() < -1 or codes.max() >= len(categories))):
        raise_malformed(f"`{label}` has codes outside its categories", where)
    # The last entry is that of the code -1.
    values: NDArray[np.str_] = np.array([*categories, ""], dtype=np.str_)[codes.astype(np.int64)]
    return values
