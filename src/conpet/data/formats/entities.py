"""Rows with a list of labelled entities, as doccano and Prodigy export them: an example for each entity."""

from __future__ import annotations

import ast
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from conpet.data.columns import LIKELY
from conpet.data.raw import Header, Note, RawItem, RawRow
from conpet.data.rows import FIELDS, lines_around
from conpet.data.source import Source
from conpet.errors import Problem, plural

_LABEL_LISTS = ("label", "labels")
ENTITY_LISTS = (*_LABEL_LISTS, "spans", "entities")
"""Columns that may hold lists of entities."""
_TEXTS = ("text", "data")
_REPLACED = {*FIELDS, *ENTITY_LISTS} - {"id"}
_LABELS = {"label", *LIKELY["label"]}
_STARTS, _ENDS, _TYPES = ("start", "start_offset"), ("end", "end_offset"), ("label", "type")
_REFUSED = ("reject", "ignore")
_ANSWERS = ("accept", *_REFUSED)
_PRODIGY = ("spans", "label", "_task_hash", "_input_hash")
_FORM = '[start, end, "TYPE"] or {"start": ..., "end": ..., "label": "TYPE"}'


def with_entities(items: Iterable[RawItem], source: Source) -> Iterator[RawItem]:
    """Yield the items of a file, with an item for each entity in place of a row that lists its entities.

    Such a list stands under `label` or `labels` (doccano), `spans` (Prodigy) or, in rows without a label that are
    learned, `entities`, or in the column that is named for the label. A cell of a table holds it as JSON, or as Python
    writes it. Rows that Prodigy has marked as rejected or ignored are left out.
    """
    counts: Counter[str] = Counter()
    undecided: list[RawItem] = []  # empty lists before the first row that tells what they are lists of
    for item in _listed(items, source):
        if not isinstance(item, RawRow):
            yield item
        elif _is_refused(item.fields, labelled=source.labelled):
            counts["answer"] += 1
        elif (key := _list_of(item.fields, source)) is None:
            yield from undecided
            undecided.clear()
            yield item
        elif item.fields[key] or key not in _LABEL_LISTS or counts["row"]:
            counts["empty"] += len(undecided)
            counts["row"] += len(undecided)
            undecided.clear()
            yield from _examples(item, key, counts, source)
        else:
            undecided.append(item)
    yield from undecided
    if any(counts.values()):
        yield Note(source.file, _said(counts))


def _listed(items: Iterable[RawItem], source: Source) -> Iterator[RawItem]:
    """Yield items with lists of entities in place of the cells that write them.

    The header of a table with such lists is left out: what takes the place of its rows has other columns.
    """
    header: Header | None = None
    for item in items:
        if isinstance(item, Header):
            header = item
            continue
        row = item._replace(fields=_decoded(item.fields, source)) if isinstance(item, RawRow) else item
        if header is not None:
            if not isinstance(row, RawRow) or _list_of(row.fields, source) is None:
                yield header
            header = None
        yield row
    if header is not None:
        yield header


def _decoded(fields: dict[str, Any], source: Source) -> dict[str, Any]:
    names = {*ENTITY_LISTS, source.options.columns.get("label", "label")}
    decoded = {name: value for name in names & fields.keys() if (value := _written_list(fields[name])) is not None}
    return {**fields, **decoded} if decoded else fields


def _written_list(cell: Any) -> list[Any] | None:
    """Return the list of entities that a cell writes, or None."""
    if not isinstance(cell, str) or not (cell.lstrip().startswith(("[{", "[[", "[(")) or cell.strip() == "[]"):
        return None
    for read in (json.loads, ast.literal_eval):
        try:
            value = read(cell.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        return [list(entity) if isinstance(entity, tuple) else entity for entity in value]
    return None


def _is_refused(fields: Mapping[str, Any], *, labelled: bool) -> bool:
    """Return whether a row is one that Prodigy has not accepted; its text may still be predicted."""
    return (
        fields.get("answer") in _REFUSED
        and any(name in fields for name in _PRODIGY)
        and (labelled or "spans" in fields)
    )


def _list_of(fields: Mapping[str, Any], source: Source) -> str | None:
    """Return the name under which a row lists its entities, or None."""
    if _text_of(fields, source) is None:
        return None
    if (named := source.options.columns.get("label")) is not None:
        return named if _is_list(fields.get(named)) else None
    if listed := next((name for name in _LABEL_LISTS if _is_list(fields.get(name))), None):
        return listed
    if any(name.strip().casefold() in _LABELS for name in fields):
        return None
    if _are_entities(fields.get("spans"), may_be_empty=source.labelled or "answer" in fields):
        return "spans"
    # An input to predict may list entities that its label does not depend on.
    return "entities" if source.labelled and _are_entities(fields.get("entities"), may_be_empty=True) else None


def _is_list(value: Any) -> bool:
    """Return whether a value is a list of entities, also of wrong ones, or empty; a list of labels is none."""
    return isinstance(value, list) and all(isinstance(entity, (list, dict)) for entity in value)


def _are_entities(value: Any, *, may_be_empty: bool) -> bool:
    return _is_list(value) and (may_be_empty if not value else all(map(_has_bounds, value)))


def _has_bounds(entity: Any) -> bool:
    if isinstance(entity, dict):
        return not entity.keys().isdisjoint(_STARTS) and not entity.keys().isdisjoint(_ENDS)
    return len(entity) == 3


def _text_of(fields: Mapping[str, Any], source: Source) -> str | None:
    names = [source.options.columns["text"]] if "text" in source.options.columns else _TEXTS
    return next((name for name in names if isinstance(fields.get(name), str)), None)


def _examples(item: RawRow, key: str, counts: Counter[str], source: Source) -> Iterator[RawItem]:
    entities = item.fields[key]
    counts["row"] += 1
    counts["empty"] += not entities
    counts["entity"] += len(entities)
    relations = item.fields.get("relations")
    counts["relation"] += len(relations) if isinstance(relations, list) else 0
    name = _text_of(item.fields, source)
    text = item.fields[name] if name is not None else ""
    others = {other: value for other, value in item.fields.items() if other not in (key, name, *_REPLACED)}
    for number, entity in enumerate(entities, start=1):
        yield _example(item.row, text, entity, others, number, source)


def _example(
    row: int, text: str, entity: Any, others: Mapping[str, Any], number: int, source: Source
) -> RawRow | Problem:
    parsed = _parsed(entity)
    if parsed is None:
        return source.problem(row, f"entity {number} is {entity!r:.60}; expected {_FORM}")
    start, end, kind = parsed
    first, last = lines_around(text, start, end) if 0 <= start < end <= len(text) else (0, len(text))
    mention = {"start": start - first, "end": end - first}
    if isinstance(entity, dict) and "text" in entity:
        mention["text"] = entity["text"]
    return RawRow(row, {**others, "text": text[first:last], "mention": mention, "label": kind})


def _parsed(entity: Any) -> tuple[int, int, str] | None:
    if isinstance(entity, dict):
        values = [next((entity[name] for name in names if name in entity), None) for names in (_STARTS, _ENDS, _TYPES)]
    else:
        values = entity
    if not isinstance(values, list) or len(values) != 3:
        return None
    start, end, kind = values
    whole = all(isinstance(bound, int) and not isinstance(bound, bool) for bound in (start, end))
    return (start, end, kind) if whole and isinstance(kind, str) and kind.strip() else None


def _said(counts: Counter[str]) -> str:
    said = []
    if counts["row"]:
        said.append(f"{plural(counts['entity'], 'example')}: the entities of {plural(counts['row'], 'row')}")
    left_out = {
        f"{plural(counts['empty'], 'row')} without entities": counts["empty"],
        f"{plural(counts['answer'], 'row')} with the answer reject or ignore": counts["answer"],
        plural(counts["relation"], "relation"): counts["relation"],
    }
    if parts := [part for part, count in left_out.items() if count]:
        said.append(f"left out: {', '.join(parts)}")
    return "; ".join(said)
