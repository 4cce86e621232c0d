"""Which format a file or folder has, by its content, and opening it as a container."""

from __future__ import annotations

import importlib.util
import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musegnn.data_store.formats.anndata_groups import AnnDataContainer, choose_part, list_parts
from musegnn.data_store.formats.container import TransposedContainer
from musegnn.data_store.formats.loom import LoomContainer
from musegnn.data_store.formats.positions import PlacedContainer, find_positions
from musegnn.data_store.formats.table import TableContainer
from musegnn.data_store.formats.tenx_h5 import TenxContainer, genomes_of
from musegnn.data_store.formats.text_files import GZIP, open_text
from musegnn.data_store.formats.text_matrix import TextMatrixContainer, find_matrix
from musegnn.data_store.hdf5 import open_file
from musegnn.data_store.hdf5_probe import probe_hdf5
from musegnn.errors import InputError, MuseGNNError
from musegnn.text import one_line, some_of

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
FOLDER_MATRICES = [
    re.compile(pattern)
    for pattern in (
        "outs",
        r".*filtered_(?:feature|peak|gene)_(?:bc|cell)_matri(?:x|ces)(?:_h5)?\.h5|cell_feature_matrix\.h5"
        r"|.*sample_filtered_.*\.h5",
        r"filtered_(?:feature|peak|gene)_(?:bc|cell)_matri(?:x|ces)|cell_feature_matrix",
        r".*raw_(?:feature|peak|gene)_bc_matri(?:x|ces)(?:_h5)?\.h5",
        r"raw_(?:feature|peak|gene)_bc_matri(?:x|ces)",
    )
]
"""Names by which the matrix in a folder of Cell Ranger, Space Ranger or Xenium is found, the preferred first."""
BINNED, SEGMENTED = "binned_outputs", "segmented_outputs"
"""Folders of Visium HD, with a matrix for each size of squares, and with one of cells."""


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
    if not location.is_folder():
        with _open_file(location, mod) as container:
            yield container if location.is_remote else _placed(container, location)
        return
    names = location.children()
    if any(name in ZARR_FILES for name in names):
        with _zarr(location) as root:
            part, kind = choose_part(root, mod, location.where)
            yield AnnDataContainer(part, f"{kind or 'AnnData'} zarr", location)
        return
    inside = _matrix_in(location, names)
    if inside is None:
        msg = "a folder that holds no matrix: neither zarr nor of Cell Ranger or Space Ranger"
        raise InputError(msg, code="E230", where=location.where, fix="name the folder or file that holds the matrix")
    with _open_file(inside, mod) as container:
        yield _placed(container, inside)


def parts_of(location: Location) -> list[str]:
    """Return the values that `mod` may have, where one has to be chosen."""
    if location.exists() and location.is_folder():
        if not any(name in ZARR_FILES for name in location.children()):
            return []
        with _zarr(location) as root:
            return list_parts(root)
    if not location.exists() or not _is_hdf5(location.head()):
        return []
    with _hdf5(location) as file:
        genomes = [] if "obs" in file or "matrix" in file else genomes_of(file)
        return list_parts(file) or (genomes if len(genomes) > 1 else [])


def _matrix_in(folder: Location, names: list[str]) -> Location | None:
    """Return the matrix in a folder of Cell Ranger or Space Ranger, filtered rather than raw."""
    for pattern in FOLDER_MATRICES:
        found = sorted(name for name in names if pattern.fullmatch(name))
        if len(found) > 1:
            msg = f"{len(found)} matrices in one folder ({some_of(found)})"
            raise InputError(msg, code="E233", where=folder.where, fix="name the file of each dataset as its `path`")
        if found and found[0].endswith(".h5"):
            return folder / found[0]
        if found:
            below = folder / found[0]
            return _matrix_in(below, below.children())
    text = find_matrix(folder, names)
    if text is None:
        _refuse_visium_hd(folder, names)
    if text is None and len(names) == 1 and (folder / names[0]).is_folder():  # a genome of version 2
        below = folder / names[0]
        return find_matrix(below, below.children())
    return text


def _refuse_visium_hd(folder: Location, names: list[str]) -> None:
    """Refuse a folder of Visium HD with several matrices by naming them."""
    inside = [f"{BINNED}/{name}" for name in (folder / BINNED).children()] if BINNED in names else names
    matrices = [name for name in inside if re.fullmatch(rf"({BINNED}/)?square_\d+um", name)]
    if matrices:
        usual = next((name for name in matrices if name.endswith("_008um")), matrices[0])
        matrices += [SEGMENTED] * (SEGMENTED in names)
        short = [name.removeprefix(f"{BINNED}/") for name in matrices]
        msg = f"a folder of Visium HD with a matrix in each of {some_of(short, 4)}"
        raise InputError(msg, code="E233", where=folder.where, fix=f"add the one to read to `path`, as {usual}")


def _placed(container: Container, matrix: Location) -> Container:
    if not isinstance(container, TenxContainer | TextMatrixContainer):
        return container
    positions = find_positions(matrix)
    return container if positions is None else PlacedContainer(container, positions)


@contextmanager
def _open_file(location: Location, mod: str | None) -> Iterator[Container]:
    head = location.head()
    if _is_hdf5(head):
        with _hdf5(location) as file:
            yield _in_hdf5(file, mod, location)
        return
    _refuse_foreign(head, location)
    with open_text(location) as text:
        inside = text.read(4096)
    _refuse_foreign(inside, location)
    if mod is not None:
        msg = "`mod` is set, but the file holds no modalities"
        raise InputError(msg, code="E222", where=location.where, fix="leave `mod` out")
    yield TextMatrixContainer(location) if inside.startswith(b"%%MatrixMarket") else TableContainer(location)


def _is_hdf5(head: bytes) -> bool:
    """Return whether a file is HDF5; before it there may be a block of another kind, as in MuData."""
    return any(head[place : place + 8] == HDF5_SIGNATURE for place in (0, 512, 1024, 2048))


@contextmanager
def _hdf5(location: Location) -> Iterator[Any]:
    if importlib.util.find_spec("hdf5plugin") is not None:
        importlib.import_module("hdf5plugin")  # registers the filters of which some files are made
    if not location.is_remote:
        probe_hdf5(Path(location.text))
    with open_file(location) as file:
        yield file


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


def _refuse_foreign(head: bytes, location: Location) -> None:
    """Refuse what is neither HDF5 nor text, by its first bytes, decompressed or not."""
    where = location.where
    if not head:
        msg = "the file is empty"
        raise InputError(msg, code="E230", where=where, fix="download the file again")
    for suffixes, (what, fix) in SUFFIXES.items():
        if location.name.lower().endswith(suffixes):
            msg = f"{what}, which is not read"
            raise InputError(msg, code="E230", where=where, fix=fix)
    for start, what, fix in FOREIGN:
        if head.startswith(start):
            msg = f"{what}, which is not read"
            raise InputError(msg, code="E230", where=where, fix=fix)
    if _is_hdf5(head):
        msg = "an HDF5 file that was compressed with gzip"
        raise InputError(msg, code="E230", where=where, fix="decompress it with gunzip")
    if head.lstrip()[:1] == b"<":
        msg = "an HTML or XML page, not counts"
        raise InputError(msg, code="E230", where=where, fix="download the file itself")
    if b"\0" in head and not head.startswith(GZIP):
        tar = head[257:262] == b"ustar"
        msg = "a tar archive, which is not read" if tar else "no format that is read"
        fix = (
            "extract it and name the folder" if tar else "write a .h5ad file from it; docs/inputs.md lists the formats"
        )
        raise InputError(msg, code="E230", where=where, fix=fix)
