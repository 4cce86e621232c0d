"""Upkeep of a store: find damage, mend it from another store, copy datasets, find what nobody needs any more.

Every function takes the folder of a store; ``Store`` has methods of these names.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from musegnn.data_store.arrays import read_build
from musegnn.data_store.atomic_files import PARTIAL, TEMPORARY, one_writer, replace_file, sync_folders
from musegnn.data_store.commit import (
    GENERATION,
    REBUILD,
    foreign_files,
    newest,
    problems,
    publish,
    read_file,
    read_log,
    read_manifest,
    read_reference,
    references,
    write_log,
)
from musegnn.data_store.layout import MANIFEST
from musegnn.data_store.names import check_dataset_name
from musegnn.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from musegnn.data_store.commit import Manifest, Reference

WORK = "work"


def verify(root: Path, name: str) -> Iterator[str]:
    """Compare every byte of every generation of a dataset with what was committed; yield a line per problem."""
    try:
        known = references(root, check_dataset_name(name))
    except StoreError as error:
        yield f"{name}: {error.message}"
        return
    for reference, parent in zip(known, [None, *(r.generation for r in known)], strict=False):
        if reference.parent != parent:
            yield f"{name}: generation {reference.generation} does not follow generation {parent}"
        try:
            read_log(root, reference)
        except StoreError as error:
            yield f"{name}: {error.message}"
    for build, manifest_sha256 in sorted({(r.build, r.manifest_sha256) for r in known}):
        folder = build_folder(root, name, build)
        try:
            manifest = read_manifest(folder, manifest_sha256)
            found = list(problems(folder, manifest, contents=True))
            if not found:
                read_build(folder, manifest)
        except StoreError as error:
            found = [error.message]
        else:
            found += [f"{p.relative_to(folder)} does not belong here" for p in foreign_files(folder, manifest)]
        yield from (f"{name}/{build}: {line}" for line in found)


def repair(root: Path, name: str, source: Path) -> list[str]:
    """Replace what is damaged or missing of a dataset by the files of another store that have the committed bytes.

    A damaged reference is replaced by the one of the same generation. Files that belong to no build are removed.

    Returns
    -------
    list of str
        Files that were written or removed, relative to the store.

    Raises
    ------
    StoreError
        E133 when the other store does not hold the committed bytes; what it does hold is mended.
    """
    check_dataset_name(name)
    mended: list[Path] = []
    lost: list[str] = []
    with one_writer(root, name):
        known = _repair_references(root, name, source, mended)
        for build, manifest_sha256 in sorted({(r.build, r.manifest_sha256) for r in known}):
            folder, other = build_folder(root, name, build), build_folder(source, name, build)
            manifest = _repair_manifest(root, folder, other, manifest_sha256, mended)
            for key in (line.split(" ", 1)[0] for line in list(problems(folder, manifest, contents=True))):
                try:
                    raw = read_file(other, manifest, key)
                except StoreError:
                    lost.append(f"{build}/{key}")
                    continue
                _replace(root, folder / key, raw, mended)
            for path in foreign_files(folder, manifest):
                path.unlink()
                mended.append(path)
        sync_folders(root, {path.parent for path in mended})
    if lost:
        msg = f"{len(lost)} files of {name} are not whole there either (first: {lost[0]})"
        raise StoreError(msg, code="E133", where=str(source), fix="give a copy of this store, or build it again")
    return [path.relative_to(root).as_posix() for path in mended]


def copy(root: Path, name: str, target: Path) -> bool:
    """Commit the newest generation of a dataset to another store, checking every byte; return whether it was new."""
    reference = newest(root, check_dataset_name(name))
    folder, place = build_folder(root, name, reference.build), build_folder(target, name, reference.build)
    manifest = read_manifest(folder, reference.manifest_sha256)
    there = references(target, name)
    if there and there[-1].build == reference.build:
        return False
    with one_writer(target, name):
        for key in manifest.files:
            replace_file(target, place / key, read_file(folder, manifest, key))
        replace_file(target, place / MANIFEST, manifest.to_json())
        for path in foreign_files(place, manifest):
            path.unlink()
        sync_folders(target, {(place / key).parent for key in manifest.files})
        published = publish(target, name, reference.build, reference.manifest_sha256)
    log = read_log(root, reference)
    if log:
        write_log(target, published, log)
    return True


def garbage(root: Path, grace_hours: float) -> list[Path]:
    """List builds that no reference shows, and unfinished files, that nobody changed within so many hours."""
    limit = time.time() - 3600.0 * grace_hours
    found = []
    for folder in sorted((root / "data").glob("*/*")):
        shown = {reference.build for reference in references(root, folder.parent.name)}
        if folder.name not in shown and _last_change(folder) < limit:
            found.append(folder)
    found += [p for p in sorted((root / TEMPORARY).glob(f"*{PARTIAL}")) if p.stat().st_mtime < limit]
    found += [p for p in sorted((root / TEMPORARY / WORK).glob("*/*")) if _last_change(p) < limit]
    return found


def build_folder(root: Path, name: str, build: str) -> Path:
    """Return the place of a build in the store."""
    return root / "data" / name / build


def _repair_references(root: Path, name: str, source: Path, mended: list[Path]) -> list[Reference]:
    place, other = root / "refs" / name, source / "refs" / name
    for path in sorted(place.iterdir() if place.is_dir() else ()):
        if not GENERATION.match(path.name):
            continue
        try:
            read_reference(name, path)
        except StoreError as error:
            copied = other / path.name
            if not copied.is_file():
                msg = f"the damaged reference {name}/{path.name} has no copy"
                raise StoreError(msg, code="E133", where=str(source), fix=error.fix) from error
            _replace(root, path, read_reference(name, copied).to_json(), mended)
    return references(root, name)


def _repair_manifest(root: Path, folder: Path, other: Path, expected: str, mended: list[Path]) -> Manifest:
    try:
        return read_manifest(folder, expected)
    except StoreError:
        try:
            manifest = read_manifest(other, expected)
        except StoreError as error:
            msg = f"{MANIFEST} of build {folder.name} is not the committed one there either"
            raise StoreError(msg, code="E133", where=str(other.parent), fix=REBUILD) from error
        _replace(root, folder / MANIFEST, (other / MANIFEST).read_bytes(), mended)
        return manifest


def _replace(root: Path, path: Path, raw: bytes, mended: list[Path]) -> None:
    if path.is_symlink():
        path.unlink()
    replace_file(root, path, raw)
    mended.append(path)


def _last_change(folder: Path) -> float:
    return max(path.lstat().st_mtime for path in [folder, *folder.rglob("*")])
