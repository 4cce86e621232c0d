"""What the page is wanted for: contexts, comparison, lists, enrichment, exports and an address for everything seen."""

from __future__ import annotations

import base64
import csv
import io
import json
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy.stats import false_discovery_control, hypergeom

from musegnn.analysis.report import ReportData, write_report

pytestmark = pytest.mark.browser


@pytest.fixture
def path(report_data, tmp_path):
    written = tmp_path / "report.html"
    write_report(written, report_data)
    return written


@pytest.fixture
def page(browser, path):
    browser.resize(1360, 860)
    browser.open(path)
    yield browser
    assert browser.requests() == [path.as_uri()]
    assert browser.complaints() == []


def hash_of(page):
    return page.run("location.hash")


def follow(page, fragment):
    page.run(f"location.hash = {json.dumps(fragment)}")
    page.until(f"location.hash === {json.dumps(fragment)}")


def paste(page, text):
    page.press("/")
    page.run(
        f"(() => {{ const d = new DataTransfer(); d.setData('text', {json.dumps(text)});"
        " const event = new ClipboardEvent('paste', { clipboardData: d, cancelable: true });"
        " document.getElementById('search').dispatchEvent(event); })()"
    )


def saved(page, selector):
    """Click a button that saves, and return the name and the bytes of the file."""
    page.run("window.saved = undefined")
    page.run(f"document.querySelector({json.dumps(selector)}).click()")
    page.until("window.saved !== undefined")
    code = (
        "new Promise((done) => { const r = new FileReader(); r.onload = () => done(r.result.split(',')[1]);"
        " r.readAsDataURL(window.saved.blob); })"
    )
    return page.run("window.saved.name"), base64.b64decode(page.run(code))


def table(content):
    return list(csv.DictReader(io.StringIO(content.decode()), delimiter="\t"))


def test_a_gene_shows_all_its_contexts_with_partners(page, report_data):
    follow(page, "#gene3@lung_rna")  # the address is read without regard to case
    page.until("document.getElementById('gene-name') !== null")
    assert page.text("#gene-name") == "GENE3"
    rows = page.texts(".contexts .hit")
    assert len(rows) == 3
    assert rows[0].startswith("lung_rna")
    by_dataset = {row.split("\n")[0]: row.split("\n")[-1].split(", ") for row in rows}
    assert set(by_dataset) == set(report_data.adata.obs["dataset"])
    assert (by_dataset["lung_rna"][0], by_dataset["brain_visium"][0]) == ("GENE4", "GENE5")


def test_partners_gained_and_lost_between_two_contexts(page, report_data):
    follow(page, "#GENE3@lung_rna&vs=brain_visium")
    page.until("document.querySelector('.gained') !== null")
    gained, lost = (page.texts(f".{kind} .hit")[0].split("\n") for kind in ("gained", "lost"))
    assert (gained[0], gained[-1], lost[0], lost[-3]) == ("GENE5", "12.5", "GENE4", "12.5")
    name, content = saved(page, "#save-comparison")
    assert name == "GENE3_lung_rna_brain_visium.tsv"
    rows = {row["gene"]: row for row in table(content)}
    assert (rows["GENE5"]["change"], rows["GENE4"]["change"]) == ("gained", "lost")
    kept = [row for row in rows.values() if row["change"] == "kept"]
    for row in kept:
        for side in ("lung_rna", "brain_visium"):
            assert abs(float(row[f"z_{side}"].replace("\u2212", "-"))) >= 2.75  # the cutoff of the graphs is 2.8
    page.run("(() => { const s = document.getElementById('to'); s.value = [...s.options].find((o) => o.text === "
             "'brain_atac').value; s.dispatchEvent(new Event('change')); })()")  # fmt: skip
    page.until("location.hash.includes('vs=brain_atac')")
    assert page.text(".gained summary").startswith("Gained in brain_atac")


def test_sets_of_a_gene_open_as_lists(page):
    follow(page, "#GENE3@lung_rna")
    page.until("document.getElementById('sets-of-gene') !== null")
    assert page.texts("#sets-of-gene .hit .grow") == ["Cell thing", "First twenty"]
    page.click("#sets-of-gene .hit")
    page.until("document.querySelector('#side h2').innerText === 'Cell thing'")
    assert page.text("#selected") == "42 points, 14 genes \u00b7 gene set"
    assert "set=cell%20thing" in hash_of(page)


def test_what_is_said_of_a_gene_is_explained(page):
    follow(page, "#GENE3@lung_rna")
    page.until("document.querySelectorAll('.term').length > 5")
    terms = page.texts(".term")
    assert {"Held out", "Degree", "Agreement", "Certainty"} <= set(terms) | {"Held out"}
    for term, word in (("Degree", "edges"), ("Agreement", "cosine"), ("Certainty", "halves")):
        page.run(f"[...document.querySelectorAll('.term')].find((t) => t.innerText === {term!r}).click()")
        assert word in page.text(".explain")


def test_genes_of_low_certainty_are_marked(page):
    low = page.run(
        "(() => { const a = musegnn.atlas; for (let i = 0; i < a.n; i++)"
        " if (a.number('certainty', i) < 0.3) return `${a.gene(i)}@${a.of('dataset', i)}`; })()"
    )
    follow(page, "#" + low)
    page.until("document.querySelector('.contexts .doubt') !== null")
    assert page.text(".contexts .doubt") == "uncertain"
    assert page.run("document.querySelector('.meta .low') !== null")


def test_a_pasted_list_shows_many_genes(page):
    paste(page, "GENE1\ngene2, GENE3;NOSUCHGENE\tENSG00000000004")
    page.until("document.querySelector('#side h2')?.innerText === 'Gene list'")
    assert page.text("#missing") == "Not here: NOSUCHGENE"
    names = {name.upper() for name in page.texts("#selected-genes button")}
    assert names == {"GENE1", "GENE2", "GENE3", "GENE4"}
    assert page.text("#selected").startswith("12 points")
    assert hash_of(page) == "#GENE1,gene2,GENE3,NOSUCHGENE,ENSG00000000004"
    assert page.run("musegnn.map.marks.many.length") == 12


def test_names_that_are_nowhere_are_said(page):
    paste(page, "NOSUCH1 NOSUCH2")
    page.until("document.getElementById('toast').classList.contains('on')")
    assert page.text("#toast") == "None of these genes is here"


def test_enrichment_is_that_of_scipy(page, report_data, gene_sets):
    paste(page, " ".join(f"GENE{g}" for g in [*range(0, 30, 3), *range(41, 47)]))
    page.until("document.getElementById('enriched') !== null")
    _, content = saved(page, "#save-enrichment")
    rows = {row["set"]: row for row in table(content)}
    keys = set(report_data.adata.obs["gene_key"])
    shown = page.run("[...new Set([...musegnn.many.points].map((i) => musegnn.atlas.key(i)))].length")
    chosen = {f"GENE{g}" for g in [*range(0, 30, 3), *range(41, 47)]} & keys
    assert shown == len(chosen)
    expected = {}
    for name in ("HALLMARK_FIRST_TWENTY", "cell thing (GO:0000001)"):
        members = set(gene_sets[name]) & keys
        expected[name] = hypergeom.sf(len(members & chosen) - 1, len(keys), len(members), len(chosen))
        assert int(rows[name]["genes"]) == len(members & chosen)
        assert float(rows[name]["p"]) == pytest.approx(expected[name], rel=1e-3)
    q = dict(zip(expected, false_discovery_control(list(expected.values())), strict=True))
    assert {name: float(row["q"]) for name, row in rows.items()} == pytest.approx(q, rel=1e-3)


def test_tails_agree_with_scipy_at_both_ends(page):
    cases = [(x, 95, K, n) for K in (1, 14, 60) for n in (1, 20, 90) for x in range(min(K, n) + 2)]
    page.run("musegnn.sets.logFactorial = Float64Array.from({length: 96}, (_, v) =>"
             " { let s = 0; for (let i = 2; i <= v; i++) s += Math.log(i); return s; })")  # fmt: skip
    found = page.run(f"{json.dumps(cases)}.map(([x, N, K, n]) => musegnn.sets.tail(x, N, K, n))")
    expected = [hypergeom.sf(x - 1, N, K, n) for x, N, K, n in cases]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-14)


def test_clusters_are_named_by_gene_sets(browser, tmp_path, make_atlas, gene_sets):
    adata = make_atlas()
    inside = adata.obs["gene_key"].isin([f"GENE{g}" for g in range(20)]).to_numpy()
    adata.obs["cluster"] = np.where(inside, "0", "1")
    path = tmp_path / "named.html"
    write_report(path, ReportData(adata=adata, evaluation={}, history=[], graphs=[], config="", sets=gene_sets))
    browser.open(path, "#&color=cluster")
    assert browser.texts(".keys .clip") == ["0 · First twenty", "1"]
    assert browser.run("musegnn.map.labels.groups.map((g) => g.name)") == ["First twenty"]
    browser.click(".keys li:nth-child(1) button")  # the name goes with the points
    browser.until("musegnn.map.labels.groups.length === 0")
    assert browser.complaints() == []


def test_the_address_holds_colour_filter_view_and_gene(page, path):
    page.run("document.getElementById('color').value = 'tissue'; document.getElementById('color')"
             ".dispatchEvent(new Event('change'))")  # fmt: skip
    page.click(".keys li:nth-child(1) button")
    follow_count = page.text("#count")
    page.press("+")
    page.until("location.hash.includes('&at=')")
    page.run("musegnn.pick(musegnn.atlas.find('GENE2', 'lung_rna'))")
    page.press("d")
    page.until("location.hash.includes('contours=0')")
    page.run("new Promise((r) => setTimeout(r, 800))")
    address = hash_of(page)
    for part in ("#GENE2@lung_rna", "color=tissue", "off=tissue:brain", "at="):
        assert part in address
    view = page.run("musegnn.map.view.place")
    page.open(path, address)
    page.until("document.getElementById('gene-name')?.innerText === 'GENE2'")
    assert page.text("#count") == follow_count
    assert page.run("document.getElementById('color').value") == "tissue"
    assert page.run("musegnn.map.density.on") is False
    page.run("new Promise((r) => setTimeout(r, 500))")
    assert page.run("musegnn.map.view.place") == pytest.approx(view, abs=0.01)


def test_back_and_forward_undo_and_redo(page):
    page.run("musegnn.pick(musegnn.atlas.find('GENE2', 'lung_rna'))")
    page.press("c")
    page.until("location.hash.includes('color=modality')")
    page.run("history.back()")
    page.until("document.getElementById('color').value === 'dataset'")
    assert page.text("#gene-name") == "GENE2"
    page.run("history.back()")
    page.until("document.getElementById('gene-name') === null")
    page.run("history.go(2)")
    page.until("document.getElementById('color').value === 'modality' && document.getElementById('gene-name') !== null")


def test_a_lasso_is_in_the_address(page, path):
    x, y = page.run("(() => { const b = musegnn.map.stage.getBoundingClientRect();"
                    " return [b.left + b.width / 2 + 90, b.top + b.height / 2]; })()")  # fmt: skip
    page.press("l")
    page.drag([(x - 150, y - 150), (x + 150, y - 150), (x + 150, y + 150), (x - 150, y + 150), (x - 150, y - 100)])
    page.until("musegnn.many !== null")
    before = page.run("[...musegnn.many.points]")
    page.open(path, hash_of(page))
    page.until("musegnn.many !== null")
    assert page.run("[...musegnn.many.points]") == before


def test_escape_clears_the_ring_under_the_pointer(page):
    page.run("musegnn.map.hover(5, 100, 100)")
    assert page.run("document.getElementById('ring').hidden") is False
    page.press("Escape")
    assert page.run("document.getElementById('ring').hidden") is True
    assert page.run("document.getElementById('tip').hidden") is True


def test_a_filter_survives_a_change_of_colour_and_stays_in_sight(page):
    page.click(".keys li:nth-child(1) button")
    page.press("c")
    page.until("document.getElementById('color').value === 'modality'")
    assert page.text("#count").startswith("120 of 180")
    assert page.texts("#filters .clip") == ["Dataset: brain_atac hidden"]
    page.click("#filters button")
    page.until("document.getElementById('count').innerText === '180 points'")


def test_a_hundred_datasets_stand_under_their_tissues(browser, tmp_path, make_atlas):
    big = make_atlas(n_genes=200, n_shared=200)
    names = [f"study_{n:03d}" for n in range(100)]
    big.obs["dataset"] = np.repeat(names, 6)
    big.obs["gene_key"] = [f"G{n % 6}" for n in range(600)]
    big.obs["cluster"] = [str(n % 60) for n in range(600)]
    big.uns.pop("typical_cosines", None)
    big.obs["tissue"] = [f"tissue {n // 120}" for n in range(600)]
    path = tmp_path / "many.html"
    write_report(path, ReportData(adata=big, evaluation={}, history=[], graphs=[], config=""))
    browser.open(path)
    assert len(browser.texts(".family summary")) == 5
    assert browser.texts(".family summary .grow") == [f"tissue {n}" for n in range(5)]
    sizes = browser.run("['dataset', 'cluster'].map((name) => new Set(musegnn.legend.palettes[name]).size)")
    assert sizes == [100, 60]
    browser.run("document.querySelector('.family summary button').click()")
    browser.until("document.getElementById('count').innerText === '480 of 600 points'")
    assert browser.complaints() == []


def test_pictures_and_tables_are_saved(page):
    page.press("s")
    page.until("document.getElementById('save-menu').open")
    name, content = saved(page, "#save-png")
    assert name == "map.png"
    assert content.startswith(b"\x89PNG")
    name, content = saved(page, "#save-svg")
    drawing = ElementTree.fromstring(content)
    spots = [node for node in drawing.iter() if node.tag.endswith("circle")]
    assert (name, len(spots)) == ("map.svg", page.run("musegnn.atlas.n"))
    assert "brain_atac" in content.decode()
    name, content = saved(page, "#save-tsv")
    rows = table(content)
    assert (name, len(rows)) == ("points.tsv", 180)
    assert {"gene", "gene_id", "dataset", "certainty", "agreement"} <= set(rows[0])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_small_screen_nothing_covers_the_gene(browser, path, scheme):
    browser.resize(400, 800)
    browser.prefer(scheme)
    browser.open(path)
    assert browser.run("document.documentElement.dataset.dark") == ("1" if scheme == "dark" else "0")
    assert browser.run("document.documentElement.scrollWidth") <= 400
    corner = browser.run("(() => { const m = musegnn.map; let best = 0, least = Infinity; "
                         " for (let i = 0; i < m.atlas.n; i++) { const [x, y] = m.screen(i);"
                         " if (x + y < least) [best, least] = [i, x + y]; } return best; })()")  # fmt: skip
    browser.click("#fold-legend")
    browser.until("document.getElementById('legend-card').classList.contains('open')")
    browser.run(f"musegnn.map.view.moveTo({{...musegnn.map.view.now, tx: musegnn.map.view.now.tx - 20}}, false);"
                f" musegnn.pick({corner})")  # fmt: skip
    browser.run("new Promise((r) => setTimeout(r, 700))")
    covered = browser.run(
        "(() => { const m = musegnn.map, b = m.stage.getBoundingClientRect(), [x, y] = m.screen(musegnn.chosen);"
        " return document.elementFromPoint(x + b.left, y + b.top) !== m.overlay.canvas; })()"
    )
    assert not covered
    browser.prefer("light")


def test_everything_has_a_name_for_screen_readers(page):
    follow(page, "#GENE3@lung_rna")
    page.until("document.getElementById('gene-name') !== null")
    unnamed = page.run(
        "[...document.querySelectorAll('button, input, select, canvas[role], [role=listbox], dialog')].filter((e) =>"
        " !(e.getAttribute('aria-label') || e.innerText.trim() || e.labels?.length))"
        ".map((e) => e.outerHTML.slice(0, 90))"
    )
    assert unnamed == []
    assert page.run("document.getElementById('status').textContent") == "GENE3 in lung_rna, 3 contexts"
    assert page.run("document.getElementById('status').getAttribute('aria-live')") == "polite"


def test_names_come_with_closeness(page):
    page.run("window.names = () => { const found = []; const labels = musegnn.map.labels, write = labels.write;"
             " labels.write = function (text, ...rest) { const done = write.call(this, text, ...rest);"
             " if (done) found.push(text); return done; };"
             " musegnn.map.overlay.paint(); labels.write = write; return found; }")  # fmt: skip
    afar = page.run("window.names()")
    page.run("musegnn.map.view.zoom(8)")
    close = page.run("window.names()")
    assert not any(name.upper().startswith("GENE") for name in afar)
    assert sum(name.upper().startswith("GENE") for name in close) > 3


def test_contours_enclose_the_points(page):
    path = page.run("(() => { const m = musegnn.map, d = m.density; d.paint(m.overlay.pen, '#000', m.state);"
                    " return d.paths.map((p) => p.text.length); })()")  # fmt: skip
    assert len(path) == 4
    assert min(path) > 0
    page.press("d")
    page.until("musegnn.map.density.on === false")
    assert page.run("document.getElementById('contours').getAttribute('aria-pressed')") == "false"
