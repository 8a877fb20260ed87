"""JSON lines: one object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator

from conpet.data.raw import RawItem, RawRow
from conpet.data.source import Source
from conpet.errors import Problem, Scope

_WORDS = ("true", "false", "null", "-1")


def read_jsonl(source: Source) -> Iterator[RawItem]:
    """Read JSON lines."""
    with source.text() as text:
        for row, line in enumerate(text, start=1):
            if line.strip():
                yield _json_row(line, source, row)


def count_jsonl(source: Source) -> int:
    """Count the lines that are not blank."""
    return sum(1 for _, line in source.lines() if line.strip())


def ends_early(error: json.JSONDecodeError) -> bool:
    """Return whether JSON is wrong only because it ends too early."""
    rest = error.doc[error.pos :].rstrip()
    return error.msg.startswith("Unterminated string") or any(word.startswith(rest) for word in _WORDS)


def _other_format(line: str, source: Source, row: int) -> str:
    """Return how to read a file that is not JSON lines from its first row on."""
    if row > 1 or (source.options.format is not None and source.from_stdin):
        return ""
    if source.from_stdin:
        return "; standard input is read as JSON lines, other formats with --input-format (csv, tsv, txt, ...)"
    if line.strip() in ("[", "{"):
        return "; if it is one JSON document: --input-format json"
    return "" if line.lstrip().startswith("{") else "; if it is a table: --input-format csv"


def _json_row(line: str, source: Source, row: int) -> RawRow | Problem:
    if problem := source.undecodable(line, row):
        return problem
    try:
        fields = json.loads(line)
    except json.JSONDecodeError as error:
        if ends_early(error) and not line.endswith("\n"):
            reason = "the file ends in the middle of this row: get the whole file, or delete the row"
            return source.problem(row, reason, Scope.PARSING)
        return source.problem(
            row, f"not valid JSON: {error.msg} at character {error.colno}{_other_format(line, source, row)}"
        )
    except (ValueError, RecursionError) as error:
        return source.problem(row, f"not usable JSON: {error}")
    if not isinstance(fields, dict):
        hint = "; to read a JSON list: --input-format json" if isinstance(fields, list) and row == 1 else ""
        return source.problem(row, f'not a JSON object such as {{"text": "...", "label": "..."}}{hint}')
    return RawRow(row, fields)
