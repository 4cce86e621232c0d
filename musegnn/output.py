"""What commands print: text for people, or one JSON object for programs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from musegnn.options import Common


def print_result(common: Common, result: dict[str, Any], text: str) -> None:  # JSON
    """Print a result as text, or as JSON where that was asked for."""
    if common.json:
        print_json(result)
    else:
        print(text)


def print_json(result: object) -> None:
    """Print a value as indented JSON."""
    print(json.dumps(result, indent=2))
