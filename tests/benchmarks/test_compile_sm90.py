"""All Triton kernels compile for sm_90 without a GPU, without spills, tiles with tensor cores."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from benchmarks.attention import compile_sm90
from musegnn.kernels.edge_attention.impl.triton import config

if TYPE_CHECKING:
    from pathlib import Path


def compile_all(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "benchmarks.attention.compile_sm90", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.mark.slow
def test_every_kernel_compiles_and_passes_the_gates(tmp_path: Path) -> None:
    pytest.importorskip("triton")
    done = compile_all("--json", str(tmp_path / "table.json"))
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    table = json.loads((tmp_path / "table.json").read_text())
    assert len(table) == len(list(compile_sm90.builds()))
    assert all(report["registers"] > 0 for report in table)


def test_every_entry_of_the_dispatch_table_is_built() -> None:
    built = {
        (build.dtype, build.constants.get("PRECISION"), build.constants["D"], build.constants["F"])
        for build in compile_sm90.builds()
        if build.module == "tile"
    }
    for precision, row in config.TILE_ATTRIBUTES.items():
        for dim, most in row.items():
            assert (compile_sm90.TYPES[precision], config.input_precision(precision), dim, most) in built


def test_a_fault_is_found() -> None:
    build = compile_sm90.Build(module="tile", kernel="edge_attention_fwd_kernel_tile", dtype="bf16", constants={})
    bad = compile_sm90.Report(name="bad", stack=8, shared=200_000)
    assert compile_sm90._judge(build, bad) == ["spills", "shared memory", "no tensor cores", "no wide loads"]
    good = compile_sm90.Report(name="good", wgmma=4, wide_loads=2)
    assert compile_sm90._judge(build, good) == []


def test_nothing_compiled_is_a_failure() -> None:
    pytest.importorskip("triton")
    assert compile_all("--only", "no kernel has this name").returncode == 1
