"""Short texts for messages and lists."""

from __future__ import annotations

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
