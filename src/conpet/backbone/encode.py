"""From examples to token ids: tokenize the template's pieces, truncate, add the tokenizer's special tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from conpet.backbone.states import Encoded
from conpet.data import Example, Need, Style, TokenPiece, fit, render
from conpet.data.templates import PieceRole, Rendered
from conpet.errors import BackboneError, DataError

_SAMPLE = "a"
_QUOTED_CHARACTERS = 40
"""Number of characters of an example that messages quote."""


class Encoder:
    """Turns examples into token ids for a backbone.

    The text of an example is always plain text: a user's "[MASK]" or "</s>" never becomes a special token.

    Args:
        tokenizer: A Hugging Face tokenizer.
        style: Whether the slot is the last token (causal) or a mask token.

    Raises:
        BackboneError: The tokenizer changes a text when it adds special tokens, or a masked model has no mask token.
    """

    def __init__(self, tokenizer: Any, style: Style) -> None:
        self._tokenizer = tokenizer
        self.style = style
        self._begin, self._end = _special_tokens(tokenizer)
        self._pad = int(tokenizer.pad_token_id or 0)
        if style is Style.MASKED and tokenizer.mask_token_id is None:
            raise BackboneError(
                "the model is bidirectional, but its tokenizer has no mask token for the slot: use another backbone"
            )
        if style is Style.CAUSAL:
            self._end = ()  # the slot is the last token: it must belong to the text, not be an end mark
            if not self._begin and tokenizer.bos_token_id is not None:
                # Some causal tokenizers add nothing. The first token is an attention sink, so it should not be a word.
                self._begin = (tokenizer.bos_token_id,)

    @property
    def pad(self) -> int:
        """Padding id. Padding is masked, so any id works."""
        return self._pad

    def encode(self, examples: Sequence[Example], template: str | None, max_tokens: int) -> list[Encoded]:
        """Return the token ids of each example, at most `max_tokens`, and its slot; the tokenizer is called once.

        Raises:
            DataError: The parts that must not be truncated (marked spans and cue) exceed `max_tokens`.
            ConfigError: The template does not fit an example or the backbone.
        """
        rendered = [render(example, template, self.style) for example in examples]
        ids = self._ids(rendered)
        return [
            self._fitted(example, pieces, ids, max_tokens) for example, pieces in zip(examples, rendered, strict=True)
        ]

    def unfit(self, examples: Sequence[Example], template: str | None, max_tokens: int) -> dict[int, str]:
        """Return why examples cannot be encoded, by index; arguments and other errors as in `encode`."""
        needs = enumerate(self.needs(examples, template))
        return {index: problem for index, need in needs if (problem := need.problem(max_tokens))}

    def needs(self, examples: Sequence[Example], template: str | None) -> list[Need]:
        """Return the tokens each example needs; arguments and errors as in `encode`, whatever the length."""
        rendered = [render(example, template, self.style) for example in examples]
        ids = self._ids(rendered)
        return [Need.of(self._pieces(pieces, ids)) for pieces in rendered]

    def _ids(self, rendered: Sequence[Rendered]) -> dict[str, Sequence[int]]:
        """Return the token ids of each text; the tokenizer is called once."""
        texts = list(dict.fromkeys(piece.text for pieces in rendered for piece in pieces))
        return dict(zip(texts, _tokenized(self._tokenizer, texts), strict=True)) if texts else {}

    def _pieces(self, rendered: Rendered, ids: Mapping[str, Sequence[int]]) -> list[TokenPiece]:
        pieces = self._before(rendered)
        for piece in rendered:
            if piece.role is PieceRole.SLOT:
                pieces.append(TokenPiece((self._tokenizer.mask_token_id,), PieceRole.SLOT))
            else:
                pieces.append(TokenPiece(ids[piece.text], piece.role, piece.spans))
        return [*pieces, TokenPiece(self._end, PieceRole.KEEP)]

    def _fitted(
        self, example: Example, rendered: Rendered, ids: Mapping[str, Sequence[int]], max_tokens: int
    ) -> Encoded:
        pieces = self._pieces(rendered, ids)
        try:
            fitted = fit(pieces, max_tokens)
        except DataError as error:
            raise DataError(f"{_quoted(example)}: {error.summary}") from None
        spans = tuple(fitted.spans[name] for name in sorted(fitted.spans))  # head before tail
        cut = sum(len(piece.ids) for piece in pieces) - len(fitted.ids)
        return Encoded(tuple(fitted.ids), fitted.slot, spans, cut=cut)

    def _before(self, rendered: Rendered) -> list[TokenPiece]:
        """Return the pieces before the text; the first token is the slot of a masked model if the template has none."""
        if self.style is Style.CAUSAL or any(piece.role is PieceRole.SLOT for piece in rendered):
            return [TokenPiece(self._begin, PieceRole.KEEP)]
        first = self._begin[:1] or (self._tokenizer.mask_token_id,)
        return [TokenPiece(first, PieceRole.SLOT), TokenPiece(self._begin[1:], PieceRole.KEEP)]


def _tokenized(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=False, split_special_tokens=True, verbose=False)[
        "input_ids"
    ]
    return ids


def _quoted(example: Example) -> str:
    text = example.content
    return repr(text if len(text) <= _QUOTED_CHARACTERS else f"{text[:_QUOTED_CHARACTERS]}...")


def _special_tokens(tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the ids that a tokenizer adds before and after a text."""
    (inner,) = _tokenized(tokenizer, [_SAMPLE])
    whole = tokenizer(_SAMPLE)["input_ids"]
    for start in range(len(whole) - len(inner) + 1):
        if whole[start : start + len(inner)] == inner:
            return tuple(whole[:start]), tuple(whole[start + len(inner) :])
    raise BackboneError(
        f"the tokenizer ({type(tokenizer).__name__}) changes the text when it adds special tokens: use another backbone"
    )
