"""For mkdocs: `<!-- figure: NAME -->` in a page becomes `assets/NAME.svg` with its caption, once that is drawn."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ASSETS = Path(__file__).parent / "assets"


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The page with its figures; those that `docs/make_figures.py` has not drawn are left out."""
    up = "../" * page.file.src_uri.count("/")

    def figure(match: re.Match[str]) -> str:
        name = match[1]
        caption = ASSETS / f"{name}.txt"
        if not (ASSETS / f"{name}.svg").exists() or not caption.exists():
            return ""
        return f"![Learning curve]({up}assets/{name}.svg)\n\n{caption.read_text(encoding='utf-8')}"

    return re.sub(r"<!-- figure: ([\w-]+) -->", figure, markdown)
