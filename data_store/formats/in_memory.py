"""An AnnData object in memory as a container: the columns, matrices and coordinates of the file that it would be.

Legend: C cells, G genes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from musegnn.data_store.blocks import windows
from musegnn.data_store.formats.anndata_groups import PREFERRED_LAYERS
from musegnn.data_store.formats.arrays import DENSE_SLICE_BYTES, SAMPLE, compress
from musegnn.data_store.hdf5 import no_column
from musegnn.data_store.names import decode_names
from musegnn.data_store.validate import raise_malformed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData
    from numpy.typing import NDArray

    from musegnn.data_store.formats.container import Access, Matrix, Part, Table
    from musegnn.data_store.location import Location

WRITABLE = {"string", "empty", "boolean", "categorical"}
"""Kinds of columns of objects that a file can hold."""


class MemoryContainer:
    """One AnnData object; messages call it `where`."""

    format = "AnnData in memory"
    id_column = None

    def __init__(self, adata: AnnData, where: str) -> None:
        self._adata, self._where = adata, where
        self.files: list[Location] = []

    def matrices(self) -> dict[str, tuple[int, int]]:
        """Return the shapes of all matrices; see :meth:`Container.matrices`."""
        adata = self._adata
        shapes = {} if adata.raw is None else {"raw": adata.raw.shape}
        shapes |= dict.fromkeys(adata.layers, adata.shape) | ({} if adata.X is None else {"X": adata.shape})
        order = {name: i for i, name in enumerate(PREFERRED_LAYERS)}
        return {name: shapes[name] for name in sorted(shapes, key=lambda n: order.get(n, len(order) + (n == "X")))}

    def matrix(self, layer: str) -> Matrix:
        """Return a matrix; one by columns is turned into rows."""
        adata = self._adata
        is_raw = layer == "raw" and "raw" not in adata.layers
        held = adata.X if layer == "X" else adata.raw.X if is_raw else adata.layers[layer]
        if np.dtype(held.dtype).kind not in "biuf":
            raise_malformed(f"`{layer}` holds {held.dtype}, expected numbers", self._where)
        return MemoryMatrix(held)

    def cells(self) -> Table:
        """Return ``obs``."""
        return _FrameTable(self._adata.obs, self._where, "obs")

    def genes(self, layer: str) -> Table:
        """Return ``var``, that of ``raw`` for its matrix."""
        is_raw = layer == "raw" and "raw" not in self._adata.layers
        return _FrameTable(self._adata.raw.var if is_raw else self._adata.var, self._where, "var")

    def coordinates(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the matrices in ``obsm``."""
        return {key: tuple(map(int, self._adata.obsm[key].shape)) for key in self._adata.obsm}

    def read_coordinates(self, key: str) -> NDArray[Any]:
        """Return a matrix of ``obsm``."""
        return np.asarray(self._adata.obsm[key])


class MemoryMatrix:
    """A matrix of cells x genes in memory: sparse, dense, or dask, whose blocks are computed as they are read."""

    def __init__(self, held: Any) -> None:
        self._held = held.tocsr() if sp.issparse(held) and held.format != "csr" else held
        self.shape: tuple[int, int] = (int(held.shape[0]), int(held.shape[1]))
        self.access: Access = "rows"
        self.n_entries: int | None = int(self._held.nnz) if sp.issparse(held) else None
        self.lengths: NDArray[np.int64] | None = np.diff(self._held.indptr) if sp.issparse(held) else None
        self.storage = f"{'csr' if sp.issparse(held) else 'dense'}, {held.dtype}, in memory"

    def rows(self, first: int, last: int, rows: int) -> Iterator[Part]:
        """Copy rows; see :meth:`Matrix.rows`."""
        held = self._held
        if sp.issparse(held):
            indptr = held.indptr[first : last + 1].astype(np.int64)
            for a, b in windows(indptr, rows):
                inside = slice(int(indptr[a]), int(indptr[b]))
                yield first + a, indptr[a : b + 1] - indptr[a], held.indices[inside].copy(), held.data[inside].copy()
            return
        step = max(1, min(rows, DENSE_SLICE_BYTES // max(1, self.shape[1] * held.dtype.itemsize)))
        for start in range(first, last, step):
            part = held[start : min(start + step, last)]
            part = part.compute() if hasattr(part, "compute") else part
            yield (start, *compress(part.toarray() if sp.issparse(part) else np.asarray(part)))

    def sample(self) -> NDArray[Any]:
        """Return some of the values."""
        if sp.issparse(self._held):
            data: NDArray[Any] = self._held.data
            return np.concatenate([data[:SAMPLE], data[-SAMPLE:]])
        (_, _, _, values) = next(self.rows(0, min(self.shape[0], max(1, SAMPLE // max(1, self.shape[1]))), SAMPLE))
        return values

    def transposed(self) -> MemoryMatrix:
        """Return the matrix with rows and columns turned."""
        return MemoryMatrix(self._held.T)


class _FrameTable:
    """A data frame, with the columns that a file can hold."""

    def __init__(self, frame: pd.DataFrame, where: str, label: str) -> None:
        self._frame, self._where, self._label = frame, where, label

    def names(self) -> list[str]:
        return decode_names(self._frame.index.astype(str).tolist(), where=self._where, what=self._label)

    def columns(self) -> list[str]:
        return [str(name) for name, kind in self._frame.dtypes.items() if kind.kind != "O" or self._is_writable(name)]

    def values(self, column: str) -> NDArray[Any]:  # text or float64
        if column not in self.columns():
            raise no_column(column, self.columns(), where=self._where, table=self._label)
        values = self._frame[column]
        missing = values.isna().to_numpy()
        if pd.api.types.is_numeric_dtype(values.dtype) or pd.api.types.is_bool_dtype(values.dtype):
            return values.to_numpy(dtype=np.float64, na_value=np.nan)
        if pd.api.types.infer_dtype(values, skipna=True) == "boolean" and values.dtype == object:
            return values.astype("boolean").to_numpy(dtype=np.float64, na_value=np.nan)
        text = values.astype(object).where(~missing, "").to_numpy()
        names = decode_names([str(value) for value in text], where=self._where, what=column)
        return np.array(names, dtype=np.str_)

    def n_labels(self, column: str) -> int | None:
        values = self._frame[column]
        return len(values.cat.categories) if isinstance(values.dtype, pd.CategoricalDtype) else None

    def _is_writable(self, column: Any) -> bool:
        return pd.api.types.infer_dtype(self._frame[column], skipna=True) in WRITABLE
