"""What commands print: warnings once and in words, codes explained."""

from __future__ import annotations

import json
import logging

import anndata as ad
import numpy as np
import pytest

from musegnn.cli import HELD, main
from musegnn.config import AtlasConfig
from musegnn.datasets import expand_strata
from musegnn.error_codes import codes
from musegnn.output import HeldWarnings, line_of, warnings_in_words


def call(*arguments):
    with pytest.raises(SystemExit) as done:
        main(list(arguments))
    return done.value.code


def test_warnings_are_grouped_by_what_they_mean():
    lines = ["a: W274: 60 %", "b: W274: 70 %", "W502: c: memorised; train less", "W304: human, mouse share no genes"]
    found = warnings_in_words([*lines, lines[0]])
    assert [line[-len(end) :] for line, end in zip(found, ("(W274: a, b)", "(W304)", "(W502: c)"), strict=True)] == [
        "(W274: a, b)", "(W304)", "(W502: c)"
    ]  # fmt: skip
    assert found[0].startswith(codes()["W274"].meaning)


def test_warnings_wait_for_the_end_and_other_messages_do_not(capsys):
    handler, logger = HeldWarnings(), logging.getLogger("musegnn.test_output")
    logger.addHandler(handler)
    logger.propagate = False
    for _ in range(2):
        logger.warning("%s: W274: dense", "a")
    logger.warning("igraph is not installed")
    logger.removeHandler(handler)
    assert handler.lines == ["a: W274: dense"]
    assert capsys.readouterr().err.strip() == "musegnn: WARNING: igraph is not installed"


def test_codes_are_explained(capsys):
    assert call("explain", "e201") == 0
    shown = capsys.readouterr().out
    assert codes()["E201"].meaning in shown
    assert codes()["E201"].fix in shown
    assert call("explain", "W274", "--json") == 0
    assert json.loads(capsys.readouterr().out)["code"] == "W274"
    assert call("explain", "E2011") == 2
    assert "did you mean E2" in capsys.readouterr().err


def test_cells_without_a_label_are_counted(tmp_path, caplog):
    counts = np.random.default_rng(0).poisson(2.0, (130, 5)).astype(np.float32)
    adata = ad.AnnData(counts, obs={"cell": ["a"] * 60 + ["b"] * 60 + [""] * 10})
    adata.var_names = list("ABCDE")
    labels = {"modality": "scrna", "tissue": "lung", "species": "human"}
    atlas = AtlasConfig(datasets=[{"name": "x", "by": "cell", "path": adata, **labels}])
    assert [d.name for d in expand_strata(atlas).datasets] == ["x.a", "x.b"]
    assert "x: W252: 10 of 130 cells have no label" in caplog.text


def test_strata_are_counted_as_datasets(tmp_path, capsys):
    rng = np.random.default_rng(0)
    counts = rng.poisson(rng.gamma(2.0, 1.0, (180, 30))).astype(np.float32)
    adata = ad.AnnData(counts, obs={"cell": np.repeat(["a", "b", "c"], 60)})
    adata.var_names = [f"ABC{j}" for j in range(30)]
    adata.write_h5ad(tmp_path / "x.h5ad")
    (tmp_path / "atlas.yaml").write_text(
        "datasets: [{path: x.h5ad, modality: rna, tissue: lung, species: human, by: cell}]\n"
        "graph: {selection: all}\nedges: {rule: pvalue}\n"
    )
    assert call("build", str(tmp_path / "atlas.yaml"), "--store", str(tmp_path / "store"), "--quiet") == 0
    found = capsys.readouterr()
    assert found.out.startswith("3 datasets in")
    assert HELD.lines == []


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied", "/x/y"), IsADirectoryError(21, "Is a directory")]
)
def test_what_the_system_refuses_is_one_line_with_a_fix(error):
    line = line_of(error)
    assert line.startswith(f"error[E141] {error.filename or 'files'}: {error.strerror}")
    assert "Fix: " in line
