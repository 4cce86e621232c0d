"""The GPU benchmark goes through on the CPU, and needs torch, Triton, torch-geometric and numpy alone."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import torch

from benchmarks.attention.graphs import STRUCTURES, make_graph
from benchmarks.run import COLUMNS
from musegnn.kernels.edge_attention import edge_graph

if TYPE_CHECKING:
    from pathlib import Path

BLOCK = (
    "import sys\n"
    "for name in ('numba', 'llvmlite', 'ray', 'zarr', 'pydantic', 'anndata', 'dask', 'scipy', 'pandas'):\n"
    "    sys.modules[name] = None\n"
)


def dry_run(folder: Path, before: str = "", **variables: str) -> str:
    call = f"main(['--dry-run', '--results', {str(folder)!r}])"
    code = f"{before}\nimport sys\nfrom benchmarks.gpu import main\nsys.exit({call})"
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"} | variables
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "edge-attention-gpu-dry-run.csv").open() as file:
        return list(csv.DictReader(file))


def test_dry_run_by_the_reference_needs_few_packages(tmp_path: Path, root: Path, monkeypatch) -> None:
    monkeypatch.chdir(root)
    printed = dry_run(tmp_path, BLOCK)
    assert "FAIL" not in printed
    rows = rows_of(tmp_path)
    assert tuple(rows[0]) == COLUMNS
    assert {row["metric"] for row in rows} == {"layer_fwd_bwd", "step", "graphs_fwd_bwd"}
    assert {row["device"] for row in rows} == {"cpu (dry run)"}
    assert not any(row["goal"] for row in rows)


@pytest.mark.slow
def test_dry_run_by_the_kernels_covers_every_section(tmp_path: Path, root: Path, monkeypatch) -> None:
    monkeypatch.chdir(root)
    printed = dry_run(tmp_path, TRITON_INTERPRET="1")
    assert "one edge per step = ours" in printed
    metrics = {row["metric"] for row in rows_of(tmp_path)}
    assert metrics >= {"copy_rate", "cache_rate", "exp2_rate", "product_rate", "tiles_fwd_bwd", "step"}
    assert {row["baseline"] for row in rows_of(tmp_path)} >= {"PyG eager", "one edge per step", "lists"}


def test_a_wrong_kernel_is_not_timed(tmp_path: Path, monkeypatch, capsys) -> None:
    from benchmarks import gpu
    from benchmarks.registry import Check

    checks = [Check(claim="right", holds=True, got="0"), Check(claim="wrong", holds=False, got="1")]
    monkeypatch.setattr(gpu, "check_kernels", lambda *_, **__: checks)
    assert gpu.main(["--dry-run", "--results", str(tmp_path)]) == 1
    assert "FAIL wrong (got 1)" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_a_section_stops_when_its_time_is_over(tmp_path: Path, monkeypatch, capsys) -> None:
    from benchmarks import gpu

    monkeypatch.setitem(gpu.SHARES, "layers", 0)
    setting = gpu.Setting(device=torch.device("cpu"), impl="reference", quick=False, dry=True)
    gpu.run_section("layers", gpu.measure_layers, setting, tmp_path / "rows.csv")
    assert "the time of this section is over" in capsys.readouterr().out
    assert not (tmp_path / "rows.csv").exists()


@pytest.mark.parametrize("structure", STRUCTURES)
def test_graphs_have_the_density_and_are_well_formed(structure: str) -> None:
    graph = make_graph(structure, 200, 0.05, "cpu")
    checked = edge_graph(graph.rowptr, graph.col)
    assert all(torch.equal(part, other) for part, other in zip(graph, checked, strict=True))
    extra = 398 if structure == "hub" else 0
    assert graph.n_edges == pytest.approx(0.05 * 200**2 + extra, rel=0.15)
