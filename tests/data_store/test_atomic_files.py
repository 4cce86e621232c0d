"""The one way in which files are written: whole, and durable before anything relies on them."""

import os
import re
from pathlib import Path

import pytest

from musegnn.data_store import atomic_files
from musegnn.data_store.atomic_files import atomic_file, write_file
from musegnn.errors import InputError, WriteError


@pytest.fixture
def calls(monkeypatch):
    """Record which files and folders are synchronised, and which file is renamed, in order."""
    seen = []
    fsync, replace = os.fsync, Path.replace

    def synced(descriptor):
        seen.append(("fsync", Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    def renamed(self, target):
        seen.append(("rename", Path(target)))
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    return seen


def test_a_file_is_synchronised_before_it_has_its_name_and_its_folder_after(tmp_path, calls):
    path = tmp_path / "new" / "folder" / "file.json"
    write_file(path, "é")
    assert path.read_bytes() == "é".encode()
    (first, aside), (second, place), *folders = calls
    assert (first, second, place, aside.parent) == ("fsync", "rename", path, path.parent)
    assert {folder for _, folder in folders} == {path.parent, path.parent.parent, tmp_path}
    assert [p.name for p in path.parent.iterdir()] == ["file.json"]


@pytest.mark.parametrize(("error", "code"), [(OSError(28, "full"), "E140"), (OSError(13, "no"), "E292")])
def test_what_fails_is_explained_and_leaves_the_old_file(tmp_path, error, code):
    path = tmp_path / "file"
    path.write_text("old")

    def fail():
        with atomic_file(path) as aside:
            aside.write_text("half")
            raise error

    with pytest.raises(WriteError, match=f"{code}.*file"):
        fail()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_an_error_of_the_content_is_passed_on(tmp_path):
    error = InputError("NaN", code="E204")
    with pytest.raises(InputError, match="E204"), atomic_file(tmp_path / "file"):
        raise error
    assert list(tmp_path.iterdir()) == []


def test_nobody_else_renames_or_synchronises_files():
    root = Path(atomic_files.__file__).resolve().parent.parent
    pattern = re.compile(r"fsync\(|os\.(?:replace|rename)\(|[\"'.]partial[\"']")
    hits = {
        path.relative_to(root).as_posix()
        for folder in ("musegnn", "cluster", "data_store", "kernels")
        for path in (root / folder).rglob("*.py")
        if pattern.search(path.read_text())
    }
    assert hits == {"data_store/atomic_files.py"}
