"""Text files from outside: UTF-8, plain or gzip whatever their name, with what is damaged refused by one line."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

from musegnn.errors import InputError
from musegnn.text import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from musegnn.data_store.location import Location

GZIP = b"\x1f\x8b"
BOM = b"\xef\xbb\xbf"
BUFFER = 2**20


@contextmanager
def open_text(location: Location) -> Iterator[io.BufferedReader]:
    """Open a text file for reading bytes from its start, decompressed where it is gzip by its content.

    Raises
    ------
    InputError
        E231 when the compressed file is truncated or damaged.
    """
    try:
        with location.open() as file:
            packed = file.read(2) == GZIP
            file.seek(0)
            raw: Any = gzip.GzipFile(fileobj=file) if packed else _Raw(file)  # which is a raw stream in all but name
            with io.BufferedReader(raw, BUFFER) as reader:
                if reader.peek(3)[:3] == BOM:
                    reader.read(3)
                yield reader
    except EOFError:
        msg = "the compressed file ends early"
        raise InputError(msg, code="E231", where=location.where, fix="copy or download the file again") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        msg = f"the compressed file is damaged ({one_line(error, 60)})"
        raise InputError(msg, code="E231", where=location.where, fix="copy or download the file again") from None


class _Raw(io.RawIOBase):
    """A binary file of any kind as a raw one."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # a writable buffer, a type of later Pythons
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def read_lines(location: Location) -> list[str]:
    """Read the lines of a small table that are not blank.

    Raises
    ------
    InputError
        E240 for a line that is not UTF-8.
    """
    with open_text(location) as file:
        raw = file.read()
    try:
        return [line for line in raw.decode("utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        number = raw.count(b"\n", 0, error.start) + 1
        msg = f"line {number} is not UTF-8"
        raise InputError(msg, code="E240", where=location.where, fix="write the file as UTF-8") from None


def split_lines(lines: list[str]) -> list[list[str]]:
    """Return the fields of each line, which are separated by tabs, else commas."""
    return list(csv.reader(lines, delimiter="\t" if lines and "\t" in lines[0] else ","))


def sniff_delimiter(line: str) -> str:
    """Return the delimiter of a line: the most frequent of comma, tab, semicolon and space."""
    return max(",\t; ", key=line.count)
