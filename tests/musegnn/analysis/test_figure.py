"""The picture of a run."""

from __future__ import annotations

from matplotlib.image import imread

from musegnn.analysis.figure import draw_figure


def test_the_figure_is_drawn_and_repeats_itself(annotated, evaluation, tmp_path):
    draw_figure(tmp_path / "a.png", annotated, evaluation, dpi=60)
    draw_figure(tmp_path / "b.png", annotated, evaluation, dpi=60)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    pixels = imread(tmp_path / "a.png")
    assert pixels.shape[:2] == (264, 690)
    assert pixels[..., :3].std() > 0.05


def test_without_an_evaluation_there_are_no_bars(annotated, tmp_path):
    draw_figure(tmp_path / "a.png", annotated, {}, dpi=60)
    assert imread(tmp_path / "a.png").shape[:2] == (264, 480)
