"""Codes of errors and warnings: one table, one meaning each, and a page that is up to date."""

import ast
import pickle
import re
from collections import Counter
from pathlib import Path

import pytest

from musegnn import error_codes, errors
from musegnn.errors import InputError, MuseGNNError, StoreNotFoundError, WriteError, version_fix

ROOT = Path(errors.__file__).resolve().parent.parent
CODE = re.compile(r"\b[EW]\d{3}\b")
TABLE = error_codes.codes()


def sources():
    for folder in ("musegnn", "kernels", "cluster", "data_store"):
        yield from (p for p in sorted((ROOT / folder).rglob("*.py")) if p.name != "error_codes.py")


def raised(path):
    """Return the class and code of every error that is made with a literal code."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            codes = [k.value for k in node.keywords if k.arg == "code"]
            if codes and isinstance(node.func, ast.Name) and isinstance(codes[0], ast.Constant):
                yield node.func.id, codes[0].value


def without_docstrings(path):
    """Return the strings of a module but those that stand alone."""
    tree = ast.parse(path.read_text())
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    constants = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in alone)
    return " ".join(node.value for node in constants if isinstance(node.value, str))


def test_the_page_is_up_to_date():
    assert (ROOT / "docs" / "errors.md").read_text(encoding="utf-8") == error_codes.page()


def test_every_code_has_one_meaning():
    assert len(TABLE) == len(error_codes._TABLE.strip().splitlines())
    assert [m for m, n in Counter(row.meaning for row in TABLE.values() if row.code[0] == "E").items() if n > 1] == []


def test_every_code_that_is_named_is_in_the_table():
    unknown = {f"{p.relative_to(ROOT)}: {code}" for p in sources() for code in CODE.findall(p.read_text())}
    assert {name for name in unknown if name[-4:] not in TABLE} == set()
    pages = [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "data_store" / "FORMAT.md"]
    assert {code for p in pages for code in CODE.findall(p.read_text())} <= TABLE.keys()


def test_every_code_of_the_table_is_in_use():
    used = {code for p in sources() for code in CODE.findall(without_docstrings(p))}
    assert TABLE.keys() - used == set()


def test_every_code_is_raised_by_its_class():
    found = {(cls, code) for p in sources() for cls, code in raised(p)}
    assert len(found) > 50
    assert {(cls, code) for cls, code in found if cls not in TABLE[code].classes and cls.endswith("Error")} == set()


def test_no_code_branches_on_the_text_of_a_code():
    hits = [f"{p.relative_to(ROOT)}" for p in sources() if re.search(r"\.code (==|!=|in|not in) ", p.read_text())]
    assert hits == []


def test_errors_survive_a_process_boundary():
    error = InputError("expected integers, got 0.5", code="E201", where="x.h5ad", fix="--layer counts")
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, ValueError)
    assert again.line() == error.line() == "error[E201] x.h5ad: expected integers, got 0.5. Fix: --layer counts."
    for cls in (StoreNotFoundError, WriteError):
        again = pickle.loads(pickle.dumps(cls("no store", code="E1")))
        assert str(again) == "error[E1] no store."
        assert isinstance(again, MuseGNNError)
    assert issubclass(StoreNotFoundError, FileNotFoundError)
    assert issubclass(WriteError, OSError)


@pytest.mark.parametrize(("found", "advice"), [(1, "wrote it"), (3, "update musegnn"), ("3.0", "update musegnn")])
def test_an_older_format_is_no_reason_to_update(found, advice):
    assert advice in version_fix(found, 2)
