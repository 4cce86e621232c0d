"""Use the page as a person does: type, click, drag and read, in headless Chromium.

The browser is spoken to over a pipe with the DevTools protocol, so that nothing but Chromium is needed and every
network request is seen.
"""

from __future__ import annotations

import json

import pytest

from benchmarks.browser import Browser, find_browser
from musegnn.analysis.report import ReportData, write_report

STRANGE = "<script>alert(1)</script>"

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module", params=[True, False], ids=["webgl", "canvas"])
def browser(request, tmp_path_factory):
    program = find_browser()
    if program is None:
        pytest.skip("Chromium is not installed")
    opened = Browser(program, tmp_path_factory.mktemp("profile"), webgl=request.param)
    yield opened
    opened.close()


@pytest.fixture
def page(browser, report_data, tmp_path):
    path = tmp_path / "report.html"
    write_report(path, report_data)
    browser.open(path)
    yield browser
    assert browser.requests() == [path.as_uri()]
    assert browser.complaints() == []


def search(page, text):
    page.press("/")
    page.until("document.activeElement.id === 'search'")
    page.type(text)
    page.until("!document.getElementById('hits').hidden")


def test_searching_a_gene_lists_its_nearest_genes(page, report_data):
    search(page, "gene3")
    names = [row.split("\n")[0] for row in page.texts("#hits li")]
    assert names[:2] == ["GENE3", "Gene3"]
    assert all("3" in name for name in names)
    page.click("#hits li:nth-child(1)")
    page.until("document.getElementById('gene-name') !== null")
    assert page.text("#gene-name") == "GENE3"

    from musegnn.analysis.neighbors import query

    expected = query(report_data.adata, "GENE3", dataset=page.run("musegnn.atlas.of('dataset', musegnn.chosen)"), k=20)
    assert page.texts("#near b") == expected["gene"].tolist()
    shown = [float(text) for text in page.texts("#near .score")]
    assert shown == pytest.approx(expected["cosine"].tolist(), abs=0.001001)
    page.click("[data-side=across]")
    far = query(report_data.adata, "GENE3", dataset=expected["query"][0], k=20, across=True)
    assert page.texts("#near b") == far["gene"].tolist()
    page.click("#fold")
    folded = [name.upper() for name in page.texts("#near b")]
    assert len(set(folded)) == len(folded)
    assert "GENE3" not in folded


def test_keys_alone_reach_a_neighbour_and_back(page):
    search(page, "ENSG00000000005")
    page.press("Enter")
    page.until("document.getElementById('gene-name') !== null")
    assert page.text("#gene-name").upper() == "GENE5"
    while page.run("musegnn.atlas.of('dataset', musegnn.chosen)") != "brain_visium":
        page.press("ArrowRight")
    assert page.run("location.hash") == "#GENE5@brain_visium"
    second = page.texts("#near b")[1]
    page.press("ArrowDown")
    page.press("ArrowDown")
    page.press("Enter")
    page.until(f"document.getElementById('gene-name').innerText === {second!r}")
    page.run("history.back()")
    page.until("document.getElementById('gene-name').innerText === 'GENE5'")
    page.press("ArrowLeft")
    page.until("location.hash === '#Gene5@brain_atac'")
    page.press("Escape")
    page.until("document.getElementById('gene-name') === null")
    assert page.run("location.hash") == ""


def test_a_click_on_a_point_opens_it_and_hovering_names_it(page):
    x, y, gene = page.run(
        "(() => { const m = musegnn.map, over = m.overlay.canvas, b = over.getBoundingClientRect();"
        " const i = [...m.state.keys()].find((j) => { const [x, y] = m.screen(j); return m.at(x, y) === j &&"
        " document.elementFromPoint(x + b.left, y + b.top) === over; });"
        " const [x, y] = m.screen(i); return [x + b.left, y + b.top, musegnn.atlas.gene(i)]; })()"
    )
    page.mouse("mouseMoved", x, y)
    page.until("!document.getElementById('tip').hidden")
    assert page.text("#tip b") == gene
    page.click_at(x, y)
    page.until("document.getElementById('gene-name') !== null")
    assert page.text("#gene-name") == gene


def test_a_box_selects_genes_and_copies_them(page, report_data):
    page.press("b")
    left, top, right, bottom = page.run(
        "(() => { const b = musegnn.map.stage.getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom]; })()"
    )
    page.drag([(left + 250, top + 5), (left + 400, top + 90), (right - 70, bottom - 5)])
    page.until("document.getElementById('selected') !== null")
    points = page.run("musegnn.many.points.length")
    assert 0 < points <= report_data.adata.n_obs
    assert page.text("#selected").startswith(f"{points} point")
    page.run("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    page.click("#copy-genes")
    page.until("window.copied !== undefined")
    copied = page.run("window.copied").split()
    assert len(copied) == len(set(copied))
    assert set(copied) == set(page.run("[...musegnn.many.points].map((i) => musegnn.atlas.gene(i))"))


def test_a_lasso_selects_what_it_encloses(page):
    inside = page.run("musegnn.map.inside([[-1, -1], [2, -1], [2, 2], [-1, 2]]).length")
    assert inside == page.run("musegnn.atlas.n")
    x, y = page.run(
        "(() => { const b = musegnn.map.overlay.canvas.getBoundingClientRect();"
        " return [b.left + b.width / 2 + 90, b.top + b.height / 2]; })()"
    )
    page.press("l")
    page.drag([(x - 150, y - 150), (x + 150, y - 150), (x + 150, y + 150), (x - 150, y + 150), (x - 150, y - 100)])
    page.until("musegnn.many !== null")
    wrong = page.run(
        "(() => { const m = musegnn.map, over = m.overlay.canvas, b = over.getBoundingClientRect(); let wrong = 0;"
        f" musegnn.many.mask.forEach((on, i) => {{ const [px, py] = m.screen(i), dx = Math.abs(px + b.left - {x}),"
        f" dy = Math.abs(py + b.top - {y}); if (dx < 147 && dy < 147 && !on) wrong++;"
        " if ((dx > 153 || dy > 153) && on) wrong++; });"
        " return wrong; })()"
    )
    assert wrong == 0


def test_a_gene_called_script_is_inert(page):
    assert page.run("document.title") == "A <b> test"
    search(page, "<scr")
    assert page.texts("#hits li b") == [STRANGE]
    page.press("Enter")
    page.until("document.getElementById('gene-name') !== null")
    assert page.text("#gene-name") == STRANGE
    assert page.run("document.querySelectorAll('script').length") == 1
    assert page.run("document.querySelector('#side script')") is None


def test_the_policy_forbids_network_and_foreign_script(page):
    refused = page.run("fetch('https://example.invalid/').then(() => false, () => true)")
    assert refused
    page.run("const s = document.createElement('script'); s.textContent = 'window.ran = true'; document.body.append(s)")
    assert page.run("window.ran === undefined")
    assert len(page.complaints()) >= 2
    page.events[:] = [e for e in page.events if e.get("method") != "Log.entryAdded"]
    page.events[:] = [e for e in page.events if "example.invalid" not in json.dumps(e)]


def test_address_opens_the_gene(browser, report_data, tmp_path):
    path = tmp_path / "report.html"
    write_report(path, report_data)
    browser.open(path, "#GENE11@brain_visium")
    browser.until("document.getElementById('gene-name') !== null")
    assert browser.text("#gene-name") == "GENE11"
    assert browser.run("musegnn.atlas.of('dataset', musegnn.chosen)") == "brain_visium"
    browser.open(path, "#NOSUCHGENE")
    browser.until("document.getElementById('toast').classList.contains('on')")
    assert "NOSUCHGENE" in browser.text("#toast")
    assert browser.complaints() == []


def test_filters_colours_zoom_and_theme(page):
    assert page.texts(".keys .clip") == ["brain_atac", "brain_visium", "lung_rna"]
    page.click(".keys li:nth-child(1) button")
    page.until("document.getElementById('count').innerText.startsWith('120 of 180')")
    page.press("c")
    page.until("document.getElementById('color').value === 'modality'")
    assert page.text("#count").startswith("120 of 180")
    before = page.run("musegnn.map.view.closeness")
    x, y = page.run(
        "(() => { const b = musegnn.map.stage.getBoundingClientRect(); return [b.left + 500, b.top + 300]; })()"
    )
    page.mouse("mouseWheel", x, y, deltaX=0, deltaY=-240)
    page.until(f"musegnn.map.view.closeness > {before} * 1.2")
    page.press("0")
    page.until(f"Math.abs(musegnn.map.view.closeness / {before} - 1) < 1e-6")
    dark = page.run("document.documentElement.dataset.dark")
    page.press("t")
    page.until(f"document.documentElement.dataset.dark !== {dark!r}")


def test_tables_and_curves(page, report_data):
    page.click("#tab-training")
    assert page.run("location.hash") == "#/training"
    assert page.texts("#view-training figcaption b") == ["loss", "contrast"]
    page.click("#tab-evaluation")
    assert len(page.texts("#view-evaluation table")) == 10
    assert page.texts("#view-evaluation .bars figcaption b") == ["overall", "overall", "AUROC", "AUROC", "AUROC"]
    bars = page.run(
        "[...document.querySelectorAll('#view-evaluation .bars')[0].querySelectorAll('g')]"
        ".map((g) => [g.textContent, g.classList.contains('ours'), +g.querySelector('rect').getAttribute('width')])"
    )
    assert [bar[1] for bar in bars] == [True, False]
    assert bars[0][0].startswith("trained")
    assert bars[0][2] > bars[1][2] > 0
    model = report_data.evaluation["models"]["trained"]
    cells = page.run("[...document.querySelector('#view-evaluation tbody tr').children].map((c) => c.innerText)")
    assert cells[:2] == ["trained", f"{model['joint']['retrieval']['held_out']['overall']['mrr']:.3f}"]
    page.click("#tab-graphs")
    rows = page.texts("#view-graphs tbody tr")
    assert len(rows) == 3
    page.click("#view-graphs tbody tr summary")
    assert page.texts("#view-graphs tbody tr:first-child .dropped li")[1] == "9 genes too few cells"
    assert page.text(".warning li") == "W101: few cells <b>here</b>"
    page.run("document.querySelectorAll('#view-graphs thead button')[4].click()")
    assert page.texts("#view-graphs tbody th")[0] == "brain_atac"
    page.click("#tab-settings")
    assert page.text("pre").strip() == "seed: 0"


def test_a_run_without_rounds_shows_a_table(browser, make_atlas, tmp_path):
    path = tmp_path / "none.html"
    history = [
        {"round": 0, "kind": "space", "dataset": d, "effective_rank": rank} for d, rank in (("a", 3.0), ("b", 4.0))
    ]
    history.append({"round": 0, "kind": "watch", "dataset": "a", "held_out_mrr": 0.25})
    write_report(path, ReportData(adata=make_atlas(), evaluation={}, history=history, graphs=[], config=""))
    browser.open(path)
    browser.click("#tab-training")
    assert browser.texts("#view-training figure") == []
    assert [text.split() for text in browser.texts("#view-training tbody tr")] == [
        ["a", "3", "0.250"],
        ["b", "4", "\u2013"],
    ]
    assert browser.complaints() == []


@pytest.mark.slow
def test_a_large_atlas_is_drawn_and_answers(browser, make_atlas, tmp_path):
    path = tmp_path / "large.html"
    adata = make_atlas(n_genes=10_000, n_shared=4_000)
    write_report(path, ReportData(adata=adata, evaluation={}, history=[], graphs=[], config=""))
    browser.open(path)
    assert browser.text("#count") == "30,000 points"
    browser.run("musegnn.map.paint()")
    colors = browser.run(
        "(() => { const c = document.createElement('canvas'), p = document.getElementById('points');"
        " c.width = p.width; c.height = p.height; const pen = c.getContext('2d'); pen.drawImage(p, 0, 0);"
        " const w = new Uint32Array(pen.getImageData(0, 0, c.width, c.height).data.buffer);"
        " return w.reduce((a, v) => a + (v !== w[0]), 0); })()"
    )
    assert colors > 10_000
    search(browser, "GENE3999")
    browser.press("Enter")
    browser.until("document.querySelectorAll('#near li').length === 20")
    assert browser.complaints() == []
