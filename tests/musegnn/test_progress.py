from __future__ import annotations

from types import SimpleNamespace

import pytest

from musegnn import MuSeGNN, progress
from musegnn.progress import TerminalProgress, count_warnings, shorten_warnings
from musegnn.training.diagnostics import Problem


def test_lines_tell_rate_and_time_left(monkeypatch, capsys):
    now = iter([0.0, 4.0, 20.0, 40.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    with TerminalProgress() as told:
        for done in (0, 20, 100, 200):
            told("build one", done, 200, "scan")
    assert capsys.readouterr().err.splitlines() == [
        "build one: 0/200 scan",
        "build one: 100/200 scan, 5/s, 0:20 left",
        "build one: 200/200 scan, 5/s",
    ]


def test_the_rate_of_a_resumed_job_is_that_of_its_new_steps(monkeypatch, capsys):
    now = iter([0.0, 10.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    with TerminalProgress() as told:
        told("train", 900, 1000)
        told("train", 910, 1000)
    assert capsys.readouterr().err.splitlines()[-1] == "train: 910/1000 1/s, 1:30 left"


def test_bars_show_the_same(monkeypatch, capsys):
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True)
    now = iter([0.0, 10.0])
    with TerminalProgress() as told:
        monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
        told("train", 0, 100, "loss 1.0")
        told("train", 50, 100, "loss 0.5")
        monkeypatch.undo()
    shown = capsys.readouterr().err
    assert "50/100" in shown
    assert "5/s, 0:10 left" in shown
    assert "loss 0.5" in shown


NOTEBOOK = """
import threading
from musegnn.progress import TerminalProgress
def work(task):
    for done in range(0, 101, 4):
        progress(task, done, 100, "scan")
with TerminalProgress() as progress:
    workers = [threading.Thread(target=work, args=(f"build {name}",)) for name in ("lung", "brain")]
    for each in workers: each.start()
    for each in workers: each.join()
    progress("train", 0, 0)
"""


def test_a_notebook_shows_one_text_for_all_tasks():
    pytest.importorskip("ipykernel", reason="needs the extra `docs`")
    client = pytest.importorskip("nbclient")
    v4 = pytest.importorskip("nbformat.v4")
    book = v4.new_notebook(cells=[v4.new_code_cell(NOTEBOOK)])
    client.NotebookClient(book, kernel_name="python3", timeout=300).execute()
    (shown,) = book.cells[0].outputs  # nothing on stderr
    lines = shown["data"]["text/plain"].splitlines()
    full = progress.BAR_WIDTH * "\u2588"
    assert sorted(line.split()[:2] for line in lines[:2]) == [["build", "brain"], ["build", "lung"]]
    assert all(f"{full} 100/100 scan" in line for line in lines[:2])
    assert lines[2].split() == ["train", full, "0/0"]


def problems_of(n):
    """Return a warning for each of `n` datasets, every fourth a W503."""
    return [Problem("W501" if k % 4 else "W503", f"a_dataset_with_a_long_name_{k}", "text", "remedy") for k in range(n)]


def test_the_note_of_training_stays_short_with_many_datasets():
    model = MuSeGNN.__new__(MuSeGNN)
    model.config = SimpleNamespace(training=SimpleNamespace(rounds=7))
    rows = [{"loss": 1.0 + k} for k in range(80)]
    model._trainer = SimpleNamespace(problems=lambda: problems_of(80), run=lambda folder, progress: progress(3, rows))
    told = []
    model.train(progress=lambda *words: told.append(words))
    assert told == [("train", 3, 7, "loss 40.5000, warnings: W501 x60, W503 x20 (MuSeGNN.problems())")]


def test_no_warning_no_word():
    assert count_warnings([], details="musegnn status RUN") == ""
    assert shorten_warnings([]) == []


def test_lists_of_warnings_are_cut_per_code():
    lines = sorted(str(problem) for problem in problems_of(80))
    shown = shorten_warnings(lines)
    assert len(shown) == 8
    assert shown[:3] == [line for line in lines if line.startswith("W501")][:3]
    assert shown[3] == "W501: and 57 more"
    assert shown[-1] == "W503: and 17 more"
