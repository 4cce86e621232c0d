"""What an actor has to prove before it gets work."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace

import pytest

from musegnn.cluster import preflight
from musegnn.cluster.preflight import Preflight, gather_evidence
from musegnn.errors import RunError

NAMES = ["d00", "d01"]


@pytest.fixture
def run(helpers, tmp_path, monkeypatch):
    """Return a check of a run folder and a store, and both."""
    monkeypatch.setattr(preflight, "VISIBLE_SECONDS", 0.5)
    store, _ = helpers.make_run(tmp_path, n=2)
    folder = tmp_path / "run"
    folder.mkdir()
    with Preflight(folder, store.path, NAMES) as check:
        yield check, folder, store.path


def judge(check, evidence, name="actor 1", asked=0.0):
    return check.check(evidence, name=name, host="h3 (10.0.0.3)", asked=asked)


def test_an_actor_that_sees_the_same_is_admitted(run):
    check, _, _ = run
    before = time.time()
    assert judge(check, gather_evidence(check.question, "actor 1"), asked=before) is None


def test_a_run_folder_of_another_disk_is_named_with_its_host(run, tmp_path):
    check, folder, _ = run
    other = tmp_path / "other"
    shutil.copytree(folder, other, ignore=shutil.ignore_patterns(check.question.token))
    error = judge(check, gather_evidence(replace(check.question, folder=str(other)), "actor 1"))
    assert isinstance(error, RunError)
    assert error.line().startswith(f"error[E448] h3 (10.0.0.3): {folder}: this host does not see")


def test_what_an_actor_writes_must_come_back(run, tmp_path):
    """A copy of the folder, the token with it, to which the actor writes alone."""
    check, folder, _ = run
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    evidence = gather_evidence(replace(check.question, folder=str(copy)), "actor 1")
    assert evidence.folder_error == ""
    assert "E448" in str(judge(check, evidence))
    assert "is not seen by the command" in str(judge(check, evidence))


def test_a_token_that_appears_late_is_waited_for(run, monkeypatch):
    import threading

    monkeypatch.setattr(preflight, "VISIBLE_SECONDS", 20.0)
    check, folder, _ = run
    token, hidden = folder / preflight.FOLDER / check.question.token, folder / "hidden"
    token.rename(hidden)
    timer = threading.Timer(0.5, hidden.rename, [token])
    timer.start()
    assert gather_evidence(check.question, "actor 1").folder_error == ""
    timer.join()


@pytest.mark.parametrize("kind", ["missing", "older"])
def test_a_store_that_differs_is_named_with_its_host(run, tmp_path, kind):
    check, _, store = run
    other = tmp_path / "other.zarr"
    if kind == "older":
        shutil.copytree(store, other)
        shutil.rmtree(other / "refs" / "d01")
    evidence = gather_evidence(replace(check.question, store=str(other)), "actor 1")
    error = judge(check, evidence)
    assert "E448" in str(error)
    assert f"h3 (10.0.0.3): {store}: " in str(error)
    assert ("holds other builds" in str(error)) == (kind == "older")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"versions": preflight.versions() | {"torch": "1.0"}}, r"E446.*h3.*it has torch 1\.0, the command 2\."),
        ({"clock": time.time() - 3600}, r"E446.*h3.*clock differs by \d+ s"),
        ({"clock": time.time() + 3600}, r"E446.*h3.*clock differs by \d+ s"),
    ],
)
def test_versions_and_clocks_must_agree(run, changes, match):
    import re

    check, _, _ = run
    evidence = replace(gather_evidence(check.question, "actor 1"), **changes)
    assert re.search(match, str(judge(check, evidence, asked=time.time())))


def test_nothing_is_left_in_the_run_folder(helpers, tmp_path):
    store, _ = helpers.make_run(tmp_path, n=2)
    with Preflight(tmp_path / "run", store.path, NAMES) as check:
        gather_evidence(check.question, "actor 1")
    assert list((tmp_path / "run").iterdir()) == []
