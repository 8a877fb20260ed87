"""From one row of a file to an `Example`: the fields, the forms they may take, and what is wrong with them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from conpet.data.example import Example, Span
from conpet.errors import ConpetError

FIELDS = ("text", "tokens", "head", "tail", "mention", "label", "id")
"""The columns that are read; others are ignored."""
_PAIR = re.compile(r"\s*(-?\d{1,9})\s*:\s*(-?\d{1,9})\s*")


class RowError(ConpetError, ValueError):
    """A row cannot be understood; the message is the reason. The readers turn it into a `Problem`."""


def parse_row(row: Mapping[str, Any]) -> Example:
    """Build the example a row describes; whether that example is sound is for `check_example` to say.

    Args:
        row: Field names to values. `text`; or `tokens` (a list, or one string: a JSON list, else words joined by
            spaces) with `head` and `tail`, or with `mention`. A span is {"start": s, "end": e}, [s, e], "s:e" or JSON
            of these, its end exclusive. `label` and `id` are text or whole numbers. None, and "" but in `text`, count
            as absent. Where spans are given, `text` is ignored.

    Raises:
        RowError: A field is missing, has the wrong form, or contradicts another.
    """
    given = {name: value for name in FIELDS if (value := row.get(name)) is not None and (value != "" or name == "text")}
    label, name = _name("label", given.get("label")), _name("id", given.get("id"))
    marked = [field for field in ("head", "tail", "mention") if field in given]
    if marked:
        return _parse_marked(given, marked, label, name)
    if "text" in given:
        if not isinstance(given["text"], str):
            raise RowError(f"text must be text, not {_shape(given['text'])}")
        return Example.of_text(given["text"], label, name)
    if "tokens" in given:
        raise RowError("tokens without spans: a relation needs head and tail, a mention to be typed needs mention")
    raise RowError("missing text (or tokens with head and tail, or with mention)")


def _parse_marked(given: Mapping[str, Any], marked: Sequence[str], label: str | None, name: str | None) -> Example:
    if "tokens" not in given:
        raise RowError(f"missing tokens: {' and '.join(marked)} count words in them")
    tokens = _tokens(given["tokens"])
    spans = {field: _span(field, given[field]) for field in marked}
    match marked:
        case ["mention"]:
            return Example.of_mention(tokens, spans["mention"], label, name)
        case ["head", "tail"]:
            return Example.of_relation(tokens, spans["head"], spans["tail"], label, name)
        case ["head"] | ["tail"]:
            raise RowError(f"missing {'tail' if marked == ['head'] else 'head'} span: a relation needs head and tail")
        case _:
            raise RowError(f"{' and '.join(marked)} contradict each other: give head and tail, or mention")


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
        return "a list of other things than words" if value else "an empty list"
    return f"{value!r:.40}"
