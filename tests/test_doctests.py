"""The examples in docstrings, run in each module as users import it."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import musegnn.cluster
import musegnn.data_store
import musegnn.kernels

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGES = (musegnn, musegnn.cluster, musegnn.data_store, musegnn.kernels)


def _modules_with_examples() -> Iterator[str]:
    for package in PACKAGES:
        folder = Path(str(package.__file__)).parent
        for path in sorted(folder.rglob("*.py")):
            if ">>> " in path.read_text(encoding="utf-8"):
                parts = path.relative_to(folder).with_suffix("").parts
                yield ".".join((package.__name__, *parts)).removesuffix(".__init__")


MODULES = tuple(_modules_with_examples())


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_docstrings_give_what_they_say(name):
    result = doctest.testmod(importlib.import_module(name))

    assert result.attempted > 0
    assert result.failed == 0


def test_examples_are_found_in_the_packages():
    homes = {".".join(name.split(".")[:2]) for name in MODULES}

    assert {"musegnn.kernels", "musegnn.data_store", "musegnn.coexpression"} <= homes
