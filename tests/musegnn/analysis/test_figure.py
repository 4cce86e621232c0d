"""The picture of spaces side by side."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
from matplotlib.image import imread

from musegnn.analysis.colors import dataset_colors, tissue_colors
from musegnn.analysis.figure import Panel, draw_maps


@pytest.fixture
def drawn(annotated):
    """Return the arguments of a picture of two maps."""
    layout = annotated.obsm["X_umap"]
    panels = [Panel(title="one", layout=layout, note="joint MRR 0.5"), Panel(title="other", layout=-layout)]
    names = annotated.obs["dataset"].astype(str)
    tissue_of = dict(zip(names, annotated.obs["tissue"].astype(str), strict=True))
    return panels, names.tolist(), tissue_of


def test_the_figure_is_drawn_and_repeats_itself(drawn, tmp_path):
    draw_maps(tmp_path / "a.png", *drawn, dpi=60)
    draw_maps(tmp_path / "b.png", *drawn, dpi=60)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    pixels = imread(tmp_path / "a.png")[..., :3]
    assert pixels.shape[:2] == (303, 468)
    assert pixels.std() > 0.05


def test_every_dataset_is_seen_in_every_map(drawn, tmp_path):
    draw_maps(tmp_path / "a.png", *drawn, dpi=100)
    pixels = np.round(255 * imread(tmp_path / "a.png")[..., :3]).astype(int)
    maps = pixels[: int(0.85 * len(pixels))]
    for color in dataset_colors(drawn[2]).values():
        wanted = np.array([int(color[at : at + 2], 16) for at in (1, 3, 5)])
        seen = (np.abs(maps - wanted) < 40).all(axis=2)
        assert seen[:, : seen.shape[1] // 2].any()
        assert seen[:, seen.shape[1] // 2 :].any()


def test_datasets_of_one_tissue_have_shades_of_one_hue():
    tissue_of = {f"{tissue}{n}": tissue for tissue in ("brain", "lung", "blood", "liver") for n in range(6)}
    colors = dataset_colors(tissue_of)
    assert list(colors) == list(tissue_of)
    assert len(set(colors.values())) == 24
    hues = {
        name: colorsys.rgb_to_hls(*(int(c[at : at + 2], 16) / 255 for at in (1, 3, 5)))[0] for name, c in colors.items()
    }

    def apart(one, other):
        turn = abs(hues[one] - hues[other]) % 1.0
        return min(turn, 1.0 - turn)

    within = max(apart(a, b) for a in tissue_of for b in tissue_of if tissue_of[a] == tissue_of[b])
    middle = {tissue: f"{tissue}3" for tissue in tissue_of.values()}
    across = min(apart(middle[a], middle[b]) for a in middle for b in middle if a != b)
    assert within < 0.2
    assert across > 0.07


def test_the_largest_tissue_has_the_first_hue():
    colors = dataset_colors({"a": "lung", "b": "brain", "c": "brain"})
    assert list(colors) == ["b", "c", "a"]
    assert list(tissue_colors({"a": "lung", "b": "brain", "c": "brain"})) == ["brain", "lung"]


def test_many_tissues_have_colours_of_their_own():
    tissue_of = {f"d{n}": f"t{n}" for n in range(30)}
    assert len(set(tissue_colors(tissue_of).values())) == 30
