"""The server of a run's page: its answers, and what it refuses."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from urllib.parse import urlencode

import numpy as np
import pytest

from benchmarks.browser import Browser, find_browser
from musegnn.analysis.explore import Explorer, ExploreServer
from musegnn.analysis.neighbors import query
from musegnn.analysis.report.page import render


@pytest.fixture
def server(report_data):
    explorer = Explorer(page=render(report_data, live=True).encode(), adata=report_data.adata, pairs=report_data.pairs)
    with ExploreServer(explorer) as opened:
        thread = threading.Thread(target=opened.serve_forever)
        thread.start()
        yield opened
        opened.shutdown()
        thread.join()


def ask(server, path, method="GET", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer, body


def api(server, name, **values):
    answer, body = ask(server, f"/api/{name}?{urlencode(values)}")
    return answer.status, json.loads(body)


def test_it_listens_to_this_computer_alone(server):
    assert server.server_address[0] == "127.0.0.1"
    for host, status in (("evil.example", 421), ("127.0.0.1", 421), (f"localhost:{server.server_port}", 200)):
        answer, _ = ask(server, "/", Host=host)
        assert answer.status == status
    answer, body = ask(server, "/", Origin="https://evil.example")
    assert not [name for name, _ in answer.getheaders() if name.lower().startswith("access-control")]
    assert b"connect-src 'self'" in body
    assert answer.getheader("Cross-Origin-Resource-Policy") == "same-origin"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_it_only_reads(server, method):
    assert ask(server, "/api/neighbors", method=method)[0].status == 501


@pytest.mark.parametrize("path", ["/../secret", "/api", "/report.html", "/api/neighbors/.."])
def test_it_serves_no_files(server, path):
    assert ask(server, path)[0].status == 404


def test_requests_are_limited(server):
    assert ask(server, "/api/neighbors?gene=" + "A" * 3000)[0].status == 414
    status, found = api(server, "neighbors", gene="GENE3", dataset="lung_rna", k=10**9)
    assert (status, "from 1 to 500" in found["error"]) == (400, True)
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=20) as raw:
        raw.sendall(b"GET /" + b"A" * 70_000)
        assert b" 414 " in raw.recv(1000)


@pytest.mark.parametrize("by", ["balanced", "csls", "cosine"])
def test_neighbours_are_those_of_the_whole_vectors(server, report_data, by):
    status, found = api(server, "neighbors", gene="GENE3", dataset="lung_rna", k=30, by=by)
    expected = query(report_data.adata, "GENE3", dataset="lung_rna", k=30, by=by)
    assert status == 200
    assert [row["gene"] for row in found["rows"]] == expected["gene"].tolist()
    np.testing.assert_allclose([row["cosine"] for row in found["rows"]], expected["cosine"], atol=1e-9)


def test_neighbours_of_one_side(server):
    for side, same in (("within", True), ("across", False)):
        _, found = api(server, "neighbors", gene="GENE3", dataset="lung_rna", k=30, side=side)
        assert {row["dataset"] == "lung_rna" for row in found["rows"]} == {same}


def test_a_contrast_holds_z_of_both_datasets(server, report_data):
    status, found = api(server, "contrast", gene="GENE3", other="GENE3", a="lung_rna", b="brain_visium")
    by_name = {row["gene_a"]: row for row in found["rows"]}
    assert status == 200
    assert by_name["GENE4"]["z_a"] == by_name["GENE5"]["z_b"] == 12.5
    assert found["limits"] == [2.0, 2.0]
    stored = {d: np.diff(report_data.pairs[d].indptr)[3] for d in ("lung_rna", "brain_visium")}
    assert len([r for r in found["rows"] if r["z_a"] is not None]) + found["missing"][1] == stored["lung_rna"]
    assert len([r for r in found["rows"] if r["z_b"] is not None]) + found["missing"][0] == stored["brain_visium"]


@pytest.mark.parametrize(
    "values",
    [
        {"gene": "NOSUCHGENE", "dataset": "lung_rna"},
        {"gene": "GENE3", "dataset": "nowhere"},
        {"gene": "GENE3", "dataset": "lung_rna", "by": "guess"},
        {"gene": "GENE3", "dataset": "lung_rna", "side": "up"},
        {"gene": "GENE3", "dataset": "lung_rna", "k": "-1"},
        {},
    ],
)
def test_what_is_not_there_is_an_error_in_words(server, values):
    status, found = api(server, "neighbors", **values)
    assert status == 400
    assert "Fix: " in found["error"]
    assert api(server, "contrast", gene="GENE3", a="nowhere", b="lung_rna")[0] == 400
    assert api(server, "contrast", gene="NOSUCHGENE", a="brain_atac", b="lung_rna")[0] == 400


@pytest.mark.browser
def test_the_page_asks_for_fresh_lists(server, tmp_path):
    program = find_browser()
    if program is None:
        pytest.skip("Chromium is not installed")
    browser = Browser(program, tmp_path)
    try:
        browser.open(server.url, "#GENE3@lung_rna&vs=brain_visium")
        browser.until("document.querySelectorAll('#near li').length === 50")
        browser.run("(() => { const s = document.getElementById('ranking'); s.value = 'csls';"
                    " s.dispatchEvent(new Event('change')); })()")  # fmt: skip
        browser.until("performance.getEntriesByType('resource').some((e) => e.name.includes('by=csls'))")
        assert "GENE5" in browser.text(".gained")
        assert {url.split("/")[2] for url in browser.requests()} == {f"127.0.0.1:{server.server_port}"}
        assert browser.complaints() == []
    finally:
        browser.close()
