"""Contrasts of a run and its gene sets on the page: as a layer of the map, and with each gene."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from musegnn.analysis.report import write_report
from musegnn.analysis.report.contrasts import change_columns, label
from musegnn.config import AtlasConfig
from musegnn.run_folder import RunFolder

LAYER = "contrast-lung_rna-brain_visium"


@pytest.fixture
def page(browser, report_data, contrasts, tmp_path):
    path = tmp_path / "report.html"
    write_report(path, replace(report_data, contrasts=contrasts))
    browser.resize(1360, 860)
    browser.open(path)
    yield browser
    assert browser.requests() == [path.as_uri()]
    assert browser.complaints() == []


def test_change_is_known_for_the_datasets_and_genes_that_were_compared(report_data, contrasts):
    obs = report_data.adata.obs
    text, _, values = change_columns(contrasts, obs)[LAYER]
    assert text == "Change, lung_rna \u2192 brain_visium"
    compared = obs["dataset"].isin(["lung_rna", "brain_visium"]) & obs["gene"].isin([f"GENE{g}" for g in range(1, 7)])
    np.testing.assert_array_equal(np.isfinite(values), compared)
    assert set(values[(obs["gene"] == "GENE3") & compared]) == {3.0}


def test_long_groups_are_shortened():
    shown = label({"a": [f"sample_{n}" for n in range(40)], "b": ["x"]})
    assert len(shown) < 50
    assert shown.endswith("\u2026 \u2192 x")


def test_contrasts_are_read_from_the_run_folder(tmp_path, contrasts):
    entry = {"name": "d", "path": str(tmp_path / "d.h5ad"), "modality": "scrna", "tissue": "lung", "species": "human"}
    folder = RunFolder.create(tmp_path / "run", AtlasConfig.model_validate({"datasets": [entry]}))
    assert folder.contrasts() == {}
    (folder.path / LAYER).mkdir()
    (folder.path / LAYER / "contrast.json").write_text(json.dumps(contrasts[LAYER]))
    assert folder.contrasts() == contrasts


@pytest.mark.browser
def test_a_gene_shows_how_it_changes(page):
    page.run("location.hash = '#GENE3@lung_rna'")
    page.until("document.querySelector('.change') !== null")
    text = page.text(".change")
    assert "Rewired: 3.00 times the change of genes like it, number 1 of 6; p 1e\u22125, q 1e\u22124." in text
    assert "1 partner gained, 1 lost. Certainty 0.90 in the first group, unknown in the second." in text
    gained, lost = (page.texts(f".change .{kind} .hit")[0].split("\n") for kind in ("gained", "lost"))
    assert (gained[0], gained[-1], lost[0], lost[1]) == ("GENE5", "12.5", "GENE4", "12.5")
    page.click(".change .gained .hit")
    page.until("document.getElementById('gene-name')?.innerText === 'GENE5'")
    page.until("document.querySelector('.change .doubt') !== null")
    assert page.text(".change .verdict") == "Not called"


@pytest.mark.browser
def test_genes_that_were_not_compared_show_no_change(page):
    page.run("location.hash = '#GENE9@lung_rna'")
    page.until("document.getElementById('gene-name')?.innerText === 'GENE9'")
    assert page.run("document.querySelector('.change') === null")


@pytest.mark.browser
def test_a_layer_colours_the_map_by_change(page):
    assert page.texts(".changed .chip")[:2] == ["GENE3", "GENE1"]
    page.click(".changed .head button")
    page.until(f"document.getElementById('color').value === 'n:{LAYER}'")
    assert "color=n:" in page.run("location.hash")
    colors = page.run(
        "(() => { const a = musegnn.atlas, seen = {}; for (let i = 0; i < a.n; i++)"
        " (seen[`${a.gene(i)}@${a.of('dataset', i)}`] = musegnn.map.colors[i]); return seen; })()"
    )
    unknown = colors["GENE9@lung_rna"]
    known = {colors[f"GENE{g}@{d}"] for g in (3, 1, 6) for d in ("lung_rna", "brain_visium")}
    assert len(known) == 3
    assert unknown not in known


@pytest.mark.browser
def test_the_gene_sets_of_the_page_are_listed_and_show_their_genes(page):
    page.click("#all-sets summary")
    page.until("document.querySelectorAll('#all-sets .hit').length === 2")
    assert [text.split("\n")[0] for text in page.texts("#all-sets .hit")] == ["Cell thing", "First twenty"]
    page.click("#all-sets .hit")
    page.until("document.querySelector('#side h2')?.innerText === 'Cell thing'")
    assert page.run("musegnn.many.points.length") == 42
