"""The built site as its readers meet it: links that lead somewhere, and pages that a browser shows without a complaint.

`make docs` builds it into `site/` and runs this; without a built site there is nothing to look at.
"""

from __future__ import annotations

import functools
import html
import re
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import pytest
from browser import browser

SITE = Path(__file__).resolve().parent.parent / "site"
PAGES = sorted(SITE.rglob("*.html"))
pytestmark = [pytest.mark.site, pytest.mark.skipif(not PAGES, reason="the site is not built: make docs")]


class Page(NamedTuple):
    links: list[str]
    places: set[str]  # that links may name


@functools.cache
def read(path: Path) -> Page:
    """The links of a page and the places in it. By expressions, since pages of the reference are long."""
    text = path.read_text(encoding="utf-8")
    links = re.findall(r'\s(?:href|src)="([^"]+)"', text)
    return Page([html.unescape(link) for link in links], set(re.findall(r'\s(?:id|name)="([^"]+)"', text)))


def name_of(path: Path) -> str:
    return str(path.relative_to(SITE))


def leads_nowhere(page: Path, link: str) -> bool:
    """Whether a link within the site misses its file, or the place in it. Those to elsewhere are not followed."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return False
    target = SITE / parts.path.lstrip("/") if parts.path.startswith("/") else page.parent / unquote(parts.path)
    target = page if not parts.path else target / "index.html" if target.is_dir() else target
    if not target.is_file():
        return True
    place = unquote(parts.fragment)
    return place != "" and target.suffix == ".html" and place not in read(target).places


def test_links_lead_somewhere() -> None:
    broken = {name_of(page): [link for link in read(page).links if leads_nowhere(page, link)] for page in PAGES}
    assert {name: links for name, links in broken.items() if links} == {}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Where the site is served, to this machine only."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(SITE))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_every_page_without_a_complaint_and_within_its_width(
    scheme: str, address: str, tmp_path: Path
) -> None:
    complaints: dict[str, list[str]] = {}
    with browser(tmp_path / "profile") as tab:
        for page in PAGES:
            tab.open(f"{address}/{name_of(page)}", 1300, scheme=scheme)
            said = list(tab.said)
            for width in (1300, 400):
                tab.resize(width)
                shown = tab.evaluate("document.documentElement.scrollWidth")
                said += [f"at {width} pixels it is {shown} wide"] if shown > width else []
            if tab.evaluate("document.querySelectorAll('.arithmatex').length"):
                said.append("an equation is not MathML")
            if said:
                complaints[name_of(page)] = said
    assert complaints == {}
