"""Turn what pydantic finds wrong with settings into the error E302: one line, with the setting that was meant."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from musegnn.errors import ConfigError
from musegnn.text import shorten

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

LISTED = 3


def setting_error(error: ValidationError, model: type[BaseModel], *, where: str = "") -> ConfigError:
    """Return the error E302 that names each setting of `model` that does not fit, three at most.

    A setting that is missing and one of nearly its name that is unknown count as one: a misspelling.
    """
    found = error.errors(include_url=False)
    inside = {each["loc"][:k] for each in found for k in range(len(each["loc"]))}
    found = [each for each in found if each["type"] != "too_short" or each["loc"] not in inside]  # lost its wrong items
    lines, fixes = [], []
    misspelt: set[tuple[int | str, ...]] = set()
    for each in found:
        if each["type"] == "extra_forbidden":
            line, fix, meant = _unknown(each, model)
            lines.append(line)
            fixes.append(fix)
            misspelt.add((*each["loc"][:-1], meant))
    for each in found:
        if each["type"] != "extra_forbidden" and not (each["type"] == "missing" and each["loc"] in misspelt):
            line, fix = _wrong(each)
            lines.append(line)
            fixes.append(fix)
    more = f"; {len(lines) - LISTED} more" if len(lines) > LISTED else ""
    return ConfigError("; ".join(lines[:LISTED]) + more, code="E302", where=where, fix=fixes[0])


def close_word(word: str, words: list[str]) -> str:
    """Return the one of some words that a misspelt word most likely means; empty where none is near.

    Examples
    --------
    >>> close_word("Gene_Names", ["gene_names", "n_cells"]), close_word("x", ["gene_names"])
    ('gene_names', '')
    """
    folded = {each.casefold(): each for each in reversed(words)}
    near = get_close_matches(word.casefold(), list(folded), n=1, cutoff=0.6)
    return folded[near[0]] if near else ""


def _unknown(each: ErrorDetails, model: type[BaseModel]) -> tuple[str, str, str]:
    *parents, last = each["loc"]
    known = _settings(model, parents)
    meant = close_word(str(last), known)
    section = ".".join(str(part) for part in parents) or "the top level"
    line = f"`{_place(each)}` is no setting"
    if meant:
        return f"{line}: did you mean `{meant}`?", f"write `{meant}`", meant
    elsewhere = _sections_with(model, str(last))
    if elsewhere:
        return f"{line}: did you mean `{elsewhere[0]}`?", f"write it as `{elsewhere[0]}`", ""
    return f"{line} of {section} (settings: {', '.join(known)})", "remove it, or name one of the settings", ""


def _wrong(each: ErrorDetails) -> tuple[str, str]:
    place = _place(each)
    if each["type"] == "missing":
        return f"`{place}` is missing", f"add `{each['loc'][-1]}`"
    words = "expected at least one" if each["type"] == "too_short" else each["msg"].removeprefix("Value error, ")
    choices = str(each.get("ctx", {}).get("expected", ""))
    got = "" if isinstance(each["input"], (dict, BaseModel)) else f" (got {shorten(repr(each['input']), 60)})"
    meant = close_word(str(each["input"]), [choice.strip(" '") for choice in choices.replace(" or ", ",").split(",")])
    fix = f"write `{each['loc'][-1]}: {meant}`" if meant else f"correct `{place}`"
    return f"`{place}`: {words}{got}", fix


def _place(each: ErrorDetails) -> str:
    return ".".join(str(part) for part in each["loc"]) or "top level"


def _settings(model: type[BaseModel], parents: list[int | str]) -> list[str]:
    """List the settings of the section at some place."""
    for part in parents:
        if isinstance(part, int) or part not in model.model_fields:
            continue
        inner = _section(model.model_fields[part].annotation)
        if inner is None:
            return []
        model = inner
    return list(model.model_fields)


def _sections_with(model: type[BaseModel], name: str, prefix: str = "") -> list[str]:
    """Return the dotted places of a setting, however deep."""
    found = []
    for key, about in model.model_fields.items():
        place = f"{prefix}{key}"
        if key == name:
            found.append(place)
        inner = _section(about.annotation)
        if inner is not None and key != "datasets":
            found += _sections_with(inner, name, f"{place}.")
    return found


def _section(annotation: Any) -> type[BaseModel] | None:  # a type of any form
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in getattr(annotation, "__args__", ()) if (found := _section(part)) is not None), None)
