"""Plots show the numbers that they are of."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from musegnn.analysis.enrichment import enrich
from musegnn.analysis.plots import draw_bubbles, draw_upset, factor_upset, indicators, set_bubbles, volcano
from tests.musegnn.analysis.test_gene_lists import (  # noqa: F401  planted is a fixture
    BOTH,
    COMPANIONS,
    FACTORS,
    GENES,
    LISTED,
    LUNG_ONLY,
    planted,
)  # fmt: skip


@pytest.fixture
def axes():
    figure = Figure(layout="constrained")
    FigureCanvasAgg(figure)
    return figure.add_subplot()


def drawn(axes):
    """Draw the figure, in which a wrong label would fail, and return the axes."""
    axes.figure.canvas.draw()
    return axes


def test_bars_are_the_exclusive_intersections(axes):
    rng = np.random.default_rng(0)
    members = pd.DataFrame(rng.random((40, 4)) < 0.5, columns=list("abcd"), index=[f"f{k}" for k in range(40)])
    members = members[members.any(axis=1)]
    bars, matrix = drawn(draw_upset(members, axes=axes)).child_axes
    heights = [round(bar.get_height()) for bar in bars.patches]
    assert sorted(heights) == sorted(members.value_counts().tolist())
    assert heights == sorted(heights, reverse=True)
    names = [label.get_text() for label in matrix.get_yticklabels()]
    assert set(names) == {f"{name} ({members[name].sum()})" for name in "abcd"}
    order = [name[0] for name in names]
    for k, line in enumerate(matrix.lines):
        inside = {order[int(row)] for row in line.get_ydata()}
        mask = np.logical_and.reduce([members[name] == (name in inside) for name in "abcd"])
        assert mask.sum() == heights[k]


def test_factors_that_tissues_share_stand_in_one_bar(planted, axes):  # noqa: F811
    bars, matrix = drawn(factor_upset(planted, LISTED, FACTORS, axes=axes)).child_axes
    assert [label.get_text() for label in matrix.get_yticklabels()] == ["brain (5)", "lung (10)"]
    assert [round(bar.get_height()) for bar in bars.patches] == [5, 5]
    assert [line.get_ydata().tolist() for line in matrix.lines] == [[0, 1], [1]]


def test_small_intersections_are_named(axes):
    members = pd.DataFrame({"lung": [True, True, False], "brain": [True, False, True]}, index=["SPI1", "FOS", "JUN"])
    bars, _ = drawn(draw_upset(members, axes=axes)).child_axes
    assert {text.get_text() for text in bars.texts} == {"1\nSPI1", "1\nFOS", "1\nJUN"}


def test_one_context_and_none_can_be_drawn(axes):
    one = pd.DataFrame({"lung": [True, True]}, index=["SPI1", "FOS"])
    bars, _ = drawn(draw_upset(one, axes=axes)).child_axes
    assert [round(bar.get_height()) for bar in bars.patches] == [2]
    nothing = pd.DataFrame({"factor": ["a", "a"], "context": ["lung", "brain"], "q": [0.5, 0.9]})
    bars, matrix = drawn(draw_upset(indicators(nothing), axes=axes)).child_axes[-2:]
    assert len(bars.patches) == 0
    assert len(matrix.get_yticklabels()) == 2


def test_factors_without_a_context_count_as_no():
    table = pd.DataFrame({"factor": ["a", "b", "b"], "context": ["lung", "lung", "brain"], "q": [0.01, 0.2, 0.03]})
    assert indicators(table).to_dict("index") == {
        "a": {"brain": False, "lung": True}, "b": {"brain": True, "lung": False}
    }  # fmt: skip


def test_the_area_of_a_bubble_is_its_number_of_genes(axes):
    lists = {"lung": GENES[:20], "brain": GENES[10:30]}
    table = enrich(lists, {"first": GENES[:15], "second": GENES[12:26], "none": GENES[200:230]}, GENES)
    points = drawn(draw_bubbles(table, axes=axes)).collections[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    columns = [label.get_text() for label in axes.get_xticklabels()]
    assert set(names) == {"first", "second"}
    sizes = points.get_sizes()
    shown = {(columns[int(x)], names[int(y)]): s for (x, y), s in zip(points.get_offsets(), sizes, strict=True)}
    expected = {(row.list, row.set): row.k for row in table.itertuples() if row.set in names}
    assert shown.keys() == expected.keys()
    for place, k in expected.items():
        assert shown[place] / max(sizes) == pytest.approx(k / max(expected.values()))


def test_a_set_near_the_list_is_drawn_and_a_random_one_is_not(planted, axes):  # noqa: F811
    rng = np.random.default_rng(4)
    sets = {"companions": COMPANIONS, "random": rng.choice(GENES[90:], 20, replace=False).tolist()}
    drawn(set_bubbles(planted, LISTED, sets, k=40, axes=axes))
    assert [label.get_text() for label in axes.get_yticklabels()] == ["companions"]


def test_no_set_says_so(planted, axes):  # noqa: F811
    drawn(set_bubbles(planted, LISTED, {"far": GENES[250:270]}, k=40, axes=axes))
    assert [text.get_text() for text in axes.texts] == ["no set at a false discovery rate of 0.05"]


def test_the_volcano_marks_the_list(axes):
    rng = np.random.default_rng(5)
    p = np.sort(rng.random(len(GENES)))
    table = pd.DataFrame({
        "gene": GENES, "change": np.linspace(8, 1, len(GENES)), "p_value": p, "q_value": np.minimum(1, 10 * p),
        "strength_a": 2.0, "strength_b": np.where(np.arange(len(GENES)) % 2, 1.0, 3.0),
    })  # fmt: skip
    found = SimpleNamespace(genes=table, summary={"a": ["control"], "b": ["treated"]})
    drawn(volcano(found, genes=[*BOTH, *LUNG_ONLY], axes=axes))
    assert {text.get_text() for text in axes.texts} == {*BOTH, *LUNG_ONLY}
    assert "10 listed genes: AUROC of their rank" in axes.get_title()
    marked = axes.collections[1].get_offsets()
    x, y = axes.collections[0].get_offsets().T
    np.testing.assert_allclose(marked, np.stack([x, y], axis=1)[30:40])
    assert (x[::2] >= 0).all()
    assert (x[1::2] <= 0).all()


def test_without_axes_there_are_new_ones(planted):  # noqa: F811
    import matplotlib.pyplot as plt

    plt.switch_backend("Agg")
    axes = factor_upset(planted, LISTED, FACTORS)
    assert axes.figure.number in plt.get_fignums()
    plt.close(axes.figure)
