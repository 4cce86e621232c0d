from __future__ import annotations

from musegnn import progress
from musegnn.progress import TerminalProgress


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
