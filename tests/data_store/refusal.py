"""What every refusal of an input is: one short line with a code and a fix."""

from __future__ import annotations

import pytest

from musegnn.data_store import open_matrix, validate_counts
from musegnn.errors import InputError


def refuse(path, code, *parts, **options):
    """Expect a refusal, by one short line with a fix; return the line."""
    with pytest.raises(InputError) as caught:
        validate_counts(open_matrix(path, **options), rows=17)
    line = caught.value.line()
    assert caught.value.code == code, line
    assert "\n" not in line
    assert len(line) <= 300, line
    assert " Fix: " in line
    for part in parts:
        assert part in line
    return line
