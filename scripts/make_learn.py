"""Make the glossaries and pictures of docs/learn, and the dashboard's help, in both languages.

python scripts/make_learn.py [--check]     # --check: fail if a file is out of date

Glossaries are made of docs/learn/glossary.yaml, pictures of docs/learn/pictures/texts.yaml, the help of guides.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Mapping
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from markdown_it import MarkdownIt

FOLDER = Path(__file__).parents[1] / "docs" / "learn"
PICTURES_FOLDER = FOLDER / "pictures"
HELP = Path(__file__).parents[1] / "src" / "conpet" / "dashboard" / "help"
GUIDES = ("ideas", "weekly", "red", "glossary")
LANGUAGES = ("en", "ja")
MADE_BY = "<!-- Made by `python scripts/make_learn.py` from docs/learn/glossary.yaml. -->"
ENGLISH = f"# Glossary\n\n[日本語](../ja/glossary.md)\n\n{MADE_BY}\n"
JAPANESE = (
    f"# 用語集\n\n[English](../en/glossary.md)\n\n{MADE_BY}\n\n五十音順に並べています。括弧内は英語の用語です。\n"
)
MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table")
WIDTH, HEIGHT = 720, 280
STYLE = """
svg { --page: #ffffff; --ink: #0f172a; --soft: #475569; --model: #e2e8f0; --module: #dbeafe; --edge: #1d4ed8;
  --old: #fef3c7; --warm: #b45309; --good: #dcfce7; --green: #15803d; --bad: #fee2e2; --red: #b91c1c; }
@media (prefers-color-scheme: dark) {
  svg { --page: #0f172a; --ink: #f1f5f9; --soft: #cbd5e1; --model: #334155; --module: #1e3a8a; --edge: #93c5fd;
    --old: #78350f; --warm: #fcd34d; --good: #14532d; --green: #86efac; --bad: #7f1d1d; --red: #fca5a5; } }
text { fill: var(--ink); text-anchor: middle; font: 15px system-ui, "Segoe UI", Roboto, "Hiragino Sans",
  "Noto Sans CJK JP", "Noto Sans JP", "Yu Gothic", Meiryo, "DejaVu Sans", sans-serif; }
.small { font-size: 13px; fill: var(--soft); } .strong { font-weight: 700; }
.page { fill: var(--page); } .model { fill: var(--model); stroke: var(--soft); }
.module { fill: var(--module); stroke: var(--edge); } .new { stroke-dasharray: 5 4; }
.old { fill: var(--old); stroke: var(--warm); } .good { fill: var(--good); stroke: var(--green); }
.bad { fill: var(--bad); stroke: var(--red); } .plain { fill: none; stroke: var(--soft); }
.line { fill: none; stroke: var(--soft); stroke-width: 2; } .head { fill: var(--soft); }
.right { fill: var(--green); font-weight: 700; } .wrong { fill: var(--red); font-weight: 700; }
"""
ARROW = (
    '<defs><marker id="arrow" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="6" markerHeight="6" '
    'orient="auto"><path class="head" d="M0 0 L10 5 L0 10 z"/></marker></defs>'
)

Texts = Mapping[str, str]


class Drawing:
    """Collects the shapes of a picture."""

    def __init__(self) -> None:
        self.shapes: list[str] = []

    def box(self, x: int, y: int, width: int, height: int, kind: str) -> None:
        """Draw a box with rounded corners."""
        self.shapes.append(f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="7"/>')

    def text(self, x: int, y: int, words: str, kind: str = "") -> None:
        """Write a line, centred at x."""
        shown = f' class="{kind}"' if kind else ""
        self.shapes.append(f'<text{shown} x="{x}" y="{y}">{escape(words)}</text>')

    def arrow(self, path: str) -> None:
        """Draw a line with a head, by the commands of an SVG path."""
        self.shapes.append(f'<path class="line" d="{path}" marker-end="url(#arrow)"/>')

    def person(self, x: int, y: int) -> None:
        """Draw a person, with the top of the head at y."""
        self.shapes.append(f'<circle class="plain" cx="{x}" cy="{y + 11}" r="11"/>')
        self.shapes.append(f'<path class="plain" d="M{x - 20} {y + 50} a20 22 0 0 1 40 0"/>')

    def svg(self, texts: Texts) -> str:
        """Return the picture."""
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
                f'height="{HEIGHT}" role="img" aria-labelledby="title description">',
                f'<title id="title">{escape(texts["title"])}</title>',
                f'<desc id="description">{escape(texts["description"])}</desc>',
                f"<style>{STYLE}</style>",
                ARROW,
                f'<rect class="page" width="{WIDTH}" height="{HEIGHT}" rx="10"/>',
                *self.shapes,
                "</svg>",
                "",
            ]
        )


def module(texts: Texts) -> Drawing:
    """Draw a model with one thin module for each task."""
    draw = Drawing()
    draw.box(40, 50, 220, 180, "model")
    draw.text(150, 85, texts["model"], "strong")
    draw.text(150, 107, f"({texts['frozen']})", "small")
    draw.person(150, 125)
    draw.text(150, 210, texts["colleague"], "small")
    draw.text(490, 40, texts["handbooks"], "small")
    for place, name in enumerate(("one", "two", "three", "new")):
        kind = "module new" if name == "new" else "module"
        draw.box(302 + 97 * place, 60, 82, 130, kind)
        draw.text(343 + 97 * place, 130, texts[name], "strong")
    draw.text(440, 222, texts["stay"], "small")
    draw.text(634, 222, texts["added"], "small")
    draw.shapes.append('<path class="line" d="M302 202 H578"/>')
    draw.shapes.append('<path class="line new" d="M593 202 H675"/>')
    return draw


def selector(texts: Texts) -> Drawing:
    """Draw the way of a text through the selector to a module."""
    draw = Drawing()
    draw.box(20, 80, 190, 56, "plain")
    draw.text(115, 113, texts["text"], "small")
    draw.arrow("M210 108 H246")
    draw.box(250, 55, 130, 106, "old")
    draw.text(315, 88, texts["selector"], "strong")
    draw.text(315, 145, texts["desk"], "small")
    for place, (name, width) in enumerate((("one", 90), ("two", 28), ("three", 12))):
        draw.box(410, 58 + 36 * place, width, 26, "module" if place == 0 else "model")
        draw.text(460 if place == 0 else 490, 77 + 36 * place, texts[name], "strong" if place == 0 else "small")
    draw.arrow("M380 75 H406")
    draw.arrow("M500 71 H552")
    draw.box(556, 45, 150, 52, "module")
    draw.text(631, 76, texts["module"], "strong")
    draw.arrow("M631 97 V128")
    draw.box(556, 132, 150, 44, "good")
    draw.text(631, 159, texts["label"])
    draw.arrow("M315 161 V226 H400")
    draw.text(220, 205, texts["none"], "small")
    draw.box(404, 204, 220, 44, "bad")
    draw.text(514, 231, texts["person"])
    return draw


def replay(texts: Texts) -> Drawing:
    """Draw a round of learning, mixed from new and old cards."""
    draw = Drawing()
    draw.text(140, 40, texts["new"], "strong")
    for place in range(4):
        draw.box(50 + 46 * place, 54, 38, 52, "module")
        draw.text(69 + 46 * place, 86, texts["card_new"], "small")
    draw.text(140, 158, texts["old"], "strong")
    draw.box(30, 172, 220, 84, "plain")
    for place in range(4):
        draw.box(50 + 46 * place, 188, 38, 52, "old")
        draw.text(69 + 46 * place, 220, texts["card_old"], "small")
    draw.arrow("M250 80 C300 80 310 120 344 128")
    draw.arrow("M250 214 C300 214 310 176 344 164")
    draw.text(330, 240, texts["drawn"], "small")
    draw.box(350, 92, 340, 108, "plain")
    draw.text(520, 80, texts["round"], "strong")
    for place, kind in enumerate("noonnono"):
        draw.box(364 + 40 * place, 120, 34, 52, "module" if kind == "n" else "old")
        draw.text(381 + 40 * place, 152, texts["card_new" if kind == "n" else "card_old"], "small")
    draw.text(520, 226, texts["mixed"], "small")
    return draw


def consolidation(texts: Texts) -> Drawing:
    """Draw many modules that are worked into the model."""
    draw = Drawing()
    draw.text(150, 36, texts["before"], "strong")
    draw.box(20, 52, 124, 116, "model")
    draw.text(82, 115, texts["model"], "small")
    for place in range(4):
        draw.box(154 + 30 * place, 52, 22, 116, "module")
    draw.arrow("M284 110 H424")
    draw.text(354, 96, texts["training"], "small")
    draw.text(354, 132, texts["all"], "small")
    draw.text(560, 36, texts["after"], "strong")
    draw.box(434, 52, 176, 116, "good")
    draw.text(522, 105, texts["model"], "strong")
    draw.text(522, 128, f"({texts['tuned']})", "small")
    draw.box(624, 52, 26, 116, "module")
    draw.box(30, 204, 240, 48, "old")
    draw.text(150, 233, texts["archive"])
    draw.arrow("M150 168 V200")
    draw.arrow("M522 168 C522 228 420 228 276 228")
    draw.text(470, 252, texts["back"], "small")
    return draw


def gate(texts: Texts) -> Drawing:
    """Draw the comparison of answers before and after a change."""
    draw = Drawing()
    draw.text(165, 40, texts["same"], "strong")
    for top, name, marks in ((56, "today", "✓✓✓✓✗"), (136, "changed", "✓✓✗✓✗")):
        draw.box(30, top, 270, 64, "model")
        draw.text(165, top + 24, texts[name], "small")
        for place, mark in enumerate(marks):
            draw.text(95 + 35 * place, top + 50, mark, "right" if mark == "✓" else "wrong")
    draw.arrow("M300 88 C330 88 332 118 352 122")
    draw.arrow("M300 168 C330 168 332 142 352 136")
    draw.box(356, 84, 120, 92, "old")
    draw.text(416, 124, texts["gate"], "strong")
    draw.text(416, 200, texts["inspection"], "small")
    draw.arrow("M476 112 C496 112 496 78 512 78")
    draw.arrow("M476 148 C496 148 496 186 512 186")
    draw.box(516, 54, 190, 48, "good")
    draw.text(611, 83, texts["fine"])
    draw.box(516, 162, 190, 48, "bad")
    draw.text(611, 191, texts["worse"])
    draw.text(590, 232, texts["candidate"], "small")
    return draw


PICTURES: Mapping[str, Callable[[Texts], Drawing]] = {
    "module": module,
    "selector": selector,
    "replay": replay,
    "consolidation": consolidation,
    "gate": gate,
}


def pictures() -> dict[Path, str]:
    """Return the pictures in both languages, by file."""
    texts = yaml.safe_load((PICTURES_FOLDER / "texts.yaml").read_text(encoding="utf-8"))
    drawn = {}
    for name, draw in PICTURES.items():
        for language in LANGUAGES:
            words = {key: by_language[language] for key, by_language in texts[name].items()}
            drawn[PICTURES_FOLDER / f"{name}-{language}.svg"] = draw(words).svg(words)
    return drawn


def terms() -> list[Mapping[str, Any]]:
    """Return all terms, in the order of the file."""
    read: list[Mapping[str, Any]] = yaml.safe_load((FOLDER / "glossary.yaml").read_text(encoding="utf-8"))
    return read


def glossaries() -> dict[Path, str]:
    """Return the page of each language."""
    english = sorted(terms(), key=lambda term: term["en"].lower())
    japanese = sorted(terms(), key=lambda term: term["yomi"])
    return {
        FOLDER / "en" / "glossary.md": "\n".join(
            [ENGLISH, *(f"**{term['en']}**\n: {term['english']}\n" for term in english)]
        ),
        FOLDER / "ja" / "glossary.md": "\n".join(
            [JAPANESE, *(f"**{term['ja']}**（{term['en']}）\n: {term['japanese']}\n" for term in japanese)]
        ),
    }


def everything() -> dict[Path, str]:
    """Return all files that are made, by path."""
    made = pictures() | glossaries()
    return made | help_pages(made)


def help_pages(made: Mapping[Path, str]) -> dict[Path, str]:
    """Return the files of the dashboard's help: a title and HTML for each guide, and the pictures.

    Args:
        made: The glossaries and pictures.
    """
    files = {HELP / "pictures" / path.name: content for path, content in made.items() if path.suffix == ".svg"}
    for language in LANGUAGES:
        for name in GUIDES:
            page = FOLDER / language / f"{name}.md"
            files[HELP / language / f"{name}.html"] = html(made.get(page) or page.read_text(encoding="utf-8"))
    return files


def html(page: str) -> str:
    """Return the title of a guide and, below it, its HTML, as the dashboard shows it."""
    title, _, text = page.partition("\n")
    text = re.sub(r"^\[[^\]]*\]\(\.\./\w\w/[^)]*\)$|<!--.*?-->", "", text, flags=re.MULTILINE)
    text = re.sub(r"\[([^\]]*)\]\(\.\./\.\./[^)]*\)(?:（英語）)?", r"\1", text)  # pages that the package does not have
    text = re.sub(r"\]\((\w+)\.md", r"](/ui/help/\1", text)
    text = re.sub(r"^\*\*(.+?)\*\*(.*)\n: (.*)$", r"**\1**\2  \n\3", text, flags=re.MULTILINE)
    tokens = MARKDOWN.parse(text)
    for token, following in pairwise(tokens):
        if token.type == "heading_open":
            token.attrSet("id", slug(following.content))
        if token.type == "th_open":
            token.attrSet("scope", "col")
    rendered = MARKDOWN.renderer.render(tokens, MARKDOWN.options, {})
    if sections := re.findall(r'<h3 id="(.*?)">(.*?)</h3>', rendered):
        listed = "".join(f'<li><a href="#{anchor}">{heading}</a></li>' for anchor, heading in sections)
        rendered = rendered.replace("<h2", f'<ul class="contents">{listed}</ul>\n<h2', 1)
    rendered = re.sub(
        r'<p><img src="\.\./pictures/(.*?)" alt="(.*?)" /></p>',
        r'<div class="scroll" tabindex="0" role="region" aria-label="\2"><img class="plot" src="\1" alt="\2" /></div>',
        rendered,
    )
    rendered = re.sub(
        r"<table>(.*?)</table>", r'<div class="scroll"><table>\1</table></div>', rendered, flags=re.DOTALL
    )
    return f"{title.removeprefix('# ')}\n{rendered}"


def slug(heading: str) -> str:
    """Return the anchor of a heading, as the documentation makes it."""
    return re.sub(r"[^\w-]", "", heading.lower().replace(" ", "-"))


def main() -> int:
    """Write the files, or check them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    files = everything()
    stale = [
        path for path, content in files.items() if not path.exists() or path.read_text(encoding="utf-8") != content
    ]
    for path in stale:
        if check:
            sys.stderr.write(f"{path} is stale: run python scripts/make_learn.py\n")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(files[path], encoding="utf-8")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
