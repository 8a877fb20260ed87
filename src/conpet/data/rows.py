"""Parse a row of a file into an `Example`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from conpet.data.example import Example, Span
from conpet.errors import ConpetError

FIELDS = ("text", "tokens", "head", "tail", "mention", "label", "id")
"""The columns read; all others are ignored."""
_PAIR = re.compile(r"\s*(-?\d{1,9})\s*:\s*(-?\d{1,9})\s*")


class RowError(ConpetError, ValueError):
    """A row cannot be parsed, for the reason in the message. The readers turn it into a `Problem`."""


def parse_row(row: Mapping[str, Any]) -> Example:
    """Build an example from a row. `check_example` checks the result.

    Args:
        row: Field names to values. `text`; or `tokens` (a list, or one string: a JSON list, else words joined by
            spaces) with `head` and `tail`, or with `mention`. A span is {"start": s, "end": e}, [s, e], "s:e" or JSON
            of these, its end exclusive. `label` and `id` are text or whole numbers. None counts as
            absent, and so does "" except in `text`. With spans, `text` is ignored.

    Raises:
        RowError: A field is missing, has the wrong form, or contradicts another.
    """
    fields = {
        name: value for name in FIELDS if (value := row.get(name)) is not None and (value != "" or name == "text")
    }
    label, name = _name("label", fields.get("label")), _name("id", fields.get("id"))
    marked = [field for field in ("head", "tail", "mention") if field in fields]
    if marked:
        return _parse_marked(fields, marked, label, name)
    if "text" in fields:
        if not isinstance(fields["text"], str):
            raise RowError(f"text must be text, not {_shape(fields['text'])}")
        return Example.of_text(fields["text"], label, name)
    if "tokens" in fields:
        raise RowError("tokens without spans: a relation needs head and tail, an entity mention needs mention")
    raise RowError("missing text (or tokens with head and tail, or with mention)")


def _parse_marked(fields: Mapping[str, Any], marked: Sequence[str], label: str | None, name: str | None) -> Example:
    if "tokens" not in fields:
        raise RowError(f"missing tokens: {' and '.join(marked)} refer to them by position")
    tokens = _tokens(fields["tokens"])
    spans = {field: _span(field, fields[field]) for field in marked}
    match marked:
        case ["mention"]:
            return Example.of_mention(tokens, spans["mention"], label, name)
        case ["head", "tail"]:
            return Example.of_relation(tokens, spans["head"], spans["tail"], label, name)
        case ["head"] | ["tail"]:
            raise RowError(f"missing {'tail' if marked == ['head'] else 'head'} span: a relation needs head and tail")
        case _:
            raise RowError(f"{' and '.join(marked)} cannot be combined: give head and tail, or mention")


def _name(field: str, value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise RowError(f"{field} must be text, not {_shape(value)}")


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


def _span(field: str, value: Any) -> Span:
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
    return Span(value[0], value[1])


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
