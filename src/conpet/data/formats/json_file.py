"""JSON files: a list of objects, streamed; or an object that contains the rows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TextIO

from conpet.data.formats.jsonl import ends_early, read_jsonl
from conpet.data.raw import SUBSET_NAMES, Note, RawItem, RawRow
from conpet.data.source import Source
from conpet.errors import Problem, Scope, listed, plural

_NEXT = re.compile(r"[\s,]*")
_CHUNK = 1 << 16
_DECODER = json.JSONDecoder()
_ROW_LISTS = ("data", "examples", "rows", "records", "items", "sentences", "utterances", "intents", "common_examples")
_WRAPPERS = ("rasa_nlu_data", "nlu")
_TEXT_LISTS = ("patterns", "examples", "utterances", "questions", "texts", "phrases")
_GROUP_NAMES = ("tag", "intent", "label", "name", "category", "topic")
_SHOWN = 8
_SHOWN_TEXT = 40
_EXPECTED = 'expected a list of objects such as [{"text": "...", "label": "..."}]'


def read_json(source: Source) -> Iterator[RawItem]:
    """Read a JSON file.

    A list is read one item at a time. An object is read whole; its rows are a list under a common name ("data",
    "examples", "sentences", ...), columns ({"text": [...], "label": [...]}), or texts by label. The number of a row is
    its position in the list.
    """
    with source.text() as text:
        start = _first_character(text)
        if not start:
            yield source.problem(None, f"is empty; {_EXPECTED}")
        elif start == "[":
            for number, item in enumerate(_items(text, source), start=1):
                yield item if not isinstance(item, _Item) else _row(item.value, source, number)
        else:
            yield from _whole(start + text.read(), source)


class _Item:
    """An item of a list."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


def _first_character(text: TextIO) -> str:
    while (character := text.read(1)) and character.isspace():
        pass
    return character


def _items(text: TextIO, source: Source) -> Iterator[_Item | RawItem]:
    """Yield the items of a list that begins before the present position, in constant memory."""
    buffer, at, count, complete = "", 0, 0, False
    while True:
        at = _NEXT.match(buffer, at).end()  # type: ignore[union-attr] # it matches nothing, too
        if buffer[at : at + 1] == "]":
            yield from _after_list(buffer[at + 1 :], text, source, count)
            return
        try:
            value, end = _DECODER.raw_decode(buffer, at)
            whole = end < len(buffer) or complete  # a number may go on
            error: Exception | None = None
        except (ValueError, RecursionError) as failed:
            whole, error = complete, failed
        if not whole:
            chunk = text.read(max(_CHUNK, len(buffer) - at))
            complete = not chunk
            buffer, at = buffer[at:] + chunk, 0
            if problem := source.undecodable(chunk):
                yield source.stopped(count + 1, problem.reason)
                return
        elif error is not None:
            yield _invalid(error, buffer[at:], source, count + 1)
            return
        else:
            count, at = count + 1, end
            yield _Item(value)


def _after_list(rest: str, text: TextIO, source: Source, rows: int) -> Iterator[Problem]:
    """Report what follows the end of the list: it is not read."""
    while not rest.strip() and (chunk := text.read(_CHUNK)):
        rest = chunk
    if rest.strip():
        yield source.stopped(rows + 1, f"text after the end of the list: {rest.strip()[:_SHOWN_TEXT]!r}")


def _invalid(error: Exception, rest: str, source: Source, row: int) -> Problem:
    if not rest.strip() or (isinstance(error, json.JSONDecodeError) and ends_early(error)):
        cut = "after" if not rest.strip() else f"in the middle of row {row}, after"
        return source.problem(
            row,
            f"the file ends {cut} {plural(row - 1, 'complete row')}, before the end of the list; get the whole file, "
            "or end the list after the last complete row",
            Scope.REST,
        )
    reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
    return source.stopped(row, f"not valid JSON: {reason} at {rest[:_SHOWN_TEXT]!r}")


def _row(item: Any, source: Source, number: int) -> RawItem:
    if isinstance(item, dict) and set(item) >= {"row_idx", "row"}:  # as the server of Hugging Face data sets answers
        item = item["row"]
    if isinstance(item, str):
        item = {"text": item}
    if not isinstance(item, dict):
        return source.problem(number, f"is not an object; {_EXPECTED}")
    return RawRow(number, item)


def _whole(text: str, source: Source) -> Iterator[RawItem]:
    if problem := source.undecodable(text):
        yield problem
        return
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and error.lineno > 1:
            yield Note(source.file, "one object a line: read as JSON lines")
            yield from read_jsonl(source)
        else:
            yield _not_json(error, source)
        return
    except (ValueError, RecursionError) as error:
        yield source.problem(None, f"not usable JSON: {error}")
        return
    if not isinstance(value, dict):
        yield source.problem(None, _EXPECTED)
        return
    yield from _object(value, source)


def _not_json(error: json.JSONDecodeError, source: Source) -> Problem:
    if ends_early(error):
        return source.problem(None, "the file ends in the middle of its JSON object: is it complete?")
    table = "; if it is a table: --input-format csv" if not error.pos else ""
    reason = f"not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}{table}"
    return source.problem(None, reason)


def _object(value: Mapping[str, Any], source: Source) -> Iterator[RawItem]:
    for wrapper in _WRAPPERS:
        if isinstance(value.get(wrapper), dict):
            value = value[wrapper]
    if isinstance(value.get("text"), str):
        yield RawRow(1, dict(value))
        return
    if table := _columns(value):
        for number, fields in enumerate(table, start=1):
            yield RawRow(number, fields)
        return
    if subsets := _subsets(value):
        yield from _of_subsets(value, subsets, source)
        return
    name, items = _row_list(value)
    if name is None:
        yield from _by_label(value, source)
        return
    others = [other for other, rows in value.items() if other != name and _is_rows(rows)]
    skipped = f"; not read: {', '.join(others[:_SHOWN])}" if others else ""
    yield Note(source.file, f"rows are read from {name!r}{skipped}")
    number = 0
    for item in items:
        for row in _grouped(item):
            number += 1
            yield _row(row, source, number)


def _subsets(value: Mapping[str, Any]) -> dict[str, str]:
    """Return the lists of rows that are named after a subset, with the subset, if one has training rows."""
    named = {
        name: subset
        for name, rows in value.items()
        if (subset := SUBSET_NAMES.get(name.strip().lower())) and isinstance(rows, list) and all(map(_is_row, rows))
    }
    return named if "train" in named.values() else {}


def _is_row(item: Any) -> bool:
    """Return whether an item is a row: an object, or a text with its label."""
    return isinstance(item, dict) or (isinstance(item, list) and len(item) == 2 and all(map(_is_text, item)))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _of_subsets(value: Mapping[str, Any], subsets: Mapping[str, str], source: Source) -> Iterator[RawItem]:
    others = [name for name, rows in value.items() if name not in subsets and isinstance(rows, list) and rows]
    skipped = f"; not read: {', '.join(others[:_SHOWN])}" if others else ""
    yield Note(source.file, f"rows are read from {listed([repr(name) for name in subsets], _SHOWN)}{skipped}")
    for name, subset in subsets.items():
        for number, item in enumerate(value[name], start=1):
            fields = dict(item) if isinstance(item, dict) else {"text": item[0], "label": item[1]}
            yield RawRow(number, {**fields, "split": subset}, f"{source.file} ({name})")


def _row_list(value: Mapping[str, Any]) -> tuple[str | None, Sequence[Any]]:
    lists = {name: rows for name, rows in value.items() if _is_rows(rows)}
    known = [name for name in _ROW_LISTS if name in lists]
    name = known[0] if known else next(iter(lists)) if len(lists) == 1 else None
    return name, lists[name] if name is not None else ()


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _grouped(item: Any) -> Iterator[Any]:
    """Yield the rows of an intent given with a list of its texts; any other item as it is."""
    if isinstance(item, dict):
        texts = next((item[name] for name in _TEXT_LISTS if isinstance(item.get(name), list)), None)
        label = next((item[name] for name in _GROUP_NAMES if isinstance(item.get(name), str)), None)
        if texts is not None and label is not None and all(isinstance(text, str) for text in texts):
            yield from ({"text": text, "label": label} for text in texts)
            return
    yield item


def _columns(value: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of a table given column by column, or as `pandas.DataFrame.to_json(orient="split")` writes it."""
    names, data = value.get("columns"), value.get("data")
    if isinstance(names, list) and isinstance(data, list) and all(isinstance(row, list) for row in data):
        return [dict(zip(names, row, strict=False)) for row in data]
    columns = {
        name: list(cells.values()) if isinstance(cells, dict) else cells
        for name, cells in value.items()
        if isinstance(cells, (list, dict))
    }
    if not {name.strip().casefold() for name in columns} & {"text", "tokens"}:
        return []
    if len({len(cells) for cells in columns.values()}) != 1 or len(columns) != len(value):
        return []
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _by_label(value: Mapping[str, Any], source: Source) -> Iterator[RawItem]:
    """Read lists of texts by their label."""
    if len(value) < 2 or not all(
        isinstance(texts, list) and all(isinstance(text, str) for text in texts) for texts in value.values()
    ):
        names = ", ".join(map(repr, list(value)[:_SHOWN])) or "no names"
        yield source.problem(None, f"is an object with {names}; {_EXPECTED}, or such a list under one of the names")
        return
    yield Note(
        source.file, f"the names are read as labels of the texts listed under them ({plural(len(value), 'label')})"
    )
    rows = ((label, text) for label, texts in value.items() for text in texts)
    for number, (label, text) in enumerate(rows, start=1):
        yield RawRow(number, {"text": text, "label": label})
