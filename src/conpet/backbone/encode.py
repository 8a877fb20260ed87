"""Examples to token ids: the template's pieces, tokenized, cut to length, with the tokenizer's own special tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from conpet.backbone.states import Encoded
from conpet.data import Example, Style, TokenPiece, fit, render
from conpet.data.templates import PieceRole, Rendered
from conpet.errors import BackboneError, DataError

_SAMPLE = "a"
_SHOWN = 40
"""Characters of an example that a message shows."""


class Encoder:
    """Turns examples into token ids for one backbone.

    What an example says is always text: a user's "[MASK]" or "</s>" never becomes the special token of that name.

    Args:
        tokenizer: A Hugging Face tokenizer.
        style: How the backbone is read.

    Raises:
        BackboneError: The tokenizer does not set its special tokens around a text, or has no mask token to read at.
    """

    def __init__(self, tokenizer: Any, style: Style) -> None:
        self._tokenizer = tokenizer
        self.style = style
        self._begin, self._end = _special_tokens(tokenizer)
        self._pad = int(tokenizer.pad_token_id or 0)
        if style is Style.MASKED and tokenizer.mask_token_id is None:
            raise BackboneError("the model reads both ways but its tokenizer has no mask token: it has no slot to read")
        if style is Style.CAUSAL:
            self._end = ()  # the slot is the last token, and a causal model would read the end mark there
            if not self._begin and tokenizer.bos_token_id is not None:
                # Some causal tokenizers add nothing. The first token is an attention sink: let it not be a word.
                self._begin = (tokenizer.bos_token_id,)

    @property
    def pad(self) -> int:
        """Id that fills up short rows; it is masked, so any id would do."""
        return self._pad

    def encode(self, examples: Sequence[Example], template: str | None, max_tokens: int) -> list[Encoded]:
        """Return each example's token ids, at most `max_tokens`, and its slot; the tokenizer is asked once for all.

        Raises:
            DataError: What must not be cut (marked spans and cue) alone is longer than that.
            ConfigError: The template does not fit an example or the backbone.
        """
        rendered = [render(example, template, self.style) for example in examples]
        texts = list(dict.fromkeys(piece.text for pieces in rendered for piece in pieces))
        ids = dict(zip(texts, _tokenized(self._tokenizer, texts), strict=True)) if texts else {}
        return [
            self._fitted(example, pieces, ids, max_tokens) for example, pieces in zip(examples, rendered, strict=True)
        ]

    def _fitted(
        self, example: Example, rendered: Rendered, ids: Mapping[str, Sequence[int]], max_tokens: int
    ) -> Encoded:
        pieces = [TokenPiece(self._begin, PieceRole.KEEP)]
        for piece in rendered:
            if piece.role is PieceRole.SLOT:
                pieces.append(TokenPiece((self._tokenizer.mask_token_id,), PieceRole.SLOT))
            else:
                pieces.append(TokenPiece(ids[piece.text], piece.role, piece.spans))
        pieces.append(TokenPiece(self._end, PieceRole.KEEP))
        try:
            fitted = fit(pieces, max_tokens)
        except DataError as error:
            raise DataError(f"{_beginning(example)}: {error.summary}") from None
        spans = tuple(fitted.spans[name] for name in sorted(fitted.spans))  # head before tail
        return Encoded(tuple(fitted.ids), fitted.slot, spans)


def _tokenized(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=False, split_special_tokens=True, verbose=False)[
        "input_ids"
    ]
    return ids


def _beginning(example: Example) -> str:
    text = example.text or " ".join(example.tokens)
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")


def _special_tokens(tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the ids a tokenizer puts before and behind a text."""
    (inner,) = _tokenized(tokenizer, [_SAMPLE])
    whole = tokenizer(_SAMPLE)["input_ids"]
    for start in range(len(whole) - len(inner) + 1):
        if whole[start : start + len(inner)] == inner:
            return tuple(whole[:start]), tuple(whole[start + len(inner) :])
    raise BackboneError(
        f"the tokenizer ({type(tokenizer).__name__}) changes a text when it adds special tokens: it cannot be used"
    )
