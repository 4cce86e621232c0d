"""Which format a file or folder has, by its content, and opening it as a container."""

from __future__ import annotations

import gzip
import importlib.util
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from musegnn.data_store.formats.anndata_groups import AnnDataContainer, choose_part
from musegnn.data_store.formats.container import TransposedContainer
from musegnn.data_store.formats.loom import LoomContainer
from musegnn.data_store.formats.tenx_h5 import TenxContainer, genomes_of
from musegnn.data_store.hdf5 import open_file
from musegnn.data_store.hdf5_probe import probe_hdf5
from musegnn.errors import InputError, MuseGNNError
from musegnn.text import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from musegnn.data_store.formats.container import Container
    from musegnn.data_store.location import Location

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
ZARR_FILES = ("zarr.json", ".zgroup", ".zattrs", ".zmetadata")
WRITE_H5AD = "write a .h5ad file from it"
R_FIX = 'in R: zellkonverter::writeH5AD(as.SingleCellExperiment(x), "x.h5ad"), or DropletUtils::write10xCounts'
FOREIGN = (
    (b"PK\x03\x04", "a zip file", "extract it and name what is in it"),
    (b"BZh", "a bzip2 file", "decompress it with bunzip2"),
    (b"\xfd7zXZ", "an xz file", "decompress it with unxz"),
    (b"version https://git-lfs", "a Git LFS pointer, not the data", "run git lfs pull"),
    (b"RDX", "an R file", R_FIX),
    (b"X\n\x00\x00\x00", "an R file", R_FIX),
    (b"PAR1", "a Parquet file", WRITE_H5AD),
    (b"\x93NUMPY", "a numpy file", WRITE_H5AD),
)
SUFFIXES = {(".rds", ".rda", ".rdata", ".qs"): ("an R file", R_FIX)}


@contextmanager
def open_container(location: Location, *, mod: str | None = None, transpose: bool = False) -> Iterator[Container]:
    """Open a file or folder with counts, whatever its format.

    Parameters
    ----------
    location
        The file or folder.
    mod
        Modality of MuData, table of SpatialData or genome of 10x version 2, where there are several.
    transpose
        Whether the matrix is genes x cells.

    Raises
    ------
    InputError
        E222 when `mod` does not choose one, E230 for what is no matrix of counts, E231 for damage.
    """
    with _open(location, mod) as container:
        yield TransposedContainer(container) if transpose else container


@contextmanager
def _open(location: Location, mod: str | None) -> Iterator[Container]:
    if not location.exists():
        msg = "there is no such file"
        raise InputError(msg, code="E230", where=location.where, fix="correct `path` in the atlas file")
    if location.is_folder():
        names = location.children()
        if not any(name in ZARR_FILES for name in names):
            msg = "a folder that is neither zarr nor of Cell Ranger or Space Ranger"
            raise InputError(msg, code="E230", where=location.where, fix="name the folder that holds the matrix")
        with _zarr(location) as root:
            part, kind = choose_part(root, mod, location.where)
            yield AnnDataContainer(part, f"{kind or 'AnnData'} zarr", location)
        return
    head = location.head()
    if not head.startswith(HDF5_SIGNATURE):
        _refuse(head, location)
    if importlib.util.find_spec("hdf5plugin") is not None:
        importlib.import_module("hdf5plugin")  # registers the filters of which some files are made
    if not location.is_remote:
        probe_hdf5(Path(location.text))
    with open_file(location) as file:
        yield _in_hdf5(file, mod, location)


def _in_hdf5(file: Any, mod: str | None, location: Location) -> Container:  # h5py publishes no types
    where = location.where
    if "row_attrs" in file and "col_attrs" in file:
        return LoomContainer(file, location)
    if ("matrix" in file and "barcodes" in file["matrix"]) or ("obs" not in file and genomes_of(file)):
        return TenxContainer(file, mod, location)
    if "assays" in file and "obs" not in file:
        msg = "an h5Seurat file"
        raise InputError(msg, code="E230", where=where, fix='in R: SeuratDisk::Convert("x.h5seurat", dest = "h5ad")')
    part, kind = choose_part(file, mod, where)
    return AnnDataContainer(part, kind or "h5ad", location)


@contextmanager
def _zarr(location: Location) -> Iterator[Any]:
    import zarr

    if not location.is_remote:
        location.files()  # refuses links out of the folder
    try:
        yield zarr.open_group(location.text, mode="r")
    except MuseGNNError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError) as error:
        msg = f"damaged zarr ({type(error).__name__}: {one_line(error, 80)})"
        raise InputError(msg, code="E231", where=location.where, fix="copy or download the folder again") from error


def _refuse(head: bytes, location: Location) -> NoReturn:
    where = location.where
    if not head:
        msg = "the file is empty"
        raise InputError(msg, code="E230", where=where, fix="download the file again")
    for suffixes, (what, fix) in SUFFIXES.items():
        if location.name.lower().endswith(suffixes):
            msg = f"{what}, which is not read"
            raise InputError(msg, code="E230", where=where, fix=fix)
    inside = b""
    if head[:2] == b"\x1f\x8b":
        try:
            with location.open() as file, gzip.open(file) as unpacked:
                inside = unpacked.read(512)
        except (OSError, EOFError) as error:
            msg = f"a gzip file that cannot be decompressed ({one_line(error, 60)})"
            raise InputError(msg, code="E230", where=where, fix="download the file again") from None
    for start, what, fix in FOREIGN:
        if head.startswith(start) or inside.startswith(start):
            msg = f"{what}, which is not read"
            raise InputError(msg, code="E230", where=where, fix=fix)
    if inside.startswith(HDF5_SIGNATURE):
        msg = "an HDF5 file that was compressed with gzip"
        raise InputError(msg, code="E230", where=where, fix="decompress it with gunzip")
    if (inside or head).lstrip()[:1] == b"<":
        msg = "an HTML or XML page, not counts"
        raise InputError(msg, code="E230", where=where, fix="download the file itself")
    what = "a Matrix Market file" if (inside or head).startswith(b"%%MatrixMarket") else "no format that is read"
    raise InputError(what, code="E230", where=where, fix=WRITE_H5AD)
