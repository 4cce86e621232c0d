"""Reading counts from every format: cells per CPU-second beside anndata's or scanpy's reader, and peak memory.

Ours reads all cells in blocks, checks every value and turns them into int32; the other reader loads the file whole.
A full run writes the table of ``docs/inputs.md``.
"""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import tempfile
import warnings
from contextlib import contextmanager
from csv import DictReader
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import scipy.sparse as sp
from pyarrow import csv

from benchmarks.pages import machine_and, write_table
from benchmarks.registry import Check, Measurement
from benchmarks.run import RESULTS, interleave
from benchmarks.synthetic import SyntheticCounts
from musegnn.data_store import open_matrix

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
GENES, DENSITY = 300, 0.1
QUICK, FULL = (2_000, 8_000), (50_000, 400_000)
ROWS = 16384
SPEED = 0.8
FLAT_BYTES = 64e6
STREAMED = {"rows": "yes", "sequential": "yes, in one pass", "columns": "no"}
ACCESS = {
    **dict.fromkeys(["h5ad, CSR", "h5ad, dense"], "rows"), "h5ad, CSC": "columns",
    **dict.fromkeys(["zarr v2", "zarr v3", "h5mu", "10x h5"], "rows"),
    "10x mtx, gzip": "sequential", "mtx by gene, gzip": "columns", "loom": "rows",
    "CSV": "sequential", "CSV, genes x cells": "columns",
}  # fmt: skip
"""All formats, in the order of the table; those whose package is not installed keep their rows of an earlier run."""


@dataclass(frozen=True)
class Format:
    """A format: how it is written, the settings with which it is read, and the other reader of the same file."""

    name: str
    write: Callable[[ad.AnnData, Path], Path]
    reader: str
    read: Callable[[Path], object]
    options: dict[str, Any] = field(default_factory=dict)
    large: bool = True


def _h5ad(kind: Callable[[sp.csr_matrix], Any]) -> Callable[[ad.AnnData, Path], Path]:
    def write(adata: ad.AnnData, folder: Path) -> Path:
        ad.AnnData(kind(adata.X), obs=adata.obs, var=adata.var).write_h5ad(folder / "x.h5ad")
        return folder / "x.h5ad"

    return write


def _zarr(zarr_format: int) -> Callable[[ad.AnnData, Path], Path]:
    def write(adata: ad.AnnData, folder: Path) -> Path:
        with ad.settings.override(zarr_write_format=zarr_format), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about what will change
            adata.write_zarr(folder / "x.zarr")
        return folder / "x.zarr"

    return write


def _h5mu(adata: ad.AnnData, folder: Path) -> Path:
    import mudata

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mudata.MuData({"rna": adata}).write(folder / "x.h5mu")
    return folder / "x.h5mu"


def _tenx_h5(adata: ad.AnnData, folder: Path) -> Path:
    X = adata.X.astype(np.int32)
    with h5py.File(folder / "x.h5", "w") as file:
        group = file.create_group("matrix")
        group["barcodes"] = adata.obs_names.to_numpy(dtype="S")
        for key in ("data", "indices", "indptr"):
            group.create_dataset(key, data=getattr(X, key), chunks=True, compression="gzip", compression_opts=1)
        group["shape"] = np.array(X.shape[::-1])
        kinds = np.full(adata.n_vars, "Gene Expression", dtype="S")
        columns = {"id": adata.var_names.to_numpy("S"), "name": adata.var_names.to_numpy("S"), "feature_type": kinds}
        for key, values in (columns | {"genome": np.full(adata.n_vars, "GRCh38", dtype="S")}).items():
            group[f"features/{key}"] = values
    return folder / "x.h5"


def _mtx(*, by_gene: bool = False) -> Callable[[ad.AnnData, Path], Path]:
    def write(adata: ad.AnnData, folder: Path) -> Path:
        coo = (adata.X.tocsc() if by_gene else adata.X).tocoo()
        table = pa.table({"gene": coo.col + 1, "cell": coo.row + 1, "count": coo.data.astype(np.int64)})
        with gzip.open(folder / "matrix.mtx.gz", "wb", compresslevel=1) as file:
            size = f"{adata.n_vars} {adata.n_obs} {coo.nnz}"
            file.write(f"%%MatrixMarket matrix coordinate integer general\n{size}\n".encode())
            csv.write_csv(table, file, csv.WriteOptions(include_header=False, delimiter=" "))
        genes = [f"{name}\t{name}\tGene Expression" for name in adata.var_names]
        for name, lines in (("features.tsv.gz", genes), ("barcodes.tsv.gz", adata.obs_names)):
            with gzip.open(folder / name, "wt") as file:
                file.write("\n".join(lines) + "\n")
        return folder

    return write


def _loom(adata: ad.AnnData, folder: Path) -> Path:
    with h5py.File(folder / "x.loom", "w") as file:
        options = {"chunks": (64, 64), "compression": "gzip", "compression_opts": 2}
        matrix = file.create_dataset("matrix", adata.shape[::-1], "f4", **options)
        for first in range(0, adata.n_obs, 64 * 64):
            matrix[:, first : first + 64 * 64] = adata.X[first : first + 64 * 64].toarray().T
        file["row_attrs/Gene"], file["row_attrs/var_names"] = (adata.var_names.to_numpy("S"),) * 2
        file["col_attrs/CellID"], file["col_attrs/obs_names"] = (adata.obs_names.to_numpy("S"),) * 2
        for key in ("layers", "row_graphs", "col_graphs"):
            file.create_group(key)
        file.attrs["LOOM_SPEC_VERSION"] = "2.0.1"
    return folder / "x.loom"


def _csv(*, turned: bool = False) -> Callable[[ad.AnnData, Path], Path]:
    def write(adata: ad.AnnData, folder: Path) -> Path:
        data, rows = (adata.T, adata.var_names) if turned else (adata, adata.obs_names)
        with (folder / "x.csv").open("wb") as file:
            file.write((",".join(["", *data.var_names]) + "\n").encode())
            step = 20 if turned else 5000
            X = data.X.tocsr()
            for first in range(0, data.n_obs, step):
                values = X[first : first + step].toarray().astype(np.int64)
                lines = (",".join(map(str, line)) for line in values.tolist())
                named = zip(rows[first : first + step], lines, strict=True)
                file.write("".join(f"{name},{line}\n" for name, line in named).encode())
        return folder / "x.csv"

    return write


def _formats() -> Iterator[Format]:
    import scanpy as sc

    anndata, scanpy = f"anndata {version('anndata')}", f"scanpy {version('scanpy')}"
    yield Format("h5ad, CSR", _h5ad(lambda X: X), anndata, ad.read_h5ad)
    yield Format("h5ad, dense", _h5ad(lambda X: X.toarray()), anndata, ad.read_h5ad)
    yield Format("h5ad, CSC", _h5ad(sp.csr_matrix.tocsc), anndata, ad.read_h5ad)
    yield Format("zarr v2", _zarr(2), anndata, ad.read_zarr)
    yield Format("zarr v3", _zarr(3), anndata, ad.read_zarr)
    if find_spec("mudata") is not None:
        import mudata

        yield Format("h5mu", _h5mu, f"mudata {version('mudata')}", mudata.read_h5mu, {"mod": "rna"})
    yield Format("10x h5", _tenx_h5, scanpy, sc.read_10x_h5)
    yield Format("10x mtx, gzip", _mtx(), scanpy, lambda path: sc.read_10x_mtx(path, cache=False))
    yield Format("mtx by gene, gzip", _mtx(by_gene=True), scanpy, lambda path: sc.read_10x_mtx(path, cache=False))
    if find_spec("loompy") is not None:
        yield Format("loom", _loom, f"{anndata} (loompy)", lambda path: ad.io.read_loom(path, sparse=True))
    yield Format("CSV", _csv(), anndata, ad.io.read_csv)
    yield Format("CSV, genes x cells", _csv(turned=True), anndata, ad.io.read_csv, {"transpose": True}, large=False)


class Ingest:
    """Synthetic counts of 300 genes and density 0.1."""

    name = "ingest"

    def gate(self, *, quick: bool) -> Iterator[Check]:
        """Compare what every format gives with the matrix that was written."""
        del quick
        adata = _counts(1_000)
        for form in _formats():
            with _written(form, adata) as path:
                source = open_matrix(path, **form.options)
                found = sp.vstack([block for _, block in source.blocks(300)])
                same = (found != adata.X.astype(np.int32)).nnz == 0 and source.access == ACCESS[form.name]
            yield Check(claim=f"{form.name} gives the counts", holds=bool(same), got=f"{found.nnz} counts")

    def measure(self, *, quick: bool) -> Iterator[Measurement]:
        """Time the reading of the smaller files, and take the peak memory of reading both."""
        few, many = QUICK if quick else FULL
        small, large = _counts(few), _counts(many)
        for form in _formats():
            shape = f"{form.name} {few}x{GENES}"
            with _written(form, small) as path:
                ours, theirs = interleave(
                    lambda form=form, path=path: _read(form, path),
                    lambda form=form, path=path: _quiet(form.read, path),
                    rounds=1 if "CSV" in form.name else 3,
                )
                peaks = [_peak(form, path)]
            if form.large:
                with _written(form, large) as path:
                    peaks.append(_peak(form, path))
            speed, other = few / ours, few / theirs
            yield Measurement(
                shape=shape, metric="cells_per_cpu_second", value=speed, unit="1/s", baseline=form.reader,
                baseline_value=other, goal=("ratio", ">=", SPEED), larger_is_better=True,
            )  # fmt: skip
            for n_cells, peak in zip((few, many), peaks, strict=False):
                yield Measurement(shape=f"{form.name} {n_cells}x{GENES}", metric="peak", value=peak / 1e6, unit="MB")
            if form.large:
                goal = ("value", "<=", FLAT_BYTES / 1e6) if ACCESS[form.name] != "columns" else None
                shape, growth = f"{form.name} {few}->{many}", (peaks[1] - peaks[0]) / 1e6
                yield Measurement(shape=shape, metric="peak_growth", value=growth, unit="MB", goal=goal)
            if not quick:
                _write_table()


def _counts(n_cells: int) -> ad.AnnData:
    X, _ = SyntheticCounts(n_cells, GENES, DENSITY, seed=3).load()
    obs = pd.DataFrame(index=[f"AAACCTGAGA{i:08d}-1" for i in range(n_cells)])
    return ad.AnnData(X.astype(np.float32), obs=obs, var=pd.DataFrame(index=[f"GENE{j}" for j in range(GENES)]))


@contextmanager
def _written(form: Format, adata: ad.AnnData) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield form.write(adata, Path(folder))


def _read(form: Format, path: Path) -> int:
    return sum(block.nnz for _, block in open_matrix(path, **form.options).blocks(ROWS))


def _quiet(read: Callable[[Path], object], path: Path) -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return read(path)


def _peak(form: Format, path: Path) -> int:
    command = [sys.executable, "-m", "benchmarks.probes.ingest", str(path), json.dumps(form.options)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return int(json.loads(done.stdout)["peak"])


def _write_table() -> None:
    """Write the newest rows of each format."""
    with (RESULTS / "ingest.csv").open(encoding="utf-8", newline="") as file:
        newest = {(row["shape"], row["metric"]): row for row in DictReader(file)}
    few, many = FULL
    lines = []
    for name, access in ACCESS.items():
        speed = newest.get((f"{name} {few}x{GENES}", "cells_per_cpu_second"))
        if speed is None:
            continue
        ours, other = float(speed["value"]), float(speed["baseline_value"])
        peaks = [newest.get((f"{name} {n_cells}x{GENES}", "peak")) for n_cells in FULL]
        found = ["not taken" if peak is None else f"{float(peak['value']):.0f} MB" for peak in peaks]
        rates = (f"{ours / 1e3:,.0f}", f"{other / 1e3:,.0f}, {speed['baseline']}", f"{ours / other:.2f}")
        lines.append([name, STREAMED[access], *rates, *found])
    header = ("format", "streamed", "1000 cells per CPU-second", "the other reader", "ratio")
    about = f"{GENES} genes, density {DENSITY}; {machine_and('h5py', 'zarr', 'pyarrow', 'numpy')}."
    write_table("docs/inputs.md", "ingest", (*header, f"peak, {few:,} cells", f"{many:,} cells"), lines, about)


CASE = Ingest()
