"""The guides in docs/learn say the same in both languages, and what is generated in them is up to date."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from scripts.make_learn import PICTURES_FOLDER, everything, pictures, terms
from scripts.messages import entries
from scripts.notebooks import cells, executed, notebook, notebooks

ROOT = Path(__file__).parents[1]
LEARN = ROOT / "docs" / "learn"
NAMES = sorted(path.relative_to(LEARN / "en").as_posix() for path in (LEARN / "en").rglob("*.md"))
FENCED = re.compile(r"```.*?```", re.DOTALL)
NO_TERMS = re.compile(r"%\(\w+\)s|Label Studio")
"""Parts of the dashboard's messages that are no terms: values, and the name of a product."""
LONGEST_NAME = 2
"""Most words of a message that is a name. In sentences, a translation may leave a term out."""
JAPANESE = "[ぁ-んァ-ヶ一-龠々ー]"


def text_of(language: str, name: str) -> str:
    return (LEARN / language / name).read_text(encoding="utf-8")


def figures(text: str) -> Counter[str]:
    """Return the figures of a page; numbers up to twelve may be words."""
    plain = re.sub(r"\]\([^)]*\)", "]", FENCED.sub("", text))
    found = re.findall(r"(?<![\w.])\d+(?:,\d{3})*(?:\.\d+)?%?", plain, re.ASCII)
    return Counter(one for one in found if not one.isdigit() or int(one) > 12)


def test_every_guide_has_both_languages() -> None:
    translated = sorted(path.relative_to(LEARN / "ja").as_posix() for path in (LEARN / "ja").rglob("*.md"))
    assert translated == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_both_languages_have_the_same_headings_tables_pictures_and_figures(name: str) -> None:
    pages = [FENCED.sub("", text_of(language, name)) for language in ("en", "ja")]
    for form in (r"^#+ ", r"^\d+\. ", r"^- ", r"^\|", r"^: ", r"\.\./pictures/\w+"):
        english, japanese = (re.findall(form, page, re.MULTILINE) for page in pages)
        assert english == japanese, form
    assert figures(pages[0]) == figures(pages[1])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("language", "other", "shown"), [("en", "ja", "日本語"), ("ja", "en", "English")])
def test_each_page_leads_to_its_translation(name: str, language: str, other: str, shown: str) -> None:
    first = text_of(language, name).split("\n", 3)
    assert first[0].startswith("# ")
    assert first[2] == f"[{shown}]({name.count('/') * '../'}../{other}/{name})"


@pytest.mark.parametrize("name", NAMES)
def test_japanese_pages_use_japanese_punctuation(name: str) -> None:
    text = re.sub(r"\]\([^)]*\)|`[^`]*`", "", FENCED.sub("", text_of("ja", name)))
    assert re.findall(f"{JAPANESE}[,.;:!?()]|[,(]{JAPANESE}|{JAPANESE} {JAPANESE}", text) == []


def test_glossaries_pictures_and_the_help_are_those_that_the_script_makes() -> None:
    assert [path for path, content in everything().items() if path.read_text(encoding="utf-8") != content] == []
    assert {path.name for path in PICTURES_FOLDER.glob("*.svg")} == {path.name for path in pictures()}


def test_every_term_is_explained_once_in_both_languages() -> None:
    for key in ("en", "ja", "yomi", "english", "japanese"):
        values = [term[key] for term in terms()]
        assert all(values)
        assert Counter(values).most_common(1)[0][1] == 1
    assert [term["yomi"] for term in terms() if not re.fullmatch(r"[ぁ-んー]+", term["yomi"])] == []


@pytest.mark.parametrize("page", notebooks("en"), ids=lambda page: page.stem)
def test_pages_for_engineers_print_what_they_say(page: Path) -> None:
    assert executed(page) == page.read_text(encoding="utf-8")


@pytest.mark.parametrize("page", notebooks("en"), ids=lambda page: page.stem)
def test_pages_for_engineers_have_the_same_cells_in_both_languages(page: Path) -> None:
    assert cells(LEARN / "ja" / "engineers" / page.name) == cells(page)


@pytest.mark.parametrize("page", [*notebooks("en"), *notebooks("ja")], ids=lambda page: page.stem)
def test_pages_for_engineers_are_notebooks(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    written = json.loads(json.dumps(notebook(page)))
    assert (written["nbformat"], written["nbformat_minor"]) == (4, 5)
    code = [cell for cell in written["cells"] if cell["cell_type"] == "code"]
    assert [ast.parse(cell["source"]) for cell in code]
    assert sum(len(cell["outputs"]) for cell in code) == text.count("```text\n")
    assert len({cell["id"] for cell in written["cells"]}) == len(written["cells"])
    assert all(cell["source"] in text for cell in written["cells"])


@pytest.mark.parametrize("term", [term for term in terms() if "catalogue" in term], ids=lambda term: term["en"])
def test_the_dashboard_uses_the_terms_of_the_glossary(term: dict[str, Any]) -> None:
    used = re.compile(rf"\b{re.escape(term['en'])}(?:s|es)?\b", re.IGNORECASE)
    names = [(NO_TERMS.sub("", str(entry.message.id)), str(entry.message.string)) for entry in entries("ja")]
    assert [
        (english, japanese)
        for english, japanese in names
        if len(english.split()) <= LONGEST_NAME
        and used.search(english)
        and not any(word in japanese for word in term["catalogue"])
    ] == []


def test_the_exercise_names_what_the_dashboard_shows() -> None:
    translations: dict[str, set[str]] = {}
    for entry in entries("ja"):
        translations.setdefault(str(entry.message.id), set()).add(str(entry.message.string))
    english, japanese = (
        [words for words in re.findall(r"\*\*(.+?)\*\*", text_of(language, "first-day.md")) if words[-1] not in ":："]
        for language in ("en", "ja")
    )
    assert [words for words in english if words not in translations] == []
    assert [(one, other) for one, other in zip(english, japanese, strict=True) if other not in translations[one]] == []
