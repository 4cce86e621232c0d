"""The site builds without a warning and asks no network; links in it and in other pages lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pytest

import musegnn
from tests.conftest import ROOT

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").rglob("*.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_a_page_links_to_are_there(page):
    text = re.sub(r"(?s)```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"))
    files = [link.partition("#")[0] for link in LINK.findall(text) if not urlsplit(link).scheme]
    assert [file for file in files if file and not (page.parent / file).exists()] == []


class Reader(HTMLParser):
    """What a page of the site loads, links to and can be linked to."""

    def __init__(self, text):
        super().__init__()
        self.loads, self.links, self.anchors = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.anchors.add(values.get("id"))
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag in {"script", "img", "iframe", "source"} and "src" in values:
            self.loads.append(values["src"])
        elif tag == "link" and values.get("rel") not in {"index", "search", "next", "prev", "author"}:
            self.loads.append(values["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Build the site; return its pages by path."""
    for package in ("sphinx", "furo", "myst_nb"):
        pytest.importorskip(package, reason="needs the extra `docs`")
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-d", out / "trees"]
    done = subprocess.run([*command, ROOT / "docs", out / "html"], capture_output=True, text=True, cwd=out)
    assert done.returncode == 0, done.stderr
    return {path: Reader(path.read_text(encoding="utf-8")) for path in (out / "html").rglob("*.html")}


@pytest.mark.slow
def test_the_site_loads_nothing_from_a_network(site):
    assert len(site) > 30
    loaded = {url for page in site.values() for url in page.loads}
    assert [url for url in loaded if urlsplit(url).netloc] == []


@pytest.mark.slow
def test_the_links_of_the_site_lead_somewhere(site):
    missing = []
    for path, page in site.items():
        for link in page.links:
            parts = urlsplit(link)
            if not parts.scheme and not parts.netloc:
                target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
                anchors = site[target].anchors if target in site else None
                if not target.exists() or (parts.fragment and anchors and unquote(parts.fragment) not in anchors):
                    missing.append(f"{path.name}: {link}")
    assert missing == []


@pytest.mark.slow
def test_the_reference_has_every_public_name_and_command(site):
    from musegnn.cli import app

    found = set().union(*(page.anchors for page in site.values()))
    assert [name for name in musegnn.__all__ if f"musegnn.{name}" not in found] == []
    commands = {name for name in app if not name.startswith("-")}
    assert [name for name in commands if f"musegnn-{name}" not in found] == []
