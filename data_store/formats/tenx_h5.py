"""Matrices of Cell Ranger and Space Ranger in HDF5, of version 2 (a group per genome) and 3 (``matrix``)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from musegnn.data_store.formats.arrays import CompressedMatrix
from musegnn.data_store.formats.container import ColumnTable
from musegnn.data_store.hdf5 import get_node, is_group, names_in, read_strings, read_values
from musegnn.data_store.validate import raise_malformed
from musegnn.errors import InputError
from musegnn.text import shorten, some_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from musegnn.data_store.formats.container import Matrix, Table
    from musegnn.data_store.location import Location

COLUMNS = {"id": "gene_ids", "feature_type": "feature_types", "genome": "genome", "interval": "interval"}
"""Names of the columns of features, as scanpy calls them."""


def genomes_of(root: Any) -> list[str]:
    """Return the groups of an HDF5 file that are matrices of version 2."""
    parts = {"barcodes", "genes", "data", "indices", "indptr"}
    return sorted(key for key in names_in(root) if is_group(root.get(key)) and parts <= set(root[key]))


class TenxContainer:
    """A feature-barcode matrix in HDF5.

    Parameters
    ----------
    root
        The file.
    genome
        Group of a file of version 2; needed where it has several.
    location
        The file.

    Raises
    ------
    InputError
        E222 when a genome has to be chosen, or there is no such one.
    """

    id_column = "gene_ids"

    def __init__(self, root: Any, genome: str | None, location: Location) -> None:
        self.files = [location]
        where = self._where = location.where
        self.format = "10x h5"
        key = "matrix"
        if "matrix" not in root:
            self.format = "10x h5, version 2"
            genomes = genomes_of(root)
            if genome is None and len(genomes) > 1:
                msg = f"holds a matrix for each genome: {some_of([shorten(g, 20) for g in genomes])}"
                raise InputError(msg, code="E222", where=where, fix=f"choose one: `mod: {genomes[0]}`")
            key = genomes[0] if genome is None else genome
            if key not in genomes:
                msg = f"there is no genome {shorten(key, 30)!r} (genomes: {some_of(genomes)})"
                raise InputError(msg, code="E222", where=where, fix=f"choose one: `mod: {genomes[0]}`")
        self._group = get_node(root, key, where)
        shape = get_node(self._group, "shape", where)[:]
        if shape.shape != (2,) or shape.dtype.kind not in "iu":
            raise_malformed("`shape` does not hold two numbers", where)
        self._shape = (int(shape[1]), int(shape[0]))

    def matrices(self) -> dict[str, tuple[int, int]]:
        """Return the shape of the one matrix."""
        return {"X": self._shape}

    def matrix(self, layer: str) -> Matrix:
        """Open the matrix, which is compressed by cells."""
        del layer
        return CompressedMatrix(self._group, self._shape, by_column=False, where=self._where, label="matrix")

    def cells(self) -> Table:
        """Return the barcodes."""
        return ColumnTable(read_strings(self._group, "barcodes", self._where), {}, self._where)

    def genes(self, layer: str) -> Table:
        """Return the features."""
        del layer
        group, where = self._group, self._where
        if "features" not in group:
            names = "gene_names" if "gene_names" in group else "genes"
            return ColumnTable(
                read_strings(group, names, where), {"gene_ids": partial(read_values, group, "genes", where)}, where
            )
        features = get_node(group, "features", where)
        columns = {name: partial(read_values, features, key, where) for key, name in COLUMNS.items() if key in features}
        return ColumnTable(read_strings(features, "name", where), columns, where)

    def coordinates(self) -> dict[str, tuple[int, ...]]:
        """Return nothing: coordinates are in other files."""
        return {}

    def read_coordinates(self, key: str) -> NDArray[Any]:
        """Return nothing."""
        del key
        return np.zeros((0, 2))
