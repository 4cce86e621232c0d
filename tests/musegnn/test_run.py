"""The whole way from counts to results: equal runs give equal bytes, also when they were killed on the way."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path
from urllib.request import urlopen

import anndata as ad
import numpy as np
import pytest
from scipy.sparse import csr_matrix

ROOT = Path(__file__).resolve().parent.parent.parent
LOGS = {"run.log", "metrics.jsonl", "report.html"}  # hold times of day or durations
SETTINGS = """
graph: {n_genes: 60}
model: {dim: 8}
training: {rounds: 12, checkpoint_every: 2, threads: 1}
"""

pytestmark = pytest.mark.slow


def write_counts(path: Path, seed: int, *, spatial: bool = False) -> None:
    """Simulate counts whose first genes follow three programmes of the cells."""
    rng = np.random.default_rng(seed)
    n_cells, n_genes = 250, 100
    xy = rng.uniform(0, 100, (n_cells, 2))
    programme = (xy[:, 0] // 34).astype(int) if spatial else rng.integers(0, 3, n_cells)
    level = np.ones((n_cells, n_genes))
    for k in range(3):
        level[programme == k, 20 * k : 20 * k + 20] *= 5.0
    rate = level * rng.dirichlet(np.full(n_genes, 3.0)) * rng.lognormal(7.0, 0.4, (n_cells, 1))
    adata = ad.AnnData(csr_matrix(rng.poisson(rate).astype(np.float32)))
    adata.var_names = [f"G{j}" for j in range(n_genes)]
    if spatial:
        adata.obsm["spatial"] = xy
    adata.write_h5ad(path)


@pytest.fixture(scope="module")
def atlas(tmp_path_factory):
    folder = tmp_path_factory.mktemp("atlas")
    lines = ["datasets:"]
    for seed, (name, modality) in enumerate([("one", "scrna"), ("two", "scrna"), ("three", "spatial")]):
        write_counts(folder / f"{name}.h5ad", seed, spatial=modality == "spatial")
        lines.append(f"  - {{name: {name}, path: {name}.h5ad, modality: {modality}, tissue: lung, species: human}}")
    path = folder / "atlas.yaml"
    path.write_text("\n".join(lines) + SETTINGS)
    return path


@pytest.fixture(scope="module")
def undisturbed(atlas):
    out = atlas.parent / "undisturbed"
    finish(atlas, out)
    return out


def start(atlas: Path, out: Path) -> subprocess.Popen[str]:
    return command_line("run", str(atlas), "--out", str(out))


def command_line(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "musegnn", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(atlas: Path, out: Path) -> str:
    return wait_for(start(atlas, out))


def wait_for(process: subprocess.Popen[str]) -> str:
    stdout, stderr = process.communicate(timeout=400)
    assert process.returncode == 0, stderr
    return stdout


def kill_when(atlas: Path, out: Path, reached) -> bool:
    """Kill a run without warning as soon as `reached` holds; say whether it was still running."""
    process = start(atlas, out)
    deadline = time.monotonic() + 300
    while process.poll() is None and not reached() and time.monotonic() < deadline:
        time.sleep(0.005)
    alive = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return alive


def digests(run: Path) -> dict[str, str]:
    """Digest every file whose bytes depend on data and settings alone."""
    found = {}
    for path in sorted(run.rglob("*")):
        parts = path.relative_to(run).parts
        if path.is_file() and parts[0] not in LOGS | {"tensorboard"} and parts[:2] != ("store.zarr", "log"):
            found["/".join(parts)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def losses(run: Path) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines if line["kind"] != "process"]


def builds(run: Path) -> dict[str, float]:
    """Return the time at which each committed dataset's reference was made."""
    return {p.parent.name: p.stat().st_mtime for p in (run / "store.zarr" / "refs").glob("*/*.json")}


def test_results_are_complete_and_readable(undisturbed):
    adata = ad.read_h5ad(undisturbed / "embeddings.h5ad")
    assert adata.shape == (180, 8)
    assert np.isfinite(adata.X).all()
    assert {"gene", "dataset", "modality", "tissue", "species", "cluster"} <= set(adata.obs)
    assert adata.obsm["X_umap"].shape == (180, 2)
    page = (undisturbed / "report.html").read_text()
    assert page.startswith("<!doctype html>")
    assert 'src="http' not in page
    evaluation = json.loads((undisturbed / "evaluation.json").read_text())
    assert {"trained", "untrained", "pca_procrustes", "coexpression_profile"} <= set(evaluation["models"])


def test_same_seed_twice_gives_the_same_bytes(atlas, undisturbed):
    again = atlas.parent / "again"
    finish(atlas, again)
    assert digests(again) == digests(undisturbed)
    assert losses(again) == losses(undisturbed)


@pytest.mark.parametrize("rounds", [3, 8])
def test_killed_training_resumes_to_the_same_bytes(atlas, undisturbed, rounds):
    out = atlas.parent / f"killed_{rounds}"
    metrics = out / "metrics.jsonl"
    alive = kill_when(atlas, out, lambda: metrics.exists() and metrics.read_text().count("losses") >= 3 * rounds)
    assert alive
    assert not (out / "evaluation.json").exists()
    finish(atlas, out)
    assert digests(out) == digests(undisturbed)
    assert losses(out) == losses(undisturbed)


def test_killed_build_keeps_finished_datasets_and_ends_with_the_same_store(atlas, undisturbed):
    out = atlas.parent / "killed_build"
    alive = kill_when(atlas, out, lambda: len(builds(out)) >= 1)
    assert alive
    before = builds(out)
    assert 1 <= len(before) < 3
    finish(atlas, out)
    assert {name: builds(out)[name] for name in before} == before
    assert digests(out) == digests(undisturbed)


def test_finished_run_is_not_repeated(atlas, undisturbed):
    results = ("embeddings.h5ad", "embeddings.parquet", "evaluation.json", "summary.json", "report.html")

    def state():
        written = {name: (undisturbed / name).stat().st_mtime_ns for name in results}
        return {**digests(undisturbed), **builds(undisturbed), **written}

    before = state()
    stdout = finish(atlas, undisturbed)
    assert "report.html" in stdout
    assert state() == before


def test_the_end_says_what_was_found_in_words(atlas, undisturbed):
    lines = finish(atlas, undisturbed).strip().splitlines()
    about = json.loads((undisturbed / "summary.json").read_text())
    assert lines[0].split()[:2] == ["dataset", "tissue"]
    assert [line.split()[0] for line in lines[1:4]] == ["one", "two", "three"]
    assert lines[-7:-3] == about["sentences"]  # what was found and how sure, then files, then what to open
    assert "of genes are uncertain" in lines[-4]
    assert "musegnn neighbors" in lines[-1]
    assert about["warnings"]
    for code in {line.split(": ")[1] for line in about["warnings"] if not line.startswith("W")}:
        assert sum(f"({code}: " in line for line in lines) == 1
    process = command_line("run", str(atlas), "--out", str(undisturbed), "--json")
    found = json.loads(wait_for(process))
    assert found["summary"] == about["sentences"]
    assert len(found["warnings"]) == sum("(W" in line for line in lines)


def test_the_page_takes_gene_sets_and_is_served_to_this_computer(undisturbed, tmp_path):
    gmt = tmp_path / "sets.gmt"
    genes = ad.read_h5ad(undisturbed / "embeddings.h5ad").obs["gene"].astype(str).unique().tolist()
    gmt.write_text("GO:0000001\tfirst genes (9)\t" + "\t".join(genes[:9]) + "\n")
    before = digests(undisturbed)
    wait_for(command_line("report", str(undisturbed), "--gmt", str(gmt)))
    text = re.search(r'id="data-lists">([^<]*)<', (undisturbed / "report.html").read_text(encoding="utf-8"))[1]
    assert b'"sets":["first genes (GO:0000001)"]' in zlib.decompress(base64.b64decode(text))
    server = command_line("explore", str(undisturbed), "--json", "--quiet")
    try:
        lines = [server.stdout.readline() for _ in range(3)]
        url = json.loads("".join(lines))["url"]
        assert url.startswith("http://127.0.0.1:")
        dataset = json.loads(urlopen(f"{url}api/neighbors?gene={genes[0]}&dataset=one&k=3", timeout=60).read())
        assert len(dataset["rows"]) == 3
        assert b"<title>undisturbed</title>" in urlopen(url, timeout=60).read()
    finally:
        server.send_signal(signal.SIGINT)
    assert server.wait(timeout=60) == 0
    server.stdout.close()
    server.stderr.close()
    assert digests(undisturbed) == before


def test_a_run_without_rounds_has_all_results(atlas, tmp_path):
    def call(*arguments: str) -> str:
        return wait_for(command_line(*arguments))

    out, other = tmp_path / "run", tmp_path / "other"
    call("run", str(atlas), "--out", str(out), "--rounds", "0")
    before = digests(out)
    evaluation = json.loads((out / "evaluation.json").read_text())
    assert evaluation["settings"]["rounds"] == 0
    assert list(evaluation["models"])[:2] == ["trained", "untrained"]
    assert {line["kind"] for line in losses(out)} == {"space", "watch"}
    call("run", str(atlas), "--out", str(out), "--rounds", "0")
    call("evaluate", str(out))
    call("report", str(out))
    assert call("status", str(out)).startswith("done: round 0 of 0")
    assert digests(out) == before
    arguments = ("train", str(out / "store.zarr"), "--out", str(other), "--atlas", str(atlas))
    call(*arguments, "--rounds", "0")
    assert (other / "embeddings.parquet").read_bytes() == (out / "embeddings.parquet").read_bytes()
    call(*arguments, "--rounds", "2")
    assert json.loads((other / "evaluation.json").read_text())["settings"]["rounds"] == 2
    assert call("status", str(other)).startswith("done: round 2 of 2")
