"""Parse a row of a file into an `Example`."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from numbers import Integral
from typing import Any

from conpet.data.example import Example, Id, Span
from conpet.errors import ConpetError, Problem

FIELDS = ("text", "tokens", "head", "tail", "mention", "label", "id")
"""The columns read; all others are ignored."""
_NO_INPUT = "missing text (or tokens with head and tail, or with mention)"
_SHOWN_KEYS = 10
_LISTS = ("[{", "[[")
_WORD = re.compile(r"\S+")
_PAIR = re.compile(r"\s*(-?\d{1,9})\s*:\s*(-?\d{1,9})\s*")

Input = str | Example | Mapping[str, Any] | Problem
"""An input to predict: a text, an example, or a mapping with the fields of a row.

A `Problem` stands for an input that could not be read (see `read_inputs`)."""


class RowError(ConpetError, ValueError):
    """A row cannot be parsed, for the reason in the message. The readers turn it into a `Problem`."""


def parse_row(row: Mapping[str, Any], *, inclusive_ends: bool = False, labelled: bool = True) -> Example:
    """Build an example from a row. `check_example` checks the result.

    Args:
        row: Field names to values. `text`; or `tokens` (a list, or one string: a JSON list, else words joined by
            spaces) or `text`, with `head` and `tail`, or with `mention`. A span is {"start": s, "end": e}, [s, e],
            "s:e" or JSON of these: positions of tokens, or of characters if there is only a text, the end exclusive.
            `label` is text, a whole number, or a list of one of these. `id` is any JSON value. None and NaN count as
            absent, and so does "" except in `text`.
        inclusive_ends: Whether the end of a span is its last token or character.
        labelled: Whether to read the label.

    Raises:
        RowError: A field is missing, has the wrong form, or contradicts another.
    """
    fields = {name: value for name in FIELDS if not _absent(value := row.get(name)) and (value != "" or name == "text")}
    label = parse_label(fields["label"]) if labelled and "label" in fields else None
    identifier = id_of(fields)
    marked = [field for field in ("head", "tail", "mention") if field in fields]
    if marked:
        return _parse_marked(fields, marked, label, identifier, inclusive_ends)
    if "text" in fields:
        return Example.of_text(_text(fields["text"]), label, identifier)
    if "tokens" in fields:
        raise RowError("tokens without spans: a relation needs head and tail, an entity mention needs mention")
    raise RowError(_NO_INPUT)


def _absent(value: Any) -> bool:
    """Return whether a value is missing: None, or NaN, which pandas writes for it."""
    return value is None or (isinstance(value, float) and value != value)


def parse_label(value: Any) -> str | None:
    """Return a label as text: without blanks around it, in Unicode normal form C; None if nothing is left.

    Raises:
        RowError: It is neither text nor a whole number, or there are several.
    """
    if isinstance(value, (list, tuple)):
        if len(value) > 1:
            shown = ", ".join(f"{label!r:.40}" for label in value[:5])
            raise RowError(
                f"one label per row is learned, and this row has {len(value)}: {shown}; keep one of them, or learn a "
                "task for each kind of label"
            )
        return parse_label(value[0]) if value and value[0] is not None else None
    if isinstance(value, str):
        if value.lstrip().startswith(_LISTS) and isinstance(_json(value), list):
            raise RowError(
                f'label is a list in JSON: {value!r:.40}; entities need a text: {{"text": ..., "entities": [...]}}'
            )
        return unicodedata.normalize("NFC", value.strip()) or None
    if isinstance(value, Integral) and not isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float) and value.is_integer():  # as pandas writes whole numbers among missing ones
        return str(int(value))
    written = f"; write it as text: {json.dumps(value)!r}" if isinstance(value, bool | float) else ""
    raise RowError(f"label must be text or a whole number, not {_shape(value)}{written}")


def label_name(label: str | int) -> str:
    """Return the name of a label: text as it is, a whole number as text.

    Raises:
        RowError: It is neither.
    """
    return label if isinstance(label, str) else str(parse_label(label))


def to_example(item: Any, *, labelled: bool = True) -> Example:
    """Return an input given in Python as an example.

    Args:
        item: A text, an `Example`, or a mapping with the fields of a row (see `parse_row`).
        labelled: Whether to keep the label.

    Raises:
        RowError: It is something else, or the mapping is not a row.
    """
    if isinstance(item, str):
        return Example.of_text(item)
    if isinstance(item, Mapping):
        return parse_row(_by_field(item), labelled=labelled)
    if not isinstance(item, Example):
        raise RowError(f'is {_typed(item)}; give a text, a conpet.Example, or a mapping such as {{"text": "..."}}')
    label, identifier = (item.label if labelled else None), _identifier(item.id)
    label = label if label is None or isinstance(label, str) else parse_label(label)
    if label is item.label and identifier is item.id:
        return item
    return replace(item, label=label, id=identifier)


def _by_field(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a row given in Python by the names of fields, which count in any case, as in files.

    Raises:
        RowError: Its keys name no input.
    """
    plain = {name.strip().casefold(): name for name in row if isinstance(name, str)}
    fields = {field: row[field if field in row else plain[field]] for field in FIELDS if field in plain}
    if not fields.keys() & {"text", "tokens"} and len(fields) < len(row):
        keys = ", ".join(repr(key) for key in list(row)[:_SHOWN_KEYS])
        raise RowError(f"{_NO_INPUT}; keys: {keys}")
    return fields


def _typed(item: Any) -> str:
    return "None" if item is None else f"of type {type(item).__name__}"


def id_of(row: Mapping[str, Any]) -> Id | None:
    """Return the id of a row, or None; the other fields may be wrong."""
    value = row.get("id")
    return None if isinstance(value, str) and not value else _identifier(value)


def _identifier(value: Any) -> Id | None:
    """Return an id as a JSON value: what JSON does not know (a date) becomes text, NaN and infinity become None."""
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (list, dict)):
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            return str(value)
        return value
    return int(value) if isinstance(value, Integral) else str(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise RowError(f"text must be text, not {_shape(value)}")
    return value


def _parse_marked(
    fields: Mapping[str, Any], marked: Sequence[str], label: str | None, identifier: Id | None, inclusive_ends: bool
) -> Example:
    if "tokens" not in fields and "text" not in fields:
        raise RowError(f"missing tokens or text: {' and '.join(marked)} are positions in them")
    spans = {field: _span(field, fields[field], inclusive_ends) for field in marked}
    if "tokens" in fields:
        tokens = _tokens(fields["tokens"])
    else:
        text = _text(fields["text"])
        for field in marked:
            _check_characters(field, spans[field], text, fields[field])
        tokens, spans = tokens_at(text, spans)
    match marked:
        case ["mention"]:
            return Example.of_mention(tokens, spans["mention"], label, identifier)
        case ["head", "tail"]:
            return Example.of_relation(tokens, spans["head"], spans["tail"], label, identifier)
        case ["head"] | ["tail"]:
            raise RowError(f"missing {'tail' if marked == ['head'] else 'head'} span: a relation needs head and tail")
        case _:
            raise RowError(f"{' and '.join(marked)} cannot be combined: give head and tail, or mention")


def tokens_at(text: str, spans: Mapping[str, Span]) -> tuple[tuple[str, ...], dict[str, Span]]:
    """Divide a text into words such that spans of characters become spans of tokens.

    Words are what blanks separate; they are also divided where a span begins or ends.

    Args:
        text: The text.
        spans: Spans of characters by name, each with a character that is no blank.
    """
    bounds = sorted({bound for span in spans.values() for bound in (span.start, span.end)})
    pieces: list[Span] = []
    for word in _WORD.finditer(text):
        cuts = [word.start(), *(bound for bound in bounds if word.start() < bound < word.end()), word.end()]
        pieces += [Span(start, end) for start, end in pairwise(cuts)]
    found = {}
    for name, span in spans.items():
        inside = [at for at, piece in enumerate(pieces) if span.start <= piece.start and piece.end <= span.end]
        found[name] = Span(inside[0], inside[-1] + 1)
    return tuple(text[piece.start : piece.end] for piece in pieces), found


def lines_around(text: str, start: int, end: int) -> tuple[int, int]:
    """Return where the lines of a text that hold the characters from `start` to `end` (exclusive) begin and end."""
    last = text.find("\n", end)
    return text.rfind("\n", 0, start) + 1, len(text) if last < 0 else last


def _check_characters(field: str, span: Span, text: str, value: Any) -> None:
    where = f"{field} span {span.start}:{span.end}"
    if span.start >= span.end:
        raise RowError(f"{where} is empty: its end is exclusive (--inclusive-ends reads it as inclusive)")
    if span.start < 0 or span.end > len(text):
        raise RowError(f"{where} is outside the {len(text)} characters of the text")
    covered = text[span.start : span.end]
    if not covered.strip():
        raise RowError(f"{where} contains only blanks")
    stated = value.get("text") if isinstance(value, Mapping) else None
    if isinstance(stated, str) and stated.strip() and stated.strip() != covered.strip():
        hint = (
            "; its end is inclusive: --inclusive-ends"
            if text[span.start : span.end + 1].strip() == stated.strip()
            else ""
        )
        raise RowError(f"{where} is {covered!r:.60} in the text, not {stated!r:.60}{hint}")


def _tokens(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        listed = _json(value) if value.lstrip().startswith("[") else None
        if not _is_words(listed):
            return tuple(word for word in value.split(" ") if word)
        value = listed
    if not _is_words(value):
        raise RowError(f"tokens must be a list of words, not {_shape(value)}")
    return tuple(value)


def _is_words(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(word, str) for word in value)


def _span(field: str, value: Any, inclusive_ends: bool) -> Span:
    if isinstance(value, Span):
        return value
    form = f'{field} must be a span {{"start": s, "end": e}}, [s, e] or "s:e" of whole numbers'
    if isinstance(value, str):
        pair = _PAIR.fullmatch(value)
        value = [int(pair[1]), int(pair[2])] if pair else _json(value)
    if isinstance(value, Mapping):
        value = [value.get("start"), value.get("end")]
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise RowError(form)
    if not all(isinstance(bound, int) and not isinstance(bound, bool) for bound in value):
        raise RowError(form)
    return Span(value[0], value[1] + inclusive_ends)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _shape(value: Any) -> str:
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, (list, tuple)):
        return "a list with values that are not text" if value else "an empty list"
    return f"{value!r:.40}"
