"""The datasets of an atlas as users list them: defaults, wildcards and sample sheets."""

from __future__ import annotations

import csv
import logging
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musegnn.config import IN_MEMORY, DatasetConfig
from musegnn.data_store.location import is_url
from musegnn.data_store.strata import slug
from musegnn.errors import ConfigError
from musegnn.setting_errors import close_word
from musegnn.text import one_line, read_text, separator, shorten, some_of

if TYPE_CHECKING:
    from collections.abc import Mapping

logger = logging.getLogger(__name__)

Entry = dict[str, Any]  # settings of one dataset, as YAML or Python holds them
SHEETS = (".csv", ".tsv")
WILDCARDS = re.compile(r"[*?\[]")


def list_datasets(data: Mapping[str, Any], base: Path, *, where: str) -> dict[str, Any]:
    """Write out the datasets of an atlas as plain data, one entry with a name and an absolute path each.

    ``datasets`` is a list of entries, a mapping of names to entries, or the path of a sample sheet. An entry is a
    mapping of settings, a path, or an AnnData object. ``defaults`` are settings of all datasets that say nothing else.
    A path may start with ``~``, hold environment variables, and hold wildcards, which give a dataset per file.

    Parameters
    ----------
    base
        Folder to which paths are relative; those of a sample sheet are relative to the sheet.

    Raises
    ------
    ConfigError
        E300 when a sheet cannot be read or no file fits, E302 for settings that are unknown.
    """
    data = dict(data)
    defaults = data.pop("defaults", None) or {}
    if not isinstance(defaults, dict):
        msg = "`defaults`: expected settings of datasets, such as species: human"
        raise ConfigError(msg, code="E302", where=where, fix="write `defaults: {species: human}`")
    _refuse_unknown(defaults, where)
    entries = data.get("datasets")
    if isinstance(entries, (str, Path)):
        sheet = expand_path(entries, base)
        entries, base = read_sheet(sheet), sheet.parent
    if isinstance(entries, dict):
        entries = [{"name": str(name)} | _as_entry(entry) for name, entry in entries.items()]
    if isinstance(entries, (list, tuple)):
        data["datasets"] = [each for entry in entries for each in _files_of(defaults | _as_entry(entry), base, where)]
    return data


def read_sheet(path: Path) -> list[Entry]:
    """Read a sample sheet, CSV or TSV in UTF-8: a header with names of settings, and a row per dataset.

    Empty fields and rows say nothing. A column that is nearly a setting is refused; others are left out with a line in
    the log.
    """
    fix = "give a CSV or TSV with a header such as name,path,modality,tissue,species"
    try:
        text = read_text(path).lstrip()
    except (OSError, UnicodeDecodeError) as error:
        msg = f"the sample sheet cannot be read ({one_line(error)})"
        raise ConfigError(msg, code="E300", where=str(path), fix=fix) from None
    first = text.partition("\n")[0]
    rows = list(csv.reader(text.splitlines(), delimiter=separator(first)))
    header = [name.strip() for name in rows[0]] if rows else []
    if "path" not in header:
        _refuse_unknown(dict.fromkeys(header), str(path))
        msg = f"the sample sheet has no column `path` (columns: {some_of(header, 6) or 'none'})"
        raise ConfigError(msg, code="E302", where=str(path), fix=fix)
    known = [name in DatasetConfig.model_fields for name in header]
    unused = [name for name, is_known in zip(header, known, strict=True) if not is_known]
    _refuse_unknown({name: None for name in unused if close_word(name, list(DatasetConfig.model_fields))}, str(path))
    if unused:
        logger.info("%s: columns that are no settings are not used: %s", path.name, some_of(unused, 6))
    entries = []
    for number, row in enumerate(rows[1:], start=2):
        if len(row) > len(header):
            msg = f"line {number} has {len(row)} fields, the header {len(header)}"
            raise ConfigError(msg, code="E300", where=str(path), fix="quote fields that hold the delimiter")
        values = zip(header, known, row, strict=False)
        entry = {name: value.strip() for name, is_known, value in values if is_known and value.strip()}
        if entry:
            entries.append(entry)
    return entries


def expand_path(path: str | Path, base: Path) -> Path:
    """Return an absolute path, with ``~`` and environment variables replaced; E302 for a variable that is not set."""
    text = os.path.expandvars(os.fspath(path))
    missing = re.search(r"\$(\w+|\{\w+\})", text)
    if missing and not (base / text).exists():
        msg = f"the variable {missing[0]} in `{shorten(os.fspath(path), 80)}` is not set"
        raise ConfigError(msg, code="E302", where="path", fix=f"set {missing[0].strip('${}')} or write the path out")
    return base / Path(text).expanduser()


def _as_entry(entry: Any) -> Entry:  # whatever a user wrote
    return dict(entry) if isinstance(entry, dict) else {"path": entry}


def _files_of(entry: Entry, base: Path, where: str) -> list[Entry]:
    """Return one entry per file that the path of an entry means."""
    path = entry.get("path")
    if isinstance(entry.get("annotation"), str):
        entry = entry | {"annotation": expand_path(entry["annotation"], base)}
    if not isinstance(path, (str, Path)) or Path(path) == IN_MEMORY or is_url(path):
        return [entry]
    whole = expand_path(path, base)
    if WILDCARDS.search(str(whole)) is None or whole.exists():
        return [{"name": name_of_file(whole)} | entry | {"path": whole}]
    root = Path(whole.anchor)
    files = sorted(root.glob(str(whole.relative_to(root))))
    if not files:
        msg = f"no file fits `{shorten(str(path), 120)}`"
        raise ConfigError(msg, code="E300", where=where, fix="correct `path`")
    prefix = f"{entry['name']}." if "name" in entry else ""
    return [entry | {"name": prefix + name_of_file(file), "path": file} for file in files]


def name_of_file(path: Path) -> str:
    """Return the name of a file without its endings as a name of a dataset."""
    stem = re.sub(r"(\.(h5ad|h5mu|h5|zarr|loom|csv|tsv|txt|mtx|gz))+$", "", path.name, flags=re.IGNORECASE)
    return slug(stem).lstrip("._-") or "dataset"


def _refuse_unknown(settings: Mapping[str, Any], where: str) -> None:
    known = list(DatasetConfig.model_fields)
    for name in settings:
        if name not in known:
            meant = close_word(str(name), known)
            msg = f"`{shorten(str(name), 40)}` is no setting of datasets"
            msg += f": did you mean `{meant}`?" if meant else f" (settings: {', '.join(known)})"
            raise ConfigError(msg, code="E302", where=where, fix=f"write `{meant}`" if meant else "remove it")
