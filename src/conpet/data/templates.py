"""Templates: turn an example into text with a slot, the position at which the backbone is read.

Entities are marked with a punctuation sign on both sides, separated by spaces: `@ head @`, `# tail #`, `* mention *`.
Each sign is one token in the usual vocabularies (byte-level BPE, WordPiece, SentencePiece), needs no new embedding,
and the spaces keep the usual tokens of the entity's words (Zhou and Chen 2021, "An Improved Baseline for
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
    """Where the backbone is read: at the last token (causal), or at a mask token or the first token (masked)."""

    CAUSAL = "causal"
    MASKED = "masked"


class PieceRole(StrEnum):
    """How a piece may be cut if the input is too long."""

    KEEP = "keep"
    SLOT = "slot"
    CUT_START = "cut-start"
    CUT_END = "cut-end"
    CUT_MIDDLE = "cut-middle"


class Piece(NamedTuple):
    """A part of the text with one role; the text of the slot is empty (the mask token replaces it).

    `spans` names the marked spans that the piece contains; overlapping spans share one piece.
    """

    text: str
    role: PieceRole
    spans: tuple[str, ...] = ()


Rendered = tuple[Piece, ...]
"""Pieces to tokenize one by one, without special tokens.

Neighbouring pieces are joined where roles and marked spans allow, so that few words are tokenized separately. A space
between two pieces starts the second one (" word"), because BPE vocabularies attach the space to the following word.
Without a slot piece, the slot is the last token (causal) or the first (masked).
"""


class Part(NamedTuple):
    """A text, or the name of a field, in a template."""

    text: str
    is_field: bool


_DEFAULTS = {
    (Kind.TEXT, Style.CAUSAL): "{text}\nIntent:",
    (Kind.TEXT, Style.MASKED): "{text}",
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
    """Return the template for tasks without their own."""
    return _DEFAULTS[kind, style]


def check_template(template: str, kind: Kind) -> str | None:
    """Return what is wrong with a template in any style, or None."""
    try:
        _parse(template, kind)
    except ConfigError as error:
        return str(error)
    return None


def render(example: Example, template: str | None, style: Style) -> Rendered:
    """Put an example into a template.

    Args:
        example: An example without errors (see `conpet.data.checks.check_example`).
        template: Text with the fields of the example's kind: `{text}`; or `{sentence}` with `{head}` and `{tail}`, or
            with `{mention}`; and `{slot}`. None means the default. A template works in both styles if it ends
            with `{slot}` or `{slot}.`, or has no slot: the causal style omits the slot and reads the token before it,
            the masked style reads the first token (`[CLS]`) if there is no slot.
        style: How the backbone is read.

    Raises:
        ConfigError: The template is malformed or does not fit the kind or the style.
    """
    parts = _compile(template if template is not None else default_template(example.kind, style), example.kind, style)
    return tuple(_tidy(piece for part in parts for piece in _fill(part, example)))


def template_parts(template: str, kind: Kind, style: Style) -> tuple[Part, ...]:
    """Return the texts and fields of a template in order; in the causal style without the slot. Errors as in `render`.

    Args:
        template: The template.
        kind: Kind of the examples.
        style: How the backbone is read.
    """
    return _compile(template, kind, style)


def _parse(template: str, kind: Kind) -> tuple[Part, ...]:
    where = f"template {template!r}"
    fields = ", ".join(f"{{{name}}}" for name in _FIELDS[kind])
    parts = []
    try:
        for literal, field, spec, conversion in Formatter().parse(template):
            if literal:
                parts.append(Part(literal, is_field=False))
            if field is None:
                continue
            if field not in _FIELDS[kind] or spec or conversion:
                raise ConfigError(f"{where}: unknown field in a {kind} template; available: {fields}")
            parts.append(Part(field, is_field=True))
    except ValueError as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{where}: {error}; double a brace that is text ({{{{ or }}}})") from None
    body = _FIELDS[kind][0]
    if parts.count(Part(body, is_field=True)) != 1:
        raise ConfigError(f"{where}: needs {{{body}}} exactly once")
    if parts.count(Part("slot", is_field=True)) > 1:
        raise ConfigError(f"{where}: has {{slot}} more than once; keep one")
    return tuple(parts)


@lru_cache(maxsize=256)
def _compile(template: str, kind: Kind, style: Style) -> tuple[Part, ...]:
    parts = _parse(template, kind)
    slot = Part("slot", is_field=True)
    if style is Style.MASKED or slot not in parts:
        return parts
    before, after = parts[: parts.index(slot)], parts[parts.index(slot) + 1 :]
    if any(part.is_field for part in after) or "".join(part.text for part in after).strip() not in ("", "."):
        raise ConfigError(
            f"template {template!r}: a causal backbone sees only the text to the left, so {{slot}} must be at the end; "
            "move it, or leave it out"
        )
    # The causal slot is the last token; a blank at the end would become that token.
    if before and not before[-1].is_field:
        before = (*before[:-1], Part(before[-1].text.rstrip(), is_field=False))
    return before


def _fill(part: Part, example: Example) -> Iterator[Piece]:
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
    """Mark the spans of a region: a single span, or several overlapping ones."""
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
    """Join overlapping spans; the result is sorted and disjoint."""
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
    """Move trailing spaces to the next piece, drop empty pieces, and join neighbours with the same role."""
    held: Piece | None = None
    space = ""
    for piece in pieces:
        if piece.role is PieceRole.SLOT:
            # The mask token absorbs the space before it, or its vocabulary has no spaces.
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
