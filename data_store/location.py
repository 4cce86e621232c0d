"""Where input lies: a file or folder of this machine, or a URL (``https://``, ``s3://``, ...) that fsspec reads."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from musegnn.errors import InputError, MissingDependencyError
from musegnn.text import one_line, short_path

if TYPE_CHECKING:
    from collections.abc import Iterator

REMOTE_BLOCK = 2 * 2**20
READ_BYTES = 2**20


def is_url(path: Path | str) -> bool:
    """Return whether a path is a URL."""
    return "://" in str(path)


def path_or_url(path: Any) -> Any:  # whatever a user wrote
    """Return text as a path, but that of a URL as it is: a path would lose a slash of it."""
    return Path(path) if isinstance(path, str) and not is_url(path) else path


@dataclass(frozen=True, slots=True)
class Location:
    """A file or folder; compares and pickles by its text."""

    text: str

    @classmethod
    def of(cls, path: Path | str) -> Location:
        """Return the location of a path or URL."""
        text = str(path)
        return cls(text.removeprefix("file://") if text.startswith("file://") else text)

    @property
    def is_remote(self) -> bool:
        """Whether it is a URL."""
        return is_url(self.text)

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.text.rstrip("/").rpartition("/")[2].partition("?")[0] if self.is_remote else Path(self.text).name

    @property
    def path(self) -> Path | str:
        """The path, or the text of a URL."""
        return self.text if self.is_remote else Path(self.text)

    @property
    def where(self) -> str:
        """Short form for messages, without the query of a URL, which may hold keys."""
        return short_path(self.text.partition("?")[0] if self.is_remote else self.text)

    def __truediv__(self, name: str) -> Location:
        """Return what lies below a folder."""
        return Location(f"{self.text.rstrip('/')}/{name}" if self.is_remote else str(Path(self.text) / name))

    @property
    def parent(self) -> Location:
        """The folder around it."""
        return Location(self.text.rstrip("/").rpartition("/")[0] if self.is_remote else str(Path(self.text).parent))

    def is_folder(self) -> bool:
        """Return whether it is a folder."""
        if not self.is_remote:
            return Path(self.text).is_dir()
        if self.text.startswith("http"):  # where asking means to download
            return self.text.endswith(("/", ".zarr"))
        fs, path = self._remote()
        return bool(self._asked(fs.isdir, path))

    def exists(self) -> bool:
        """Return whether there is something."""
        if not self.is_remote:
            return Path(self.text).exists()
        if self.is_folder():
            return True
        try:
            self.stamp()
        except InputError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise
            return False
        return True

    def open(self) -> IO[bytes]:
        """Open the file for reading from any place."""
        if not self.is_remote:
            return Path(self.text).open("rb")
        fs, path = self._remote()
        file: IO[bytes] = self._asked(fs.open, path, "rb", block_size=REMOTE_BLOCK)
        return file

    def children(self) -> list[str]:
        """Return the names in the folder, sorted."""
        if not self.is_remote:
            return sorted(path.name for path in Path(self.text).iterdir())
        fs, path = self._remote()
        names = (str(entry).rstrip("/").rpartition("/")[2] for entry in self._asked(fs.ls, path, detail=False))
        return sorted(name for name in names if name and "?" not in name)

    def files(self) -> list[Location]:
        """Return the file itself, or all files below the folder; E105 for links that leave it."""
        if self.is_remote:
            fs, path = self._remote()
            if not self.is_folder():
                return [self]
            found = sorted(map(str, self._asked(fs.find, path)))
            return [self / entry.removeprefix(path).strip("/") for entry in found]
        root = Path(self.text)
        if not root.is_dir():
            return [self]
        return [Location(path) for path in sorted(_below(root), key=_folders)]

    def stamp(self) -> tuple[int, str]:
        """Return size and a text that changes when the file does: E230 when there is none."""
        if not self.is_remote:
            try:
                stat = os.stat(self.text)  # noqa: PTH116  a folder may have thousands of files
            except FileNotFoundError as error:
                msg = "there is no such file"
                raise InputError(msg, code="E230", where=self.where, fix="correct `path` in the atlas file") from error
            return stat.st_size, str(stat.st_mtime_ns)
        fs, path = self._remote()
        info: dict[str, Any] = self._asked(fs.info, path)  # what it holds differs between file systems
        changed = next((str(info[key]) for key in ("ETag", "mtime", "LastModified", "created") if info.get(key)), "")
        return int(info.get("size") or 0), changed

    def head(self, size: int = 4096) -> bytes:
        """Return the first bytes."""
        with self.open() as file:
            return file.read(size)

    def _remote(self) -> tuple[Any, str]:  # a file system of fsspec, which publishes no types
        try:
            from fsspec.core import url_to_fs

            fs, path = url_to_fs(self.text)
        except ImportError as error:
            package = {"s3": "s3fs", "gs": "gcsfs", "http": "aiohttp", "https": "aiohttp"}
            name = package.get(self.text.partition("://")[0], "fsspec")
            msg = f"reading this URL needs the package {name} ({one_line(error, 60)})"
            raise MissingDependencyError(msg, code="E430", where=self.where, fix=f"pip install {name}") from None
        except ValueError as error:
            msg = f"no such kind of URL ({one_line(error, 60)})"
            raise InputError(msg, code="E230", where=self.where, fix="correct `path` in the atlas file") from None
        return fs, str(path)

    def _asked(self, function: Any, *args: Any, **kwargs: Any) -> Any:  # functions of fsspec
        try:
            return function(*args, **kwargs)
        except Exception as error:  # each file system has its own types, of no common base
            cause = error.__cause__ or error
            kind, status = type(cause).__name__, getattr(cause, "status", None)
            # fsspec says "not found" of all that goes wrong behind http, with the reason as its cause.
            gone = isinstance(cause, FileNotFoundError) or status in {404, 410} or not self.text.startswith("http")
            if isinstance(error, FileNotFoundError) and gone:
                msg = "there is no such file"
                raise InputError(msg, code="E230", where=self.where, fix="correct `path` in the atlas file") from error
            refused = isinstance(error, PermissionError) or status in {401, 403} or "Credential" in kind
            answer = f"({kind})" if status is None else f"({status})"
            msg = f"the server {'refuses access' if refused else 'does not answer'} {answer}"
            fix = "give credentials to fsspec" if refused else "try again, or download the file"
            raise InputError(msg, code="E280", where=self.where, fix=fix) from None


def _folders(path: str) -> list[str]:
    return path.split(os.sep)  # noqa: PTH206  a folder may have thousands of files


def _below(root: Path) -> Iterator[str]:
    whole = root.resolve()
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = f"{folder}{os.sep}{name}"
            if os.path.islink(path) and not Path(path).resolve().is_relative_to(whole):  # noqa: PTH114  thousands
                msg = f"`{name}` is a link out of the folder"
                raise InputError(msg, code="E105", where=short_path(root), fix="copy the file itself into the folder")
        yield from (f"{folder}{os.sep}{name}" for name in files)


def fingerprint(location: Location, files: list[Location]) -> dict[str, Any]:  # JSON
    """Return name, bytes and SHA-256 of a file, or of the names and contents of several."""
    if files == [location]:
        size, digest = _digest(location)
        return {"name": location.name, "bytes": size, "sha256": digest}
    total, whole = 0, hashlib.sha256()
    for file in files:
        size, digest = _digest(file)
        total += size
        below = file.text.startswith(f"{location.text.rstrip('/')}/")
        name = file.text.removeprefix(location.text).strip("/") if below else file.name
        whole.update(f"{name}\0{digest}\n".encode())
    return {"name": location.name, "bytes": total, "sha256": whole.hexdigest()}


def _digest(location: Location) -> tuple[int, str]:
    size, digest = 0, hashlib.sha256()
    with location.open() as file:
        while part := file.read(READ_BYTES):
            size += len(part)
            digest.update(part)
    return size, digest.hexdigest()
