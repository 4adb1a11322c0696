"""For mkdocs: learning curves appear once they are drawn, equations become MathML, which browsers show by themselves.

`<!-- figure: NAME -->` in a page becomes `assets/NAME.svg` with its caption `assets/NAME.txt`, `<!-- algorithms -->`
the list of algorithms that the package has, and `<!-- pages: Guides -->` a table of the pages in that part of the
navigation.
"""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

ASSETS = Path(__file__).parent / "assets"
SIZED = re.compile(r"\\[bB]ig[lr]?\s*(\\\||\\[{}]|\\[lr]angle|[()\[\]|])")


def on_page_markdown(markdown: str, page: Any, config: Any = None, **_: Any) -> str:
    """The page with its figures; those that `docs/make_figures.py` has not drawn are left out."""
    up = "../" * page.file.src_uri.count("/")

    def figure(match: re.Match[str]) -> str:
        name = match[1]
        caption = ASSETS / f"{name}.txt"
        if not (ASSETS / f"{name}.svg").exists() or not caption.exists():
            return ""
        return f"![Learning curve]({up}assets/{name}.svg)\n\n{caption.read_text(encoding='utf-8')}"

    markdown = markdown.replace("<!-- algorithms -->", algorithms(up))
    if config is not None:
        markdown = re.sub(
            r"<!-- pages: (.+?) -->",
            lambda match: pages(config["nav"], match[1], up),
            markdown,
        )
    return re.sub(r"<!-- figure: ([\w-]+) -->", figure, markdown)


def pages(nav: list[Any], part: str, up: str) -> str:
    """A table of the pages in a part of the navigation, each with its first sentence."""
    (listed,) = [
        entry[part] for entry in nav if isinstance(entry, dict) and part in entry
    ]
    rows = [(title, path) for entry in listed for title, path in entry.items()]
    lines = [
        f"| [{title}]({up}{path}) | {first_sentence(ASSETS.parent / path)} |"
        for title, path in rows
    ]
    return "\n".join(["| Page | |", "|---|---|", *lines])


def first_sentence(page: Path) -> str:
    """What a page begins with, below its title, without its links and emphasis."""
    prose = re.sub(r"^(```.*?^```|<!--.*?-->|#.*?)$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    text = " ".join(prose.strip().split("\n\n")[0].split())
    text = (
        re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", text)
        .replace("**", "")
        .replace("|", "/")
    )
    return re.split(r"(?<=[.:?])\s", text)[0].rstrip(":")


def algorithms(up: str) -> str:
    """How many algorithms there are and which, as a sentence that leads to their page."""
    from athlete.algorithms import ALGORITHMS

    return f"{len(ALGORITHMS)} [algorithms]({up}algorithms/index.md): {', '.join(ALGORITHMS)}."


def paired(tex: str) -> str:
    """An equation whose `\\big(` and `\\big)` are `\\left(` and `\\right)`: one group, in which both are as tall.

    By themselves the second one would belong to the exponent that follows it, and browsers would not stretch it. An
    equation in which they do not come in pairs stays as it is.
    """
    sides = {"(": "left", "[": "left", r"\{": "left", r"\langle": "left"}
    opened = False

    def side(match: re.Match[str]) -> str:
        nonlocal opened
        bracket = match[1]
        if bracket in ("|", r"\|"):
            opened = not opened
            return f"\\{'left' if opened else 'right'}{bracket}"
        return f"\\{sides.get(bracket, 'right')}{bracket}"

    made = SIZED.sub(side, tex)
    return (
        made
        if len(re.findall(r"\\left\b", made)) == len(re.findall(r"\\right\b", made))
        else tex
    )


def on_page_content(content: str, **_: Any) -> str:
    """The page's HTML with its equations as MathML: no script is loaded for them."""
    from latex2mathml.converter import convert

    def equation(match: re.Match[str]) -> str:
        tag, opening, tex = match[1], match[2], paired(html.unescape(match[3]))
        return f'<{tag} class="equation">{convert(tex, display="block" if opening == "[" else "inline")}</{tag}>'

    return re.sub(
        r'<(span|div) class="arithmatex">\\([\[(])(.*?)\\[\])]</\1>',
        equation,
        content,
        flags=re.S,
    )
