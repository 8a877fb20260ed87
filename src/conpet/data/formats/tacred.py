"""TACRED (Zhang et al., EMNLP 2017; LDC2018T24): relations between a person or organization and something."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from conpet.data.example import Example, Span
from conpet.data.formats.reading import Reading, field, json_file, words
from conpet.data.labelled import LabelledData
from conpet.data.rows import RowError

FILES = {"train": "train.json", "validation": "dev.json", "test": "test.json"}
NO_RELATION = "no_relation"
_SUBJECTS = {"per": "person", "org": "organization"}
_RELATION = re.compile(r"(per|org):(.+)")
_EXPECTED = 'a list of objects with "token", "relation", "subj_start", "subj_end", "obj_start", "obj_end"'


def read_tacred(name: str, folder: Path) -> LabelledData:
    """Read TACRED, or a corrected edition in its format, from `train.json`, `dev.json` and `test.json`.

    The subject is the head, the object the tail. `per:city_of_birth` is called "person city of birth", as in the paper;
    rows of `no_relation` are left out.

    Raises:
        DataError: A file is missing or wrong.
    """
    reading = Reading(name, folder)

    def parse(row: Any) -> Iterator[Example]:
        relation = field(row, "relation", str, "text")
        if relation == NO_RELATION:
            reading.left_out[f"rows labelled {NO_RELATION}"] += 1
            return
        named = str(row["id"]) if row.get("id") is not None else None
        yield Example.of_relation(
            words(row, "token"), _span(row, "subj"), _span(row, "obj"), paper_name(relation), named
        )

    splits = {}
    for split, file in FILES.items():
        rows = json_file(folder / file, list, _EXPECTED)
        splits[split] = reading.examples(folder / file, enumerate(rows, start=1), parse)
    return reading.data(splits)


def paper_name(relation: str) -> str:
    """Return the paper's name of a relation such as `org:number_of_employees/members`.

    Raises:
        RowError: It is not the name of a relation of a person or an organization.
    """
    match = _RELATION.fullmatch(relation)
    if match is None:
        raise RowError(f"unknown relation {relation!r}; expected per:..., org:... or {NO_RELATION}")
    return f"{_SUBJECTS[match[1]]} {match[2].replace('_', ' ').replace('/', ' ')}"


def _span(row: Any, name: str) -> Span:
    """Return a span; its end is inclusive in the file."""
    start, last = (field(row, f"{name}_{end}", int, "a whole number") for end in ("start", "end"))
    return Span(start, last + 1)
