"""``musegnn add`` and ``MuSeGNN.add``: a larger run beside a run that stays as it is, whatever happens."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import anndata as ad
import numpy as np
import pytest
from scipy.sparse import csr_matrix

import musegnn as mg
from musegnn import pipeline, results
from musegnn.cli import main
from musegnn.run_folder import RunFolder
from tests.musegnn.test_run import write_counts

LABELS = {"modality": "scrna", "tissue": "lung", "species": "human"}
pytestmark = pytest.mark.slow


def digests(folder):
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Make three files of counts, and a finished run of two of them with its embeddings."""
    path = tmp_path_factory.mktemp("add")
    for seed, name in enumerate("abc"):
        write_counts(path / f"{name}.h5ad", seed)
    settings = {"graph": {"n_genes": 60}, "model": {"dim": 8}, "training": {"threads": 1}}
    config = mg.atlas({name: path / f"{name}.h5ad" for name in "ab"}, **LABELS, **settings)
    run = RunFolder.create(path / "run", config)
    store = mg.build_graphs(config, run.store_path(), progress=False)
    model = pipeline.train(run, store, resume=True)
    results.write_embeddings(run, model)
    return path


@pytest.fixture(scope="module")
def larger(folder):
    """Add the third dataset."""
    before = digests(folder / "run")
    model = mg.add(folder / "run", folder / "c.h5ad", out=folder / "larger", progress=False, **LABELS)
    assert digests(folder / "run") == before
    return model


def command(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "musegnn", *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_larger_run_holds_the_run_unchanged(folder, larger):
    old, new = (ad.read_h5ad(folder / name / "embeddings.h5ad") for name in ("run", "larger"))
    known = new[new.obs["dataset"] != "c"]
    assert known.obs_names.tolist() == old.obs_names.tolist()
    assert np.asarray(known.X).tobytes() == np.asarray(old.X).tobytes()
    assert (new.obs["dataset"] == "c").sum() == 60
    shards = [{p.name for p in (folder / name / "checkpoints" / "shards").iterdir()} for name in ("run", "larger")]
    assert shards[0] < shards[1]
    again = mg.MuSeGNN.load(folder / "larger")
    assert all(z.tobytes() == larger.vectors()[name].tobytes() for name, z in again.vectors().items())
    assert [row["dataset"] for row in again.history if row["kind"] == "drift"] == ["c"]


def test_counts_in_memory_and_a_model_in_memory_give_the_same(folder, larger, tmp_path):
    model = mg.MuSeGNN.load(folder / "run")
    other = model.add(ad.read_h5ad(folder / "c.h5ad"), out=tmp_path / "out", name="c", progress=False, **LABELS)
    assert all(z.tobytes() == larger.vectors()[name].tobytes() for name, z in other.vectors().items())
    assert list(model.vectors()) == ["a", "b"]


def test_labels_of_a_column_are_added_as_datasets(folder, tmp_path):
    adata = ad.read_h5ad(folder / "c.h5ad")
    adata.obs["state"] = np.where(np.arange(adata.n_obs) % 2, "x", "y")
    model = mg.add(folder / "run", adata, out=tmp_path / "out", name="c", by="state", progress=False, **LABELS)
    assert [dataset.name for dataset in model.config.datasets if dataset.added] == ["c.x", "c.y"]


@pytest.mark.parametrize("stage", ["store.zarr/refs/a", "store.zarr/refs/c", "checkpoints/shards"])
def test_a_killed_command_leaves_the_run_as_it_is_and_is_finished_by_the_next(folder, larger, tmp_path, stage):
    before, out = digests(folder / "run"), tmp_path / "out"
    process = command("add", folder / "run", folder / "c.h5ad", "--out", out, "--tissue", "lung", "--species", "human")
    while process.poll() is None and not (out / stage).exists():
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    _, error = process.communicate()
    assert process.returncode == -signal.SIGKILL, error
    assert digests(folder / "run") == before
    model = mg.add(folder / "run", folder / "c.h5ad", out=out, progress=False, **LABELS)
    assert all(z.tobytes() == larger.vectors()[name].tobytes() for name, z in model.vectors().items())
    assert digests(folder / "run") == before


def test_the_command_writes_all_results_and_the_drift_report(folder, tmp_path, capsys):
    arguments = ["add", folder / "run", folder / "c.h5ad", "--out", tmp_path / "out", "--tissue", "lung", "--json"]
    with pytest.raises(SystemExit) as done:
        main([*map(str, arguments), "--species", "human", "--set", "spatial_key=xy"])
    assert done.value.code == 0
    told = json.loads(capsys.readouterr().out)
    assert [each["dataset"] for each in told["drift"][0]["partners"]] == ["a", "b"]
    assert told["drift"][0]["partners"][0]["n_anchors"] > 0
    assert (tmp_path / "out" / "report.html").is_file()
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["datasets"][2]["name"] == "c"


def write_other(path, names):
    counts = csr_matrix(np.random.default_rng(0).poisson(3.0, (120, len(names))).astype(np.float32))
    adata = ad.AnnData(counts)
    adata.var_names = names
    adata.write_h5ad(path)


@pytest.mark.parametrize(
    ("file", "options", "code", "told"),
    [
        ("c", ["--name", "a"], "E413", "a dataset `a` already"),
        ("c", ["--species", "mouse"], "E258", "none of mouse, and no table of orthologs"),
        ("other", [], "E258", "other: shares 0 genes with the run"),
        ("a", ["--name", "again"], "E252", "dataset `a`"),
        ("c", ["--out", "run"], "E293", "another configuration"),
        ("missing", [], "E230", "missing.h5ad"),
    ],
)
def test_what_cannot_be_added_is_refused_in_one_line(folder, tmp_path, capsys, file, options, code, told):
    write_other(folder / "other.h5ad", [f"Q{k}" for k in range(80)])
    before = digests(folder / "run")
    options = [str(folder / "run") if option == "run" else option for option in options]
    given = {"--tissue": "lung", "--species": "human", "--out": str(tmp_path / "out")}
    given |= dict(zip(options[::2], options[1::2], strict=True))
    arguments = [part for option in given.items() for part in option]
    with pytest.raises(SystemExit) as done:
        main(["add", str(folder / "run"), str(folder / f"{file}.h5ad"), *arguments, "--quiet"])
    assert done.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "error[" in line]
    assert len(lines) == 1
    assert f"error[{code}]" in lines[0]
    assert told in lines[0]
    assert digests(folder / "run") == before


def test_counts_of_the_run_may_be_gone(folder, larger, tmp_path, caplog):
    adata = ad.read_h5ad(folder / "c.h5ad")
    (folder / "a.h5ad").rename(folder / "away.h5ad")
    try:
        model = mg.add(folder / "run", adata, out=tmp_path / "out", name="c", progress=False, **LABELS)
    finally:
        (folder / "away.h5ad").rename(folder / "a.h5ad")
    assert all(z.tobytes() == larger.vectors()[name].tobytes() for name, z in model.vectors().items())
    assert "a: W224" in caplog.text


def test_a_run_without_embeddings_or_with_layers_is_refused(folder, tmp_path):
    config = RunFolder.open(folder / "run").atlas()
    model = mg.MuSeGNN.load(folder / "run")
    model.save(tmp_path / "bare")
    with pytest.raises(mg.MuseGNNError, match=r"E405.*embeddings\.h5ad"):
        mg.add(tmp_path / "bare", folder / "c.h5ad", out=tmp_path / "out", **LABELS)
    layers = config.model_copy(update={"model": config.model.model_copy(update={"encoder": "transformer"})})
    with pytest.raises(mg.MuseGNNError, match="E412"):
        mg.MuSeGNN(model.store, layers).add(folder / "c.h5ad", out=tmp_path / "out", **LABELS)
