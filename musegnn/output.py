"""What commands print: text for people, or one JSON object for programs."""

from __future__ import annotations

import json
import logging
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musegnn.error_codes import codes
from musegnn.errors import MuseGNNError, WriteError
from musegnn.text import shorten, some_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pandas import DataFrame

    from musegnn.options import Common
    from musegnn.run_folder import RunFolder


def print_result(common: Common, result: dict[str, Any], text: str) -> None:  # JSON
    """Print a result as text, or as JSON where that was asked for."""
    if common.json:
        print_json(result)
    else:
        print(text)


def print_json(result: object) -> None:
    """Print a value as indented JSON."""
    print(json.dumps(result, indent=2))


def line_of(error: MuseGNNError | OSError | UnicodeEncodeError) -> str:
    """Return an error that ends a command as one line.

    Bytes on the command line that are not UTF-8 reach a program as lone surrogates, which nothing can encode.
    """
    if isinstance(error, MuseGNNError):
        return error.line()
    if isinstance(error, OSError):
        where = error.filename or "files"
        return f"error[E141] {where}: {error.strerror or error}. Fix: check the path, space and permissions."
    text = shorten(error.object[max(0, error.start - 20) : error.end + 20], 60)
    return f"error[E302] {text}: no text in UTF-8. Fix: rename the file, or write the option in UTF-8."


class HeldWarnings(logging.Handler):
    """Keeps warnings with a code until the end of a command, and prints other messages at once."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.setFormatter(logging.Formatter("musegnn: %(levelname)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Keep or print a message."""
        line = record.getMessage()
        if CODED.match(line) is None:
            print(self.format(record), file=sys.stderr)
        elif line not in self.lines:
            self.lines.append(line)


HELD = HeldWarnings()
"""The handler of the command line."""

RESULTS = ("report.html", "summary.json", "embeddings.h5ad", "embeddings.parquet", "evaluation.json", "metrics.jsonl")

CODED = re.compile(r"(?:(?P<before>[^:]+): )?(?P<code>W\d{3}): (?:(?P<after>[\w.-]+): )?")


def warnings_in_words(lines: Iterable[str]) -> list[str]:
    """Return a line per kind of warning: what it means, which datasets it is about, what to do, and where more is.

    Examples
    --------
    >>> warnings_in_words(["a: W274: 60 % of pairs", "b: W274: 70 % of pairs"])
    ['The graph is nearly complete. Set edges.max_degree: 50. (W274: a, b)']
    """
    about: dict[str, list[str]] = {}
    for line in lines:
        if match := CODED.match(line):
            subjects = about.setdefault(match["code"], [])
            name = match["before"] or match["after"]
            if name and name not in subjects:
                subjects.append(name)
    table, found = codes(), []
    for code, subjects in sorted(about.items()):
        said = f"{table[code].meaning} " + ("" if table[code].fix == "Nothing." else f"{table[code].fix} ")
        found.append(f"{said}({code}{': ' if subjects else ''}{some_of(subjects, 6)})")
    return found


def print_run(folder: RunFolder, common: Common) -> None:
    """Print the summary of a finished run, with its warnings and files."""
    about: dict[str, Any] = json.loads(folder.summary.read_text(encoding="utf-8"))
    HELD.lines += [line for line in about["warnings"] if line not in HELD.lines]
    warnings = warnings_in_words(HELD.lines)
    HELD.lines.clear()
    if common.json:
        files = {name: str(folder.path / name) for name in RESULTS}
        print_json({"run": str(folder.path), "files": files, "summary": about["sentences"], "warnings": warnings})
        return
    print("\n".join(["", *about["table"], ""]))
    if warnings:
        print("\n".join(["Worth knowing (`musegnn explain CODE` says more, run.log which numbers):", *warnings, ""]))
    print("\n".join([*about["sentences"], ""]))
    print(f"Results in {shown(folder.path)}: {', '.join(RESULTS)}")
    print(f"Next: open {shown(folder.report)} in a browser, or `musegnn neighbors {shown(folder.path)} GENE`.")


def shown(path: Path) -> str:
    """Return a path relative to the working directory where it is below."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def print_table(
    table: DataFrame, to: Path | None, common: Common, *, shown: DataFrame | None = None, none: str = "nothing found"
) -> None:
    """Write a table to a file where asked for, and print it or the part that is shown."""
    if to is not None:
        from musegnn.data_store.atomic_files import write_file

        text = table.to_csv(sep="\t", index=False, float_format="%.6g", lineterminator="\n")
        write_file(target_file(to, Path("table.tsv")), text)
    shown = table if shown is None else shown
    if common.json:
        print_json(json.loads(shown.to_json(orient="records")))
    else:
        from musegnn.analysis.certainty import with_marks

        marked, legend = with_marks(shown)
        print(marked.to_string(index=False, float_format="%.3g") if len(shown) else none)
        if legend:
            print(legend)
        if to is not None:
            print(f"{len(table)} rows in {to}")


def target_file(to: Path | None, usual: Path) -> Path:
    """Return the file to write to, which is not a folder (E292)."""
    path = to or usual
    if path.is_dir():
        msg = "this is a folder"
        raise WriteError(msg, code="E292", where=str(path), fix=f"name a file such as {usual.name}")
    return path
