"""LUIS training data in `.lu` files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator

from conpet.data.raw import Note, RawItem, RawRow
from conpet.data.source import Source
from conpet.errors import plural

_INTENT = re.compile(r"#+\s*(?P<name>.*?)\s*#*\s*")
_BULLET = re.compile(r"[-*+]\s*(?P<text>.*)")
_ENTITY = re.compile(r"(?<!\\)\{\s*@?[^{}=]*?=\s*(?P<value>(?:\\.|[^{}\\])*?)\s*(?<!\\)\}")
_PLACEHOLDER = re.compile(r"(?<!\\)\{[^{}]*\}")
_CHOICE = re.compile(r"(?<!\\)\([^()]*\|[^()]*\)")
_INCLUDE = re.compile(r"\[[^\]]*\]\([^)]*\)")
_ESCAPED = re.compile(r"\\([\\{}\[\]()|@#>$-])")
_MULTILINE = "```"


def read_lu(source: Source) -> Iterator[RawItem]:
    """Read the intents of a `.lu` file; each utterance is a row at its line.

    `{@entity=text}` becomes its text. Patterns, which stand for many texts, and all that defines entities or answers
    questions are left out, with a note.
    """
    intent: str | None = None
    found = False
    left_out: Counter[str] = Counter()
    for row, line in _without_answers(source.lines()):
        if problem := source.undecodable(line, row):
            yield problem
        elif line.startswith("#"):
            intent, kind = _section(line)
            found = found or intent is not None
            left_out.update(kind)
        elif line.startswith(("@", "$")):
            intent = None
            left_out["entity definition"] += 1
        elif _INCLUDE.fullmatch(line):
            left_out["included file"] += 1
        elif intent is not None:
            text, kind = _utterance(line)
            left_out.update(kind)
            if text:
                yield RawRow(row, {"text": text, "label": intent})
    if not found and not left_out:
        yield source.problem(None, 'contains no intents; expected "# Intent" and "- utterance" lines')
    if left_out:
        parts = ", ".join(plural(count, kind) for kind, count in sorted(left_out.items()))
        yield Note(source.file, f"only intents are read; left out: {parts}")


def _without_answers(lines: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Yield the stripped lines that are neither blank, nor comments, nor in the answer to a question."""
    in_answer = False
    for row, raw in lines:
        line = raw.strip()
        if in_answer or line.startswith(_MULTILINE):
            in_answer ^= line.count(_MULTILINE) % 2 == 1
        elif line and not line.startswith((">", "!#", "**", "<a ")):
            yield row, line


def _section(line: str) -> tuple[str | None, list[str]]:
    """Return the intent that a heading begins, or else what it begins instead."""
    name = _INTENT.fullmatch(line)["name"]  # type: ignore[index] # the line begins with #
    if name.startswith("?"):
        return None, ["answered question"]
    return (name, []) if name else (None, ["nameless heading"])


def _utterance(line: str) -> tuple[str, list[str]]:
    """Return the text of a line below an intent, or else what the line is instead."""
    bullet = _BULLET.fullmatch(line)
    if bullet is None:
        return "", ["other line"]
    text = bullet["text"]
    if _INCLUDE.fullmatch(text):
        return "", ["included file"]
    while (plain := _ENTITY.sub(lambda mark: mark["value"], text)) != text:
        text = plain
    if _PLACEHOLDER.search(text) or _CHOICE.search(text) or text.startswith("^") or text.endswith("^"):
        return "", ["pattern"]
    return _ESCAPED.sub(r"\1", text).strip(), []
