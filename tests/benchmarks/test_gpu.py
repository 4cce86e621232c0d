"""The GPU benchmarks go through on the CPU, need few packages, and lose what fails alone."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import torch

from benchmarks import gpu, gpu_sections, gpu_training
from benchmarks.attention.graphs import STRUCTURES, make_graph
from benchmarks.attention.timing import time_jobs
from benchmarks.gpu_sections import CheckItem, Item, Program, Section, Setting
from benchmarks.registry import Check, Measurement
from benchmarks.run import COLUMNS
from musegnn.kernels.edge_attention import edge_graph

if TYPE_CHECKING:
    from pathlib import Path

PROGRAMS = (gpu.PROGRAM, gpu_training.PROGRAM)
ABSENT = ("ray", "zarr", "dask", "distributed", "anndata", "cyclopts", "umap", "pandas")
SITE = f"import sys\nsys.modules.update(dict.fromkeys({ABSENT!r}))\n"


@pytest.fixture(autouse=True)
def kernels_are_not_interpreted_here(monkeypatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", os.environ.get("TRITON_INTERPRET", "0"))


def dry_run(module: str, results: Path, root: Path, site: Path) -> str:
    (site / "sitecustomize.py").write_text(SITE)  # of the processes of sections, too
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | {"PYTHONPATH": str(site)}
    command = [sys.executable, "-m", module, "--dry-run", "--results", str(results)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_a_dry_run_of_the_attention_covers_every_section(tmp_path: Path, root: Path) -> None:
    printed = dry_run("benchmarks.gpu", tmp_path, root, tmp_path)
    assert "FAIL" not in printed
    assert "failed" not in printed
    assert "one edge per step = ours" in printed
    rows = rows_of(tmp_path / "edge-attention-gpu-dry-run.csv")
    assert tuple(rows[0]) == COLUMNS
    assert {row["device"] for row in rows} == {"cpu (dry run)"}
    assert not any(row["goal"] for row in rows)
    metrics = {"layer_fwd_bwd", "tiles_fwd_bwd", "step", "graphs_fwd_bwd"}
    assert {row["metric"] for row in rows} == metrics | {"copy_rate", "cache_rate", "exp2_rate", "product_rate"}
    assert {row["baseline"] for row in rows} >= {"PyG eager", "one edge per step", "lists"}


@pytest.mark.slow
def test_a_dry_run_of_training_covers_every_section(tmp_path: Path, root: Path) -> None:
    printed = dry_run("benchmarks.gpu_training", tmp_path, root, tmp_path)
    assert "FAIL" not in printed
    assert "failed" not in printed
    rows = rows_of(tmp_path / "gpu-training-dry-run.csv")
    assert {row["metric"] for row in rows} == {"round", "step of a dataset", "round on 2 processes"}
    assert len({row["shape"] for row in rows}) == 3


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_plan_takes_nine_minutes_at_most(program: Program, capsys) -> None:
    assert gpu_sections.main(program, "", ["--plan"]) == 0
    seconds = program.check_seconds + sum(section.seconds for section in program.sections.values())
    assert seconds <= gpu_sections.MOST_SECONDS
    assert f"in all {seconds} s" in capsys.readouterr().out


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_missing_package_is_named_with_the_command_that_fetches_it(program: Program, capsys) -> None:
    program = program._replace(needs=(*program.needs, "no_such_module"))
    assert gpu_sections.main(program, "", ["--dry-run"]) == 2
    assert "missing here: no_such_module; carry wheels: python -m pip download" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_nothing_is_measured(capsys) -> None:
    assert gpu_sections.main(gpu.PROGRAM, "", []) == 2
    assert "no GPU is there" in capsys.readouterr().out


def fails() -> object:
    message = "no kernel image"
    raise RuntimeError(message)


def test_a_baseline_that_fails_is_left_out(capsys) -> None:
    seconds = time_jobs({"ours": lambda: None, "theirs": fails}, torch.device("cpu"), seconds=0.01)
    assert list(seconds) == ["ours"]
    assert "failed theirs: RuntimeError: no kernel image" in capsys.readouterr().out


def work(program: Program, tmp_path: Path, *arguments: str) -> int:
    command = ["--dry-run", "--results", str(tmp_path), "--wrong", "", "--seconds", "60", *arguments]
    return gpu_sections.main(program, "", command)


def small(items: object, checks: object = ()) -> Program:
    return Program("none", "small", (), 1, lambda _: checks, {"one": Section(1, lambda _: items)})


def test_an_item_that_fails_is_named_and_the_next_goes_on(tmp_path: Path, capsys) -> None:
    measurement = Measurement(shape="x", metric="m", value=1.0, unit="s")
    program = small([Item("broken", fails), Item("whole", lambda: [measurement]), Item("more", lambda: [measurement])])
    assert work(program, tmp_path, "--section", "one", "--first", "0") == 0
    assert "failed broken: RuntimeError: no kernel image" in capsys.readouterr().out
    assert len(rows_of(tmp_path / "small-dry-run.csv")) == 2
    assert work(program, tmp_path, "--section", "one", "--first", "2") == 0
    assert len(rows_of(tmp_path / "small-dry-run.csv")) == 3


def test_a_section_stops_when_its_time_is_over(tmp_path: Path, capsys) -> None:
    assert work(small([Item("late", list)]), tmp_path, "--section", "one", "--first", "0", "--seconds", "-1") == 0
    assert "skipped late and what follows: the time of this section is over" in capsys.readouterr().out


def test_a_precision_with_a_wrong_kernel_is_not_timed(tmp_path: Path, capsys) -> None:
    right, wrong = (Check(claim=name, holds=name == "right", got="0") for name in ("right", "wrong"))
    checks = [CheckItem("float32", lambda: right), CheckItem("bfloat16", lambda: wrong), CheckItem("float16", fails)]
    assert work(small([], checks), tmp_path, "--section", "correctness", "--part", "0", "--first", "1") == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line for line in printed if line.startswith("not timed")] == ["not timed: bfloat16", "not timed: float16"]
    setting = Setting(device=torch.device("cpu"), quick=False, dry=False, wrong=frozenset({"bfloat16"}))
    assert {item.name.split()[5] for item in gpu.layer_items(setting)} == {"fp32", "fp16"}
    assert {item.name.split()[5] for item in gpu.path_items(setting)} == {"fp32"}


@pytest.mark.parametrize("structure", STRUCTURES)
def test_graphs_have_the_density_and_are_well_formed(structure: str) -> None:
    graph = make_graph(structure, 200, 0.05, "cpu")
    checked = edge_graph(graph.rowptr, graph.col)
    assert all(torch.equal(part, other) for part, other in zip(graph, checked, strict=True))
    extra = 398 if structure == "hub" else 0
    assert graph.n_edges == pytest.approx(0.05 * 200**2 + extra, rel=0.15)
