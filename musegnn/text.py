"""Short texts for messages and lists."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

SHOWN = 3


def some_of(items: Sequence[str], limit: int = SHOWN) -> str:
    """Return the first few items as a list in words, and how many more there are.

    Examples
    --------
    >>> some_of(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    shown = ", ".join(items[:limit])
    return f"{shown} and {len(items) - limit} more" if len(items) > limit else shown


def shorten(text: str, width: int) -> str:
    """Cut a text from outside for a message, with control characters made visible."""
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    return text if len(text) <= width else text[: width - 3] + "..."


def short_path(path: object) -> str:
    """Return a path for a message, cut on the left when long."""
    text = shorten(str(path), 4096)
    return text if len(text) <= 70 else "..." + text[-67:]


def one_line(error: object, width: int = 300) -> str:
    """Return an error of another library as one line."""
    return shorten(" ".join(str(error).split()), width)


def public_path(path: object) -> str:
    """Return a path or address without the name of a user, passwords and signatures, for a file that may be shared.

    Examples
    --------
    >>> public_path("/Users/anna/data/lung.h5ad"), public_path("s3://key:secret@host/lung.h5ad?sig=1")
    ('~/data/lung.h5ad', 's3://host/lung.h5ad')
    """
    text = str(path)
    if "://" in text:
        scheme, rest = text.split("://", 1)
        host, slash, place = rest.partition("?")[0].partition("/")
        return f"{scheme}://{host.rpartition('@')[2]}{slash}{place}"
    home = str(Path.home())
    if home != "/" and (text == home or text.startswith(home + "/")):
        return "~" + text[len(home) :]
    return re.sub(r"^(?:/home/|/Users/|[A-Za-z]:\\Users\\)[^/\\]+", "~", text)


def read_text(path: Path) -> str:
    """Return the content of a text file that people or spreadsheets write: UTF-8 or marked UTF-16, without the mark."""
    raw = path.read_bytes()
    return raw.decode("utf-16" if raw[:2] in {b"\xff\xfe", b"\xfe\xff"} else "utf-8-sig")


def separator(header: str) -> str:
    """Return the separator of the fields of a table by its first line: a comma, semicolon or tab.

    Examples
    --------
    >>> separator("human;mouse")
    ';'
    """
    return max(",;\t", key=header.count)
