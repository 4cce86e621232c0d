"""Coordinates beside a matrix: ``tissue_positions`` of Space Ranger, ``cells`` of Xenium."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from musegnn.data_store.formats.container import ColumnTable
from musegnn.data_store.formats.text_files import open_text, read_lines, split_lines
from musegnn.data_store.names import decode_names
from musegnn.errors import InputError
from musegnn.text import one_line, some_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from musegnn.data_store.formats.container import Container, Matrix, Table
    from musegnn.data_store.location import Location

POSITIONS = re.compile(r"(?P<prefix>.*?)tissue_positions(?:_list)?\.(?:csv|parquet)(?:\.gz)?\Z")
XENIUM_MATRIX = "cell_feature_matrix"
XENIUM = re.compile(r"cells\.(?:parquet|csv\.gz|csv)\Z")
VISIUM_COLUMNS = ("barcode", "in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres")
KINDS = {
    "barcode": ("pxl_col_in_fullres", "pxl_row_in_fullres"),
    "cell_id": ("x_centroid", "y_centroid"),
}
"""Column of names, and those of x and y, as other readers take them."""


def find_positions(matrix: Location) -> Location | None:
    """Return the table of positions beside a matrix or its folder, or in ``spatial`` there; ``None`` without one.

    Raises
    ------
    InputError
        E233 when there are several.
    """
    around = [matrix.parent]
    if "_bc_matri" in matrix.parent.name or matrix.parent.name == XENIUM_MATRIX:
        around.append(matrix.parent.parent)
    for place in around:
        names = place.children()
        below = place / "spatial"
        inside = [below / name for name in below.children()] if "spatial" in names else []
        found = [file for file in [*inside, *(place / name for name in names)] if POSITIONS.match(file.name)]
        if not found and {XENIUM_MATRIX, f"{XENIUM_MATRIX}.h5"} & set(names):
            found = [place / name for name in sorted(names, reverse=True) if XENIUM.match(name)][:1]
        own = [file for file in found if (prefix := _prefix(file)) and matrix.name.startswith(prefix)]
        found = own or found
        if len({re.sub(r"\.(csv|parquet)(\.gz)?\Z", "", file.name) for file in found}) > 1:
            msg = f"several tables of positions ({some_of([file.name for file in found])})"
            raise InputError(msg, code="E233", where=matrix.where, fix="keep the files of one slide in a folder")
        if found:
            return found[0]
    return None


def _prefix(file: Location) -> str:
    match = POSITIONS.match(file.name)
    return match["prefix"] if match else ""


class PlacedContainer:
    """A container whose cells have positions in another file: the columns of that file, and ``spatial``."""

    def __init__(self, container: Container, positions: Location) -> None:
        self._container, self._positions = container, positions
        self.format, self.id_column = f"{container.format} with positions", container.id_column
        self.files = [*container.files, positions]
        self._columns: dict[str, NDArray[Any]] | None = None

    def matrices(self) -> dict[str, tuple[int, int]]:
        """Return the shapes of all matrices."""
        return self._container.matrices()

    def matrix(self, layer: str) -> Matrix:
        """Open a matrix."""
        return self._container.matrix(layer)

    def genes(self, layer: str) -> Table:
        """Return the table of genes."""
        return self._container.genes(layer)

    def cells(self) -> Table:
        """Return the table of cells, with the columns of their positions."""
        cells = self._container.cells()
        columns = {name: lambda name=name: cells.values(name) for name in cells.columns()}
        columns |= {name: lambda name=name: self._joined()[name] for name in self._read()}
        return ColumnTable(cells.names(), columns, self._positions.where)

    def coordinates(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of ``spatial``."""
        return {"spatial": (len(self._container.cells().names()), 2)} | self._container.coordinates()

    def read_coordinates(self, key: str) -> NDArray[Any]:
        """Return x and y of each cell, NaN where it is not in the table."""
        if key != "spatial":
            return self._container.read_coordinates(key)
        columns = self._joined()
        x, y = next(xy for name, xy in KINDS.items() if name in self._read())
        return np.stack([columns[x], columns[y]], axis=1)

    def _read(self) -> dict[str, NDArray[Any]]:
        if self._columns is None:
            self._columns = _read_positions(self._positions)
        return self._columns

    def _joined(self) -> dict[str, NDArray[Any]]:
        """Return the columns in the order of the cells of the matrix."""
        columns = self._read()
        key = next(name for name in KINDS if name in columns)
        place = {name: i for i, name in enumerate(columns[key].tolist())}
        rows = np.array([place.get(name, -1) for name in self._container.cells().names()], dtype=np.int64)
        if (rows < 0).all():
            msg = "no barcode of the matrix is in the table of positions"
            raise InputError(msg, code="E260", where=self._positions.where, fix="give the files of one slide")
        joined = {}
        for name, values in columns.items():
            missing: Any = np.nan if values.dtype.kind == "f" else ""
            joined[name] = np.append(values, np.array([missing], dtype=values.dtype))[rows]
        return joined


def _read_positions(location: Location) -> dict[str, NDArray[Any]]:
    columns = _read_parquet(location) if location.name.endswith(".parquet") else _read_csv(location)
    kind = next((name for name in KINDS if name in columns), None)
    if kind is None or not all(key in columns and columns[key].dtype.kind == "f" for key in KINDS[kind]):
        msg = f"not a table of positions (columns: {some_of(list(columns), 6)})"
        raise InputError(msg, code="E260", where=location.where, fix="copy the table of Space Ranger again")
    return columns


def _read_csv(location: Location) -> dict[str, NDArray[Any]]:
    rows = split_lines(read_lines(location))
    header = list(VISIUM_COLUMNS)
    if rows and not rows[0][1].replace(".", "").isdigit():  # Space Ranger before 2.0 writes no header
        header, rows = [name.strip() for name in rows[0]], rows[1:]
    found: dict[str, NDArray[Any]] = {}
    for place, name in enumerate(header):
        values = [row[place] if place < len(row) else "" for row in rows]
        try:
            found[name] = np.array([float(value) if value else np.nan for value in values])
        except ValueError:
            found[name] = np.array(values, dtype=np.str_)
    for name in KINDS:
        if name in found:
            found[name] = np.array([row[header.index(name)] for row in rows], dtype=np.str_)
    return found


def _read_parquet(location: Location) -> dict[str, NDArray[Any]]:
    import pyarrow as pa
    from pyarrow import parquet

    with open_text(location) as file:
        raw = file.read()
    try:
        table = parquet.read_table(io.BytesIO(raw))
        columns = {name: table.column(name).to_numpy(zero_copy_only=False) for name in table.column_names}
    except (pa.ArrowException, OSError, ValueError) as error:  # the library reports damage by each of them
        msg = f"a damaged Parquet file ({one_line(error, 60)})"
        raise InputError(msg, code="E231", where=location.where, fix="copy the file again") from None
    found: dict[str, NDArray[Any]] = {}
    for name, values in columns.items():
        if values.dtype.kind in "biuf" and name not in KINDS:
            found[name] = values.astype(np.float64)
        else:
            found[name] = np.array(decode_names(values.tolist(), where=location.where, what=name), dtype=np.str_)
    return found
