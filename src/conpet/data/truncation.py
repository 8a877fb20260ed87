"""Truncate a tokenized example without cutting the marked spans or the template text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

from conpet.data.templates import PieceRole
from conpet.errors import DataError, plural


class TokenPiece(NamedTuple):
    """The token ids of one piece; special tokens and the mask token are pieces too (`KEEP`, `SLOT`)."""

    ids: Sequence[int]
    role: PieceRole
    spans: tuple[str, ...] = ()


class Fitted(NamedTuple):
    """Token ids, the position at which the backbone is read, and the marked spans (end exclusive)."""

    ids: list[int]
    slot: int
    spans: dict[str, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class CutInputs:
    """How many inputs were cut because they are longer than `backbone.max_tokens`.

    Attributes:
        total: Number of inputs.
        cut: Number of those that were cut.
        most: Most tokens cut off one input.
    """

    total: int = 0
    cut: int = 0
    most: int = 0

    @classmethod
    def of(cls, cut_tokens: Iterable[int]) -> Self:
        """Count inputs, given the number of tokens cut off each."""
        tokens = list(cut_tokens)
        return cls(len(tokens), sum(number > 0 for number in tokens), max(tokens, default=0))

    def plus(self, other: CutInputs) -> CutInputs:
        """Return the counts of both."""
        return CutInputs(self.total + other.total, self.cut + other.cut, max(self.most, other.most))

    def note(self, what: str, max_tokens: int, longest: int | None) -> str | None:
        """Return a sentence for the user, or None if nothing was cut.

        Args:
            what: What an input is: "input", "training example", ...
            max_tokens: The setting of the workspace.
            longest: Most tokens that the backbone can read; None for no limit.
        """
        if not self.cut:
            return None
        needed = max_tokens + self.most
        more = (
            f"a workspace made with `conpet init --set backbone.max_tokens={needed}` reads them whole"
            if longest is None or needed <= longest
            else f"the backbone reads at most {longest:,} tokens (`conpet init --set backbone.max_tokens={longest}`)"
            if max_tokens < longest
            else "the backbone reads no more: shorten them, or use another backbone"
        )
        verb = "was" if self.cut == 1 else "were"
        return (
            f"{self.cut:,} of {plural(self.total, what)} {verb} cut to {max_tokens:,} tokens "
            f"(the longest has {needed:,}); {more}"
        )


class Need(NamedTuple):
    """The tokens an input needs.

    Attributes:
        tokens: Tokens of the whole input, special tokens included.
        fixed: Tokens that must not be cut: marked spans, template, special tokens.
        empty: Names of marked spans without tokens.
    """

    tokens: int
    fixed: int
    empty: tuple[str, ...] = ()

    @classmethod
    def of(cls, pieces: Sequence[TokenPiece]) -> Need:
        """Count the tokens of pieces, as in `fit`."""
        fixed = sum(len(piece.ids) for piece in pieces if piece.role in (PieceRole.KEEP, PieceRole.SLOT))
        empty = tuple(name for piece in pieces if not piece.ids for name in piece.spans)
        return cls(sum(len(piece.ids) for piece in pieces), fixed, empty)

    def problem(self, limit: int) -> str | None:
        """Return why the input cannot be encoded within `limit` tokens, or None."""
        if self.fixed > limit:
            return (
                f"the marked spans and the template need {self.fixed} tokens, more than the limit of {limit}: "
                "raise backbone.max_tokens, or shorten the template or the spans"
            )
        if self.empty:
            return f"the {' and '.join(self.empty)} span has no tokens: the tokenizer returned none for it"
        if not self.tokens:
            return "an input has no tokens: the tokenizer returned none for it; remove it"
        return None


def fit(pieces: Sequence[TokenPiece], limit: int) -> Fitted:
    """Join pieces and truncate them to at most `limit` tokens.

    Text left and right of the marked spans (or the plain text) is cut first, the longer side before the shorter, to
    keep the context balanced. Text between marked spans is cut only when nothing else is left.

    Args:
        pieces: In order, with at most one slot of exactly one token. Without a slot, the last token is the slot.
        limit: Most tokens of the result, special tokens included.

    Raises:
        DataError: The pieces that must not be cut are longer than `limit`, or a marked span or the whole has no tokens.
    """
    need = Need.of(pieces)
    if reason := need.problem(limit):
        raise DataError(reason)
    lengths = [len(piece.ids) for piece in pieces]
    if need.tokens > limit:
        _cut_text(pieces, lengths, need.fixed, limit)
    ids: list[int] = []
    slot = None
    spans: dict[str, tuple[int, int]] = {}
    for piece, length in zip(pieces, lengths, strict=True):
        if piece.role is PieceRole.SLOT:
            slot = len(ids)
        for name in piece.spans:
            spans[name] = (len(ids), len(ids) + length)
        ids += _cut(piece, length)
    if not ids:
        raise DataError(
            "an input has no tokens: the tokenizer returned none for it, or the limit is 0; remove the input"
        )
    return Fitted(ids, len(ids) - 1 if slot is None else slot, spans)


def _cut_text(pieces: Sequence[TokenPiece], lengths: list[int], fixed: int, limit: int) -> None:
    """Lower the lengths of the pieces of text in place until all pieces have `limit` tokens."""
    middle = [at for at, piece in enumerate(pieces) if piece.role is PieceRole.CUT_MIDDLE]
    outer = [at for at, piece in enumerate(pieces) if piece.role in (PieceRole.CUT_START, PieceRole.CUT_END)]
    _shorten(lengths, outer, max(0, limit - fixed - sum(lengths[at] for at in middle)))
    _shorten(lengths, middle, limit - fixed - sum(lengths[at] for at in outer))


def _shorten(lengths: list[int], which: Sequence[int], room: int) -> None:
    """Lower the chosen lengths in place until their sum is at most `room`, the longest first."""
    left = len(which)
    for at in sorted(which, key=lambda at: lengths[at]):
        lengths[at] = min(lengths[at], room // left)
        room -= lengths[at]
        left -= 1


def _cut(piece: TokenPiece, length: int) -> Sequence[int]:
    surplus = len(piece.ids) - length
    if not surplus:
        return piece.ids
    if piece.role is PieceRole.CUT_START:
        return piece.ids[surplus:]
    if piece.role is PieceRole.CUT_END:
        return piece.ids[:length]
    first = (length + 1) // 2
    return [*piece.ids[:first], *piece.ids[first + surplus :]]
