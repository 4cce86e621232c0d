"""Colours of datasets: a hue for each tissue, a shade for each of its datasets.

Hues and lightness are those of OKLCH, in which equal lightness looks equally light. The first hues are apart for
colour-blind people as well, and so are shades.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

HUES = (250.0, 55.0, 345.0, 160.0, 100.0, 300.0, 205.0, 20.0)
GOLDEN_ANGLE = 137.508
DARKEST, LIGHTEST, CHROMA = 0.44, 0.80, 0.13
HUE_SPREAD = 40.0
MIDDLE = 0.65


def tissue_colors(tissue_of: Mapping[str, str]) -> dict[str, str]:
    """Return a colour ``#rrggbb`` for each tissue, that with most datasets first, from the tissue of each dataset.

    Examples
    --------
    >>> tissue_colors({"a": "lung", "b": "brain", "c": "brain"})
    {'brain': '#5e98e5', 'lung': '#cf8237'}
    """
    return {tissue: _color(place, MIDDLE) for place, tissue in enumerate(_families(tissue_of))}


def dataset_colors(tissue_of: Mapping[str, str]) -> dict[str, str]:
    """Return a colour for each dataset, a shade of that of its tissue, in the order of :func:`tissue_colors`.

    Examples
    --------
    >>> dataset_colors({"a": "lung", "b": "brain", "c": "brain"})
    {'b': '#005d8b', 'c': '#9db9ff', 'a': '#cf8237'}
    """
    found = {}
    for place, members in enumerate(_families(tissue_of).values()):
        steps = np.linspace(0.0, 1.0, len(members)).tolist() if len(members) > 1 else [MIDDLE]
        found.update({name: _color(place, step) for name, step in zip(members, steps, strict=True)})
    return found


def _families(tissue_of: Mapping[str, str]) -> dict[str, list[str]]:
    families: dict[str, list[str]] = {}
    for name, tissue in tissue_of.items():
        families.setdefault(tissue, []).append(name)
    return dict(sorted(families.items(), key=lambda item: -len(item[1])))


def _color(place: int, step: float) -> str:
    """Return a shade of a tissue, from 0, the darkest, to 1."""
    hue = HUES[place] if place < len(HUES) else HUES[0] + place * GOLDEN_ANGLE
    return _oklch(DARKEST + step * (LIGHTEST - DARKEST), CHROMA, hue + HUE_SPREAD * (step - 0.5))


def _oklch(lightness: float, chroma: float, hue: float) -> str:
    """Convert OKLCH to sRGB."""
    a, b = chroma * np.cos(np.radians(hue)), chroma * np.sin(np.radians(hue))
    to_cone = np.array([[0.3963377774, 0.2158037573], [-0.1055613458, -0.0638541728], [-0.0894841775, -1.291485548]])
    cone = (lightness + to_cone @ np.array([a, b])) ** 3
    to_linear = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.707614701],
        ]
    )
    linear = np.clip(to_linear @ cone, 0.0, 1.0)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return "#" + "".join(f"{round(255 * v):02x}" for v in encoded.tolist())
