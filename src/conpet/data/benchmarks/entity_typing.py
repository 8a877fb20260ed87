"""OntoNotes and BBN with fine-grained entity types, in the four formats in circulation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from conpet.data.benchmarks.paper import paper_labels
from conpet.data.benchmarks.reading import Reading, field, json_line, text_lines, unescaped, words
from conpet.data.example import Example, Span
from conpet.data.held_out import VALIDATION_SHARE, split_off
from conpet.data.labelled import LabelledData
from conpet.data.rows import RowError
from conpet.errors import Problem

STEMS = {
    "train": ("train", "augmented_train"),
    "validation": ("dev", "validation", "valid", "g_dev"),
    "test": ("test", "g_test"),
}
"""Accepted file names of each subset, without `SUFFIXES`."""
SUFFIXES = (".txt", ".tsv", ".json", ".jsonl")
_FORMS = (
    "expected a JSON object with tokens and mentions, one with mention_span and y_str, or the tab-separated columns "
    "start, end, tokens, labels"
)


def read_entity_typing(name: str, folder: Path) -> LabelledData:
    """Read "ontonotes" or "bbn" from a train, a dev and a test file; the format is detected line by line.

    A mention with several labels gets the deepest label that the paper's tasks contain, the first of equally deep ones.
    Mentions without such a label are left out and counted. Ends are exclusive.

    Raises:
        DataError: A file is missing or wrong.
    """
    reading = Reading(name, folder)
    files = _files(reading)
    parse = _Parser(reading, paper_labels(name)).parse
    subsets = {
        subset: reading.examples(path, ((row, line) for row, line in text_lines(path) if line.strip()), parse)
        for subset, path in files.items()
    }
    subsets = {"train": (), **subsets}
    if "validation" not in subsets:
        subsets["train"], subsets["validation"] = split_off(subsets["train"], VALIDATION_SHARE, seed=0)
        reading.notes.append(
            f"no dev file: {len(subsets['validation']):,} training examples were split off with seed 0"
        )
    return reading.data(subsets)


def _files(reading: Reading) -> dict[str, Path]:
    files = {}
    for subset, stems in STEMS.items():
        matches = [path for path in sorted(reading.folder.iterdir()) if path.stem in stems and path.suffix in SUFFIXES]
        if len(matches) > 1:
            both = ", ".join(path.name for path in matches)
            reading.problems.append(
                Problem(str(reading.folder), None, f"contains several {subset} files ({both}); keep one")
            )
        elif matches:
            files[subset] = matches[0]
        elif subset != "validation":
            names = ", ".join(f"{stem}{{{','.join(SUFFIXES)}}}" for stem in stems)
            reading.problems.append(
                Problem(str(reading.folder), None, f"contains no {subset} file; expected one of {names}")
            )
    return files


class _Parser:
    """Parses a line in any of the four formats."""

    def __init__(self, reading: Reading, known: frozenset[str]) -> None:
        self._reading = reading
        self._known = known

    def parse(self, line: str) -> Iterator[Example]:
        for tokens, span, labels in _json(line) if line.lstrip().startswith("{") else _columns(line):
            label = self._label(labels)
            if label is not None:
                yield Example.of_mention(unescaped(tokens), span, label)

    def _label(self, labels: Sequence[str]) -> str | None:
        known = [label for label in labels if label in self._known]
        if not known:
            self._reading.left_out["mentions none of whose labels is in the paper's tasks"] += 1
            return None
        return max(known, key=lambda label: label.count("/"))


_Mention = tuple[Sequence[str], Span, Sequence[str]]


def _json(line: str) -> Iterable[_Mention]:
    row = json_line(line)
    if "mentions" in row:
        tokens = words(row, "tokens")
        mentions = field(row, "mentions", list, "a list of mentions")
        return [(tokens, _span(mention), words(mention, "labels")) for mention in mentions]
    if "y_str" in row:
        left, right = words(row, "left_context_token"), words(row, "right_context_token")
        mention = field(row, "mention_span", str, "text").split()
        return [([*left, *mention, *right], Span(len(left), len(left) + len(mention)), words(row, "y_str"))]
    raise RowError(f"{_FORMS}; found an object with {', '.join(row) or 'nothing'}")


def _span(mention: Any) -> Span:
    start, end = (field(mention, name, int, "a whole number") for name in ("start", "end"))
    return Span(start, end)


def _columns(line: str) -> Iterable[_Mention]:
    match line.rstrip("\r\n").split("\t"):
        case [start, end, tokens, labels, *rest] if len(rest) <= 1 and start.isdecimal() and end.isdecimal():
            return [(tokens.split(" "), Span(int(start), int(end)), labels.split())]
    raise RowError(f"{_FORMS}; found {line!r:.80}")
