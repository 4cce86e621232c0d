"""The commit layer: a manifest over every file of a build, and references that make a build visible.

A build lies in ``data/<dataset>/<build>/`` and is written once. ``refs/<dataset>/<generation>.json`` is the point of
commit: it is created only after every file it needs is durable, by a create-if-absent, so that of two writers one
wins and a reader sees all of a dataset or nothing.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from musegnn.data_store.atomic_files import put_if_absent, replace_file
from musegnn.data_store.layout import MANIFEST
from musegnn.errors import StoreError, StoreNotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GENERATION = re.compile(r"(\d{12})\.json\Z")
REBUILD = "musegnn store repair, from a copy of the store or from the atlas file"
SAFE_KEY = re.compile(r"(?!/)(?!.*(^|/)\.\.?(/|$))[A-Za-z0-9._/-]+\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """One generation of a dataset: which build it shows."""

    dataset: str
    generation: int
    build: str
    manifest_sha256: str
    parent: int | None
    status: str

    def to_json(self) -> bytes:
        """Encode as the content of the reference file."""
        names = ("build", "manifest_sha256", "parent", "status")
        return canonical_json({name: getattr(self, name) for name in names})


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Every file of a build with its size and SHA-256."""

    files: dict[str, tuple[int, str]]

    def to_json(self) -> bytes:
        """Encode as the content of ``MANIFEST.json``; equal builds give equal bytes."""
        files = {key: list(value) for key, value in sorted(self.files.items())}
        return canonical_json({"files": files, "format": "musegnn-manifest", "version": 1})

    @property
    def n_bytes(self) -> int:
        """Size of all files."""
        return sum(size for size, _ in self.files.values())


def canonical_json(value: object) -> bytes:
    """Encode as UTF-8 JSON with sorted keys and a final newline; NaN is refused."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode() + b"\n"


def digest(data: bytes) -> str:
    """Return the SHA-256 of some bytes as hexadecimal text."""
    return hashlib.sha256(data).hexdigest()


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def references(root: Path, dataset: str) -> list[Reference]:
    """Read all generations of a dataset, oldest first; E130 when one is damaged, so that its build is unknown."""
    folder = root / "refs" / dataset
    if not folder.is_dir():
        return []
    found = sorted(path for path in folder.iterdir() if GENERATION.match(path.name))
    return [read_reference(dataset, path) for path in found]


def newest(root: Path, dataset: str) -> Reference:
    """Return the reference that readers follow; E294 when the dataset was never committed."""
    found = references(root, dataset)
    if not found:
        msg = f"there is no dataset {dataset}"
        raise StoreNotFoundError(msg, code="E294", where=str(root), fix="build it, or see `musegnn store ls`")
    return found[-1]


def read_reference(dataset: str, path: Path) -> Reference:
    """Read one generation of a dataset; E130 when the file is damaged."""
    raw = path.read_bytes()
    try:
        content = json.loads(raw)
        reference = Reference(dataset=dataset, generation=int(path.stem), **content)
        intact = (
            reference.to_json() == raw
            and re.fullmatch(r"[0-9a-f]{64}", reference.manifest_sha256) is not None
            and reference.status in {"ok", "retracted"}
            and SAFE_KEY.match(reference.build) is not None
        )
    except (ValueError, TypeError, RecursionError):
        intact = False
    if not intact:
        msg = f"the reference {path.parent.name}/{path.name} is damaged"
        fix = "musegnn store repair from a copy, or remove it to go back to the generation before"
        raise StoreError(msg, code="E130", where=str(path.parent), fix=fix)
    return reference


def publish(root: Path, dataset: str, build: str, manifest_sha256: str) -> Reference:
    """Make a durable build the newest generation of a dataset.

    Writers hold the lock of the dataset; a create-if-absent decides between hosts that do not share locks.
    """
    while True:
        known = references(root, dataset)
        if known and known[-1].build == build and known[-1].status == "ok":
            return known[-1]
        parent = known[-1].generation if known else None
        reference = Reference(
            dataset=dataset,
            generation=1 if parent is None else parent + 1,
            build=build,
            manifest_sha256=manifest_sha256,
            parent=parent,
            status="ok",
        )
        if put_if_absent(root, reference_path(root, reference), reference.to_json()):
            return reference


def reference_path(root: Path, reference: Reference) -> Path:
    """Return the place of a reference in the store."""
    return root / "refs" / reference.dataset / f"{reference.generation:012d}.json"


def write_log(root: Path, reference: Reference, entry: dict[str, Any]) -> None:  # JSON
    """Note when, where, from which file and by which software a generation was made."""
    replace_file(root, log_path(root, reference), canonical_json({"entry": entry, "sha256": _sum(entry)}))


def read_log(root: Path, reference: Reference) -> dict[str, Any]:  # JSON
    """Return what :func:`write_log` noted, empty when there is no such file; E130 when it is damaged."""
    path = log_path(root, reference)
    if not path.is_file():
        return {}
    raw = path.read_bytes()
    try:
        content = json.loads(raw)
        entry: dict[str, Any] = content if "time" in content else content["entry"]  # stores made before had no sum
        intact = canonical_json(content) == raw and (content is entry or content["sha256"] == _sum(entry))
    except (ValueError, TypeError, KeyError, RecursionError):
        intact = False
    if not intact:
        msg = f"the log {path.parent.name}/{path.name} is damaged"
        raise StoreError(msg, code="E130", where=str(path.parent), fix="remove it: nothing but `info` reads it")
    return entry


def log_path(root: Path, reference: Reference) -> Path:
    """Return the place of the log of a generation in the store."""
    return root / "log" / reference.dataset / f"{reference.generation:012d}.json"


def _sum(entry: dict[str, Any]) -> str:  # JSON
    return digest(canonical_json(entry))


def read_manifest(folder: Path, expected_sha256: str) -> Manifest:
    """Read the manifest of a committed build; E130 when it is missing or not the one that its reference names."""
    try:
        raw = (folder / MANIFEST).read_bytes()
    except FileNotFoundError:
        msg = f"{MANIFEST} is missing"
        raise StoreError(msg, code="E130", where=str(folder), fix=REBUILD) from None
    if digest(raw) != expected_sha256:
        msg = f"{MANIFEST} is not the one that was committed"
        raise StoreError(msg, code="E130", where=str(folder), fix=REBUILD)
    files = {key: (int(size), str(sha256)) for key, (size, sha256) in json.loads(raw)["files"].items()}
    unsafe = [key for key in files if not SAFE_KEY.match(key)]
    if unsafe:
        msg = f"{MANIFEST} names files outside its folder"
        raise StoreError(msg, code="E130", where=str(folder), fix="do not use this store")
    return Manifest(files=files)


def read_file(folder: Path, manifest: Manifest, key: str) -> bytes:
    """Read a file of a build whole, checking its bytes; E131 when they differ, E132 when it is missing."""
    try:
        raw = (folder / key).read_bytes()
    except FileNotFoundError:
        msg = f"{key} is missing"
        raise StoreError(msg, code="E132", where=str(folder), fix=REBUILD) from None
    if key not in manifest.files or digest(raw) != manifest.files[key][1]:
        msg = f"{key} is damaged (SHA-256 differs)"
        raise StoreError(msg, code="E131", where=str(folder), fix=REBUILD)
    return raw


def problems(folder: Path, manifest: Manifest, *, contents: bool) -> Iterator[str]:
    """Yield a line per file of a build that is missing, no plain file, of another size or, by `contents`, altered."""
    for key, (size, sha256) in sorted(manifest.files.items()):
        path = folder / key
        if path.is_symlink() or not path.is_file():
            yield f"{key} is missing" if not path.is_symlink() else f"{key} is a link"
        elif path.stat().st_size != size:
            yield f"{key} has {path.stat().st_size} bytes, expected {size}"
        elif contents and file_digest(path) != sha256:
            yield f"{key} is damaged (SHA-256 differs)"


def foreign_files(folder: Path, manifest: Manifest) -> list[Path]:
    """List files below a build that its manifest does not name."""
    allowed = {folder / key for key in manifest.files} | {folder / MANIFEST}
    return sorted(path for path in folder.rglob("*") if not path.is_dir() and path not in allowed)
