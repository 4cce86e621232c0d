"""The store of co-expression graphs: one folder, write-once builds, atomic commits.

The layout and its promises are written down in ``FORMAT.md`` beside this file.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import platform
import shutil
import socket
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musegnn.data_store import maintenance
from musegnn.data_store.arrays import PROVENANCE, REPORT, read_attributes, read_build, write_build
from musegnn.data_store.atomic_files import (
    TEMPORARY,
    one_writer,
    put_if_absent,
    remove_leftovers,
    sync_folders,
)
from musegnn.data_store.commit import (
    REBUILD,
    Manifest,
    Reference,
    canonical_json,
    digest,
    newest,
    problems,
    publish,
    read_file,
    read_log,
    read_manifest,
    references,
    write_log,
)
from musegnn.data_store.layout import FORMAT, VERSION, check_record
from musegnn.data_store.maintenance import WORK
from musegnn.data_store.names import check_dataset_name
from musegnn.errors import StoreError, StoreNotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from musegnn.data_store.records import DatasetRecord

FORMAT_FILE = "FORMAT.json"
FORMAT_CONTENT = {"created_by": "musegnn", "format": FORMAT, "min_reader": 1, "version": VERSION}
SPLIT = "_split"  # no dataset can have this name
SHOWN = 10
SOFTWARE = ("musegnn", "numpy", "scipy", "numba", "zarr", "numcodecs")


def build_id(fingerprint: dict[str, Any], parameters: dict[str, Any], algorithm: str) -> str:  # JSON
    """Return the name of a build: 32 hexadecimal digits of the SHA-256 of all that its result depends on.

    Parameters
    ----------
    fingerprint
        Fingerprint of the input, e.g. from :meth:`CountSource.fingerprint`.
    parameters
        Parameters of the computation, defaults included.
    algorithm
        Version of the computation.
    """
    return digest(canonical_json([fingerprint, parameters, algorithm]))[:32]


class Store:
    """A folder of committed datasets.

    Make one with :meth:`create`, :meth:`open` or :meth:`open_or_create`. The object holds a path alone: it can be
    pickled and shared by threads and processes, and every call sees what is committed at that moment.

    Raises
    ------
    StoreNotFoundError
        E294 when there is no store.
    StoreError
        E290 when a newer program made it.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path).resolve()
        self._check_format()

    def __repr__(self) -> str:
        names = self.datasets()
        lines = [f"Store({str(self.path)!r}): {len(names)} datasets"]
        for name in names[:SHOWN]:
            about = self.info(name)
            labels = ", ".join(str(about[key]) for key in ("modality", "tissue", "species"))
            lines.append(f"  {name}: {about['n_genes']} genes, {about['n_cells']} cells, {labels}")
        return "\n".join([*lines, *([f"  and {len(names) - SHOWN} more"] if len(names) > SHOWN else [])])

    @classmethod
    def open(cls, path: Path | str) -> Store:
        """Open an existing store."""
        return cls(path)

    @classmethod
    def create(cls, path: Path | str) -> Store:
        """Make a new store in a folder that is empty or does not exist; E293 when it holds something."""
        root = Path(path).resolve()
        occupied = root.exists() and (not root.is_dir() or any(p.name != TEMPORARY for p in root.iterdir()))
        if occupied:
            msg = "there is something in this place already"
            raise StoreError(msg, code="E293", where=str(root), fix="name a new folder")
        made = [folder.parent for folder in root.parents if not folder.exists()]
        put_if_absent(root, root / FORMAT_FILE, canonical_json(FORMAT_CONTENT))
        for folder in {root.parent, *made}:
            sync_folders(folder, [])
        return cls(root)

    @classmethod
    def open_or_create(cls, path: Path | str) -> Store:
        """Open a store, or make one where there is none; E293 when the folder holds something else."""
        return cls.open(path) if (Path(path) / FORMAT_FILE).exists() else cls.create(path)

    def datasets(self) -> list[str]:
        """List the committed datasets by name."""
        return [name for name in self.names() if self.build_of(name) is not None]

    def build_of(self, name: str) -> str | None:
        """Return the committed build of a dataset, or ``None``."""
        known = references(self.path, check_dataset_name(name))
        return known[-1].build if known and known[-1].status == "ok" else None

    def commit(self, record: DatasetRecord, build: str, *, log: dict[str, Any] | None = None) -> None:  # JSON
        """Write a dataset and make it visible, all or nothing.

        Nothing is done when the newest generation shows this build already. A build that a killed process left
        half-written is completed. Equal records give equal bytes everywhere but below ``log/``.

        Parameters
        ----------
        record
            The dataset.
        build
            Its identity, from :func:`build_id`: the same build must always hold the same record.
        log
            Further entries for the log, such as timings: JSON values.

        Raises
        ------
        InputError
            E110 for a name that cannot be a folder.
        ValueError
            When the record is not what :class:`DatasetRecord` promises.
        WriteError
            E140 when the disk is full, E292 when it is not writable; nothing is committed then.
        """
        check_dataset_name(record.name)
        check_dataset_name(build)
        if self.build_of(record.name) == build:
            return
        started = time.time()
        check_record(record)
        with one_writer(self.path, record.name):
            if self.build_of(record.name) == build:
                return
            earlier = [r.manifest_sha256 for r in references(self.path, record.name) if r.build == build]
            folder = self._folder(record.name, build)
            if earlier:
                self._require_intact(folder, earlier[-1], contents=True)
                manifest_sha256 = earlier[-1]
            else:
                remove_leftovers(self.path)
                manifest_sha256 = digest(write_build(self.path, folder, record))
            reference = publish(self.path, record.name, build, manifest_sha256)
        write_log(self.path, reference, _log_entry(started) | (log or {}))

    def read(self, name: str) -> DatasetRecord:
        """Read a dataset, checking every byte on the way.

        Raises
        ------
        StoreNotFoundError
            E294 when it was never committed.
        StoreError
            E130, E131 or E132 naming what is damaged or missing; damaged data are never returned.
        """
        _, folder, manifest = self._open(name, contents=True)
        return read_build(folder, manifest)

    def info(self, name: str) -> dict[str, Any]:  # JSON
        """Return the labels, sizes, build, generation and bytes on disk of a dataset, without reading its arrays."""
        reference, folder, manifest = self._open(name)
        return read_attributes(folder, manifest) | {
            "build": reference.build,
            "generation": reference.generation,
            "bytes": manifest.n_bytes,
        }

    def report(self, name: str) -> dict[str, Any]:  # JSON
        """Return what was dropped and why, warnings and estimated parameters, without reading arrays."""
        _, folder, manifest = self._open(name)
        result: dict[str, Any] = json.loads(read_file(folder, manifest, REPORT))
        return result

    def provenance(self, name: str) -> dict[str, Any]:  # JSON
        """Return where a dataset comes from, without reading arrays.

        Returns
        -------
        dict
            ``input``: name, size and SHA-256 of the file of counts; ``parameters``: settings, defaults included;
            ``algorithm``: version of the computation; ``log``: time, host and software of the commit, and the path of
            the file without names of users; empty when no log is left.
        """
        reference, folder, manifest = self._open(name)
        result: dict[str, Any] = json.loads(read_file(folder, manifest, PROVENANCE))
        return result | {"log": read_log(self.path, reference)}

    def verify(self, name: str | None = None) -> list[str]:
        """Compare every byte of every generation of a dataset, or of all, with what was committed.

        Returns
        -------
        list of str
            One line per problem; empty when all is well.
        """
        if name is not None and check_dataset_name(name) not in self.names():
            self._newest(name)
        names = self.names() if name is None else [name]
        return [*self._verify_format(), *(line for dataset in names for line in maintenance.verify(self.path, dataset))]

    def repair(self, source: Store, name: str | None = None) -> list[str]:
        """Replace what is damaged of a dataset, or of all, by files of another store that have the committed bytes.

        The other store is a copy, or holds a new build of the same counts with the same settings.

        Returns
        -------
        list of str
            Files that were written or removed, relative to the store.

        Raises
        ------
        StoreError
            E133 when the other store does not hold the committed bytes.
        """
        names = self.names() if name is None else [name]
        return [line for dataset in names for line in maintenance.repair(self.path, dataset, source.path)]

    def copy(self, target: Store, names: Sequence[str] | None = None) -> list[str]:
        """Commit datasets, by default all, to another store, checking every byte; return those it did not have."""
        chosen = self.datasets() if names is None else names
        return [name for name in chosen if maintenance.copy(self.path, self._newest(name).dataset, target.path)]

    def workspace(self, name: str, build: str, *, keep: bool = False) -> AbstractContextManager[Path]:
        """Return a folder for the unfinished files of one build, which no reader of the store sees.

        One process or thread at a time has one of this dataset. It is removed when the block ends without an error,
        unless `keep` says that another block goes on there, and kept otherwise, so that the next try finds what was
        done.
        """
        return self._work(check_dataset_name(name), build, keep=keep)

    def clear_workspace(self, name: str, build: str) -> None:
        """Remove what a process that was killed between its last step and its end left of a workspace."""
        self._clear_work(check_dataset_name(name), build)

    def split_workspace(self, identity: str) -> AbstractContextManager[Path]:
        """Return a folder for the copy of one file's counts, which several builds share; else as :meth:`workspace`.

        Each `identity`, what the copy depends on from :func:`build_id`, has a lock of its own. Who needs several at a
        time enters them in ascending order, so that two processes never wait for each other.
        """
        return self._work(SPLIT, identity)

    def clear_split(self, identity: str) -> None:
        """Remove what a process that was killed left of a split; as :meth:`clear_workspace`."""
        self._clear_work(SPLIT, identity)

    @contextmanager
    def _work(self, name: str, build: str, *, keep: bool = False) -> Iterator[Path]:
        folder = self._work_folder(name, build)
        with one_writer(self.path, _work_lock(name, build)):
            folder.mkdir(parents=True, exist_ok=True)
            yield folder
            if not keep:
                _remove_work(folder)

    def _clear_work(self, name: str, build: str) -> None:
        folder = self._work_folder(name, build)
        if folder.exists():
            with one_writer(self.path, _work_lock(name, build)):
                _remove_work(folder)

    def _work_folder(self, name: str, build: str) -> Path:
        return self.path / TEMPORARY / WORK / name / check_dataset_name(build)

    def gc(self, *, grace_hours: float = 24.0, dry_run: bool = True) -> list[str]:
        """Remove builds that no reference shows, and unfinished files.

        Parameters
        ----------
        grace_hours
            Keep what was changed more recently: a running build may own it.
        dry_run
            Whether to list only.

        Returns
        -------
        list of str
            Folders and files, relative to the store, that were (or would be) removed.
        """
        garbage = maintenance.garbage(self.path, grace_hours)
        for path in [] if dry_run else garbage:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        return [path.relative_to(self.path).as_posix() for path in garbage]

    def names(self) -> list[str]:
        """List all datasets that were ever committed, retracted and damaged ones too."""
        folder = self.path / "refs"
        return sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []

    def _folder(self, name: str, build: str) -> Path:
        return maintenance.build_folder(self.path, name, build)

    def _open(self, name: str, *, contents: bool = False) -> tuple[Reference, Path, Manifest]:
        reference = self._newest(name)
        folder = self._folder(name, reference.build)
        return reference, folder, self._require_intact(folder, reference.manifest_sha256, contents=contents)

    def _newest(self, name: str) -> Reference:
        reference = newest(self.path, check_dataset_name(name))
        if reference.status != "ok":
            msg = f"dataset {name} was retracted in generation {reference.generation}"
            raise StoreNotFoundError(msg, code="E294", where=str(self.path), fix="build it again")
        return reference

    def _require_intact(self, folder: Path, manifest_sha256: str, *, contents: bool) -> Manifest:
        manifest = read_manifest(folder, manifest_sha256)
        found = list(problems(folder, manifest, contents=contents))
        if found:
            more = f" and {len(found) - 1} more" if len(found) > 1 else ""
            code = "E132" if found[0].endswith("is missing") else "E131"
            raise StoreError(found[0] + more, code=code, where=str(folder), fix=REBUILD)
        return manifest

    def _verify_format(self) -> Iterator[str]:
        if (self.path / FORMAT_FILE).read_bytes() != canonical_json(FORMAT_CONTENT):
            yield f"{FORMAT_FILE} is damaged, or of a version after {VERSION}"

    def _check_format(self) -> None:
        path = self.path / FORMAT_FILE
        try:
            content = json.loads(path.read_bytes())
            kind, needed = content["format"], int(content["min_reader"])
        except FileNotFoundError:
            msg = "there is no musegnn store"
            fix = "name the folder made by `musegnn build` or `musegnn run` (RUN/store.zarr)"
            raise StoreNotFoundError(msg, code="E294", where=str(self.path), fix=fix) from None
        except (ValueError, KeyError, TypeError):
            msg = f"{FORMAT_FILE} is damaged"
            raise StoreError(msg, code="E130", where=str(self.path), fix="restore it from a copy") from None
        if kind != FORMAT:
            msg = f"expected format {FORMAT}, got {kind}"
            raise StoreError(msg, code="E293", where=str(self.path), fix="name a musegnn store")
        if needed > VERSION:
            msg = f"the store needs a reader of version {needed}, this program reads version {VERSION}"
            raise StoreError(msg, code="E290", where=str(self.path), fix="use a newer musegnn")


def _work_lock(name: str, build: str) -> str:
    """Name the lock of a workspace: one per dataset, and one per split. No dataset's own lock starts like this."""
    return f"_{WORK}-{build}" if name == SPLIT else f"_{WORK}-{name}"


def _remove_work(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):  # not empty
        folder.parent.rmdir()


def _log_entry(started: float) -> dict[str, Any]:  # JSON
    return {
        "time": datetime.datetime.fromtimestamp(started, datetime.UTC).isoformat(timespec="seconds"),
        "commit_seconds": round(time.time() - started, 3),
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "software": {name: version for name in SOFTWARE if (version := _version(name))},
    }


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
