"""The run folder and the command line's manners, without any training."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from musegnn import cli
from musegnn.atlas_file import load_atlas
from musegnn.errors import RunError
from musegnn.run_folder import RunFolder

ATLAS = """
datasets:
  - {name: a, path: a.h5ad, modality: scrna, tissue: lung, species: human}
orthologs: orthologs.csv
"""


@pytest.fixture
def atlas(tmp_path):
    (tmp_path / "orthologs.csv").write_text("human,mouse\nACTB,Actb\n")
    path = tmp_path / "atlas.yaml"
    path.write_text(ATLAS)
    return load_atlas(path)


def test_lock_reads_back_to_the_same_files(tmp_path, atlas):
    run = RunFolder.create(tmp_path / "runs" / "one", atlas)
    again = RunFolder.open(run.path).atlas()
    assert again.datasets[0].path.resolve() == atlas.datasets[0].path.resolve()
    assert again.orthologs.read_text() == atlas.orthologs.read_text()
    assert again.model_dump(exclude={"datasets", "orthologs"}) == atlas.model_dump(exclude={"datasets", "orthologs"})


def test_run_folder_can_be_moved_with_its_store(tmp_path, atlas):
    run = RunFolder.create(tmp_path / "one", atlas)
    moved = tmp_path / "elsewhere"
    run.path.rename(moved)
    assert RunFolder.open(moved).store_path() == moved / "store.zarr"


def test_same_configuration_takes_up_the_run_and_another_is_refused(tmp_path, atlas):
    run = RunFolder.create(tmp_path / "one", atlas)
    lock = run.lock.read_bytes()
    assert RunFolder.create(tmp_path / "one", atlas).lock.read_bytes() == lock
    longer = atlas.model_copy(update={"training": atlas.training.model_copy(update={"rounds": 900})})
    assert RunFolder.create(tmp_path / "one", longer).atlas().training.rounds == 900
    other = atlas.model_copy(update={"graph": atlas.graph.model_copy(update={"n_genes": 17})})
    with pytest.raises(RunError, match=r"graph\.n_genes \(1000 there, 17 now\)"):
        RunFolder.create(tmp_path / "one", other)


@pytest.mark.parametrize("writes", range(4))
def test_a_run_folder_that_was_left_while_it_was_made_is_taken_up(tmp_path, atlas, monkeypatch, writes):
    done, rename = [], Path.replace

    def replace(aside, path):
        if len(done) == writes:
            aside.with_name("host.1.ab.partial").write_bytes(b"{")  # what a killed process leaves
            raise KeyboardInterrupt
        done.append(path)
        return rename(aside, path)

    monkeypatch.setattr(Path, "replace", replace)
    if writes < 3:
        with pytest.raises(KeyboardInterrupt):
            RunFolder.create(tmp_path / "one", atlas)
        assert (tmp_path / "one" / "host.1.ab.partial").exists()
        done[:] = [None] * 9
    run = RunFolder.create(tmp_path / "one", atlas)
    assert RunFolder.open(run.path).atlas().orthologs.read_bytes() == atlas.orthologs.read_bytes()


@pytest.mark.parametrize("names", [["orthologs.csv"], ["notes.txt", "run.json"], ["notes.txt"]])
def test_a_folder_with_other_files_is_refused(tmp_path, atlas, names):
    (tmp_path / "one").mkdir()
    for name in names:
        (tmp_path / "one" / name).write_text("mine")
    with pytest.raises(RunError, match="holds no run"):
        RunFolder.create(tmp_path / "one", atlas)
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == names


def test_a_refused_command_leaves_the_folder_as_it_was(tmp_path, atlas):
    run = RunFolder.create(tmp_path / "one", atlas)
    before = {p.name: p.read_bytes() for p in run.path.iterdir()}
    with pytest.raises(RunError, match="another store"):
        RunFolder.create(run.path, atlas, store=tmp_path / "other.zarr")
    atlas.orthologs.write_text("human,mouse\nCD4,Cd4\n")
    with pytest.raises(RunError, match="another ortholog table"):
        RunFolder.create(run.path, atlas)
    assert {p.name: p.read_bytes() for p in run.path.iterdir()} == before


def apply(atlas, **sections):
    return atlas.model_copy(update={k: getattr(atlas, k).model_copy(update=v) for k, v in sections.items()})


def test_settings_of_training_may_change_until_there_is_a_checkpoint(tmp_path, atlas):
    run = RunFolder.create(tmp_path / "run", atlas)
    smaller = apply(atlas, training={"row_block": 5}, model={"decoder": "inner"})
    assert RunFolder.create(run.path, smaller).atlas().training.row_block == 5
    with pytest.raises(RunError, match=r"another configuration.*evaluation"):
        RunFolder.create(run.path, apply(smaller, evaluation={"holdout_edges": 0.3}))
    (run.path / "checkpoints").mkdir()
    (run.path / "checkpoints" / "round-000001.json").touch()
    with pytest.raises(RunError, match=r"another configuration.*row_block"):
        RunFolder.create(run.path, atlas)
    again = apply(smaller, training={"row_block": 5, "recompute": True})
    assert RunFolder.create(run.path, again).atlas().training.recompute


def test_a_folder_with_other_things_is_refused(tmp_path, atlas):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("x")
    with pytest.raises(RunError, match="E293"):
        RunFolder.create(tmp_path / "full", atlas)
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["thesis.txt"]


def test_open_refuses_what_is_no_run_and_what_has_another_version(tmp_path, atlas):
    with pytest.raises(RunError, match="E401"):
        RunFolder.open(tmp_path)
    run = RunFolder.create(tmp_path / "one", atlas)
    about = json.loads((run.path / "run.json").read_text())
    for version, advice in ((99, "update musegnn"), (0, "train again")):
        (run.path / "run.json").write_text(json.dumps({**about, "version": version}))
        with pytest.raises(RunError, match=f"E290.*Fix: {advice}"):
            RunFolder.open(run.path)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["run", "none.yaml", "--out", "x"], "E300"),
        (["rnu"], "Did you mean"),
        (["run", "none.yaml"], "--out"),
        (["evaluate", "nowhere"], "E401"),
        (["neighbors", "nowhere", "ACTB"], "E401"),
        (["export", "nowhere", "--format", "csv"], "format"),
        (["neighbors", "nowhere", "ACTB", "--k", "0"], "--k"),
        (["run", "none.yaml", "--out", "x", "--set", "rounds"], "section.name=value"),
        (["run", "none.yaml", "--out", "x", "--set", "a=[1"], "E301"),
    ],
)
def test_mistakes_end_in_one_line_and_exit_code_2(capsys, monkeypatch, tmp_path, arguments, part):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    captured = capsys.readouterr()
    assert stop.value.code == 2
    assert captured.out == ""
    assert captured.err.startswith("musegnn: ")
    assert captured.err.count("\n") == 1
    assert part in captured.err
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_the_trace(tmp_path):
    command = [sys.executable, "-m", "musegnn", "evaluate", str(tmp_path), "--debug"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(cli.__file__).parent.parent)
    assert done.returncode != 0
    assert "Traceback" in done.stderr


def test_doctor_finds_what_is_installed(capsys):
    with pytest.raises(SystemExit):
        cli.main(["doctor", "--json"])
    found = {f["item"]: f for f in json.loads(capsys.readouterr().out)}
    assert found["torch"]["level"] == "ok"
    assert found["python"]["state"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}")


@pytest.mark.parametrize(
    "word", [["--set", b"graph.n_genes=caf\xe9"], ["--set", b"graph.genes=caf\xe9"], [b"--caf\xe9"]]
)
def test_words_that_are_not_utf8_end_in_one_line(tmp_path, atlas, word):
    latin = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [
        sys.executable,
        "-m",
        "musegnn",
        "run",
        str(tmp_path / "atlas.yaml"),
        "--out",
        str(tmp_path / "o"),
        *word,
    ]
    done = subprocess.run(command, capture_output=True, timeout=120, env=os.environ | latin, check=False)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert rb"caf\udce9" in done.stderr
