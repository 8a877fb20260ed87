"""Templates: how an example becomes text that ends at, or holds, the slot the backbone is read at.

Entities are marked with one punctuation sign on both sides, set off by spaces: `@ head @`, `# tail #`, `* mention *`.
Each sign is one token in the usual vocabularies (byte-level BPE, WordPiece, SentencePiece), needs no new embedding,
and the spaces keep the entity's words on the tokens they have elsewhere (Zhou and Chen 2021, "An Improved Baseline for
Sentence-level Relation Extraction").
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from string import Formatter
from typing import NamedTuple

from conpet.data.example import Example, Kind, Span
from conpet.errors import ConfigError


class Style(StrEnum):
    """How a backbone is read: at its last token, or at a mask token."""

    CAUSAL = "causal"
    MASKED = "masked"


class PieceRole(StrEnum):
    """What may become of a piece when the whole is too long."""

    KEEP = "keep"
    SLOT = "slot"
    CUT_START = "cut-start"
    CUT_END = "cut-end"
    CUT_MIDDLE = "cut-middle"


class Piece(NamedTuple):
    """A stretch of text with one role; the slot's text is empty (the mask token stands there).

    `spans` names the marked spans whose words it is made of; where spans overlap, one stretch stands for all of them.
    """

    text: str
    role: PieceRole
    spans: tuple[str, ...] = ()


Rendered = tuple[Piece, ...]
"""Pieces to be tokenized one by one, without special tokens.

There are as few of them as roles and marked spans allow, so that little is tokenized apart. A space between two pieces
leads the second one (" word"), because BPE vocabularies attach the space to the word that follows. A causal rendering
has no slot piece: its last token is the slot.
"""


class _Part(NamedTuple):
    text: str
    is_field: bool


_DEFAULTS = {
    (Kind.TEXT, Style.CAUSAL): "{text}\nIntent:",
    (Kind.TEXT, Style.MASKED): "{text} Intent: {slot}",
    (Kind.RELATION, Style.CAUSAL): "{sentence} In this sentence, the relation of {tail} to {head} is",
    (Kind.RELATION, Style.MASKED): "{sentence} In this sentence, {tail} is the {slot} of {head}.",
    (Kind.TYPING, Style.CAUSAL): "{sentence} In this sentence, {mention} is a",
    (Kind.TYPING, Style.MASKED): "{sentence} In this sentence, {mention} is a {slot}.",
}
_FIELDS = {
    Kind.TEXT: ("text", "slot"),
    Kind.RELATION: ("sentence", "head", "tail", "slot"),
    Kind.TYPING: ("sentence", "mention", "slot"),
}
_MARKS = {"head": "@", "tail": "#", "mention": "*"}


def default_template(kind: Kind, style: Style) -> str:
    """Return the template used where a task brings none."""
    return _DEFAULTS[kind, style]


def check_template(template: str, kind: Kind) -> str | None:
    """Say what is wrong with a template whatever the style, or return None."""
    try:
        _parse(template, kind)
    except ConfigError as error:
        return str(error)
    return None


def render(example: Example, template: str | None, style: Style) -> Rendered:
    """Put an example into a template.

    Args:
        example: A sound example (see `conpet.data.checks.check_example`).
        template: Text with the fields of the example's kind: `{text}`; or `{sentence}` with `{head}` and `{tail}`, or
            with `{mention}`; and `{slot}`. None stands for the default. One template serves both styles if it ends
            with `{slot}` or `{slot}.`, or has none: the causal style leaves the slot out and reads the token before
            it, the masked style puts a missing one at the end.
        style: How the backbone is read.

    Raises:
        ConfigError: The template is malformed or does not fit the kind or the style.
    """
    parts = _compile(template if template is not None else default_template(example.kind, style), example.kind, style)
    return tuple(_tidy(piece for part in parts for piece in _fill(part, example)))


def _parse(template: str, kind: Kind) -> tuple[_Part, ...]:
    where = f"template {template!r}"
    have = ", ".join(f"{{{name}}}" for name in _FIELDS[kind])
    parts = []
    try:
        for literal, field, spec, conversion in Formatter().parse(template):
            if literal:
                parts.append(_Part(literal, is_field=False))
            if field is None:
                continue
            if field not in _FIELDS[kind] or spec or conversion:
                raise ConfigError(f"{where}: unknown field in a {kind} template; have: {have}")
            parts.append(_Part(field, is_field=True))
    except ValueError as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{where}: {error}; write a brace that is text twice") from None
    body = _FIELDS[kind][0]
    if parts.count(_Part(body, is_field=True)) != 1:
        raise ConfigError(f"{where}: needs {{{body}}} exactly once")
    if parts.count(_Part("slot", is_field=True)) > 1:
        raise ConfigError(f"{where}: has {{slot}} more than once")
    return tuple(parts)


@lru_cache(maxsize=256)
def _compile(template: str, kind: Kind, style: Style) -> tuple[_Part, ...]:
    parts = _parse(template, kind)
    slot = _Part("slot", is_field=True)
    if style is Style.MASKED:
        return parts if slot in parts else (*parts, _Part(" ", is_field=False), slot)
    if slot not in parts:
        return parts
    before, after = parts[: parts.index(slot)], parts[parts.index(slot) + 1 :]
    if any(part.is_field for part in after) or "".join(part.text for part in after).strip() not in ("", "."):
        raise ConfigError(f"template {template!r}: a causal backbone sees only its left, so {{slot}} must be the end")
    # The slot is the token before it: a blank left at the end would become that token.
    if before and not before[-1].is_field:
        before = (*before[:-1], _Part(before[-1].text.rstrip(), is_field=False))
    return before


def _fill(part: _Part, example: Example) -> Iterator[Piece]:
    if not part.is_field:
        yield Piece(part.text, PieceRole.KEEP)
    elif part.text == "slot":
        yield Piece("", PieceRole.SLOT)
    elif part.text == "text":
        yield Piece(example.text.strip(), PieceRole.CUT_END)
    elif part.text == "sentence":
        yield from _sentence(example)
    else:
        span: Span = getattr(example, part.text)
        yield Piece(_join(example.tokens[span.start : span.end]), PieceRole.KEEP)


def _sentence(example: Example) -> Iterator[Piece]:
    spans = {name: span for name in _MARKS if (span := getattr(example, name)) is not None}
    words = list(example.tokens)
    stretches = []
    at, role = 0, PieceRole.CUT_START
    for region in _regions(spans.values()):
        stretches.append(Piece(_join(words[at : region.start]), role))
        inside = {name: span for name, span in spans.items() if region.start <= span.start and span.end <= region.end}
        stretches += _marked(words, region, inside)
        at, role = region.end, PieceRole.CUT_MIDDLE
    stretches.append(Piece(_join(words[at:]), PieceRole.CUT_END))
    space = ""
    for stretch in stretches:
        if stretch.text:
            yield stretch._replace(text=space + stretch.text)
            space = " "


def _marked(words: Sequence[str], region: Span, spans: Mapping[str, Span]) -> Iterator[Piece]:
    """Set marks around the spans of a region: one span, or several that overlap."""
    if len(spans) == 1:
        (name,) = spans
        yield Piece(_MARKS[name], PieceRole.KEEP)
        yield Piece(_join(words[region.start : region.end]), PieceRole.KEEP, (name,))
        yield Piece(_MARKS[name], PieceRole.KEEP)
        return
    marked = list(words)
    # Inner spans first, so that nested marks close in the order they opened.
    for name, span in sorted(spans.items(), key=lambda item: item[1].end - item[1].start):
        marked[span.start] = f"{_MARKS[name]} {marked[span.start]}"
        marked[span.end - 1] = f"{marked[span.end - 1]} {_MARKS[name]}"
    yield Piece(_join(marked[region.start : region.end]), PieceRole.KEEP, tuple(spans))


def _regions(spans: Iterable[Span]) -> list[Span]:
    """Join overlapping spans; what comes back is in order and apart."""
    regions: list[Span] = []
    for span in sorted(spans):
        if regions and span.start < regions[-1].end:
            regions[-1] = Span(regions[-1].start, max(regions[-1].end, span.end))
        else:
            regions.append(span)
    return regions


def _join(words: Sequence[str]) -> str:
    return " ".join(word for word in words if word.strip())


def _tidy(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Move spaces at a piece's end to the start of the next, drop empty pieces, join neighbours of one role."""
    held: Piece | None = None
    space = ""
    for piece in pieces:
        if piece.role is PieceRole.SLOT:
            # Mask tokens take in the space before them, or their vocabulary has none.
            yield from [held] if held else []
            yield piece
            held, space = None, ""
            continue
        text = space + piece.text
        body = text.rstrip(" ")
        space = text[len(body) :]
        if not body:
            continue
        if held and (held.role, held.spans) == (piece.role, piece.spans):
            held = held._replace(text=held.text + body)
        else:
            yield from [held] if held else []
            held = piece._replace(text=body)
    yield from [held] if held else []
