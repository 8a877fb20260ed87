"""TACRED (Zhang et al., EMNLP 2017; LDC2018T24): relations of a person or organization."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from conpet.data.benchmarks.reading import Reading, field, json_file, words
from conpet.data.example import Example, Span
from conpet.data.labelled import LabelledData
from conpet.data.rows import RowError

FILES = {"train": "train.json", "validation": "dev.json", "test": "test.json"}
NO_RELATION = "no_relation"
_SUBJECTS = {"per": "person", "org": "organization"}
_RELATION = re.compile(r"(per|org):(.+)")
_EXPECTED = 'a list of objects with "token", "relation", "subj_start", "subj_end", "obj_start", "obj_end"'


def read_tacred(name: str, folder: Path) -> LabelledData:
    """Read TACRED, or a corrected edition in its format, from `train.json`, `dev.json` and `test.json`.

    The subject is the head, the object the tail. `per:city_of_birth` becomes "person city of birth", as in the paper.
    Rows labelled `no_relation` are left out.

    Raises:
        DataError: A file is missing or wrong.
    """
    reading = Reading(name, folder)

    def parse(row: Any) -> Iterator[Example]:
        relation = field(row, "relation", str, "text")
        if relation == NO_RELATION:
            reading.left_out[f"rows labelled {NO_RELATION}"] += 1
            return
        identifier = str(row["id"]) if row.get("id") is not None else None
        tokens = words(row, "token")
        head, tail = (_span(row, name, len(tokens)) for name in ("subj", "obj"))
        yield Example.of_relation(tokens, head, tail, paper_name(relation), identifier)

    subsets = {}
    for subset, file in FILES.items():
        rows = json_file(folder / file, list, _EXPECTED)
        subsets[subset] = reading.examples(folder / file, enumerate(rows, start=1), parse)
    return reading.data(subsets)


def paper_name(relation: str) -> str:
    """Return the paper's name of a relation such as `org:number_of_employees/members`.

    Raises:
        RowError: It is not a relation of a person or an organization.
    """
    match = _RELATION.fullmatch(relation)
    if match is None:
        raise RowError(f"unknown relation {relation!r}; expected per:..., org:... or {NO_RELATION}")
    return f"{_SUBJECTS[match[1]]} {match[2].replace('_', ' ').replace('/', ' ')}"


def _span(row: Any, name: str, tokens: int) -> Span:
    """Return a span; its end is inclusive in the file.

    Raises:
        RowError: It is empty or outside the tokens; the message uses the field names of the file.
    """
    start, last = (field(row, f"{name}_{end}", int, "a whole number") for end in ("start", "end"))
    span = f"{name}_start {start} and {name}_end {last}"
    if last < start:
        raise RowError(f"{span}: the end (inclusive) is before the start")
    if start < 0 or last >= tokens:
        raise RowError(f"{span} are outside the {tokens} tokens (the first token is 0, the end is inclusive)")
    return Span(start, last + 1)
