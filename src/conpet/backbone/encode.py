"""Examples to token ids: the template's pieces, tokenized, cut to length, with the tokenizer's own special tokens."""

from __future__ import annotations

from typing import Any

from conpet.backbone.states import Encoded
from conpet.data import Example, Style, TokenPiece, fit, render
from conpet.data.templates import PieceRole

_SAMPLE = "a"


class Encoder:
    """Turns examples into token ids for one backbone.

    Args:
        tokenizer: A Hugging Face tokenizer.
        style: How the backbone is read.
    """

    def __init__(self, tokenizer: Any, style: Style) -> None:
        self._tokenizer = tokenizer
        self.style = style
        self._begin, self._end = _special_tokens(tokenizer)
        if style is Style.CAUSAL:
            self._end = ()  # the slot is the last token, and a causal model would read the end mark there
            if not self._begin and tokenizer.bos_token_id is not None:
                # Some causal tokenizers add nothing. The first token is an attention sink: let it not be a word.
                self._begin = (tokenizer.bos_token_id,)

    @property
    def pad(self) -> int:
        """Id that fills up short rows; it is masked, so any id would do."""
        return int(self._tokenizer.pad_token_id or 0)

    def encode(self, example: Example, template: str | None, max_tokens: int) -> Encoded:
        """Return an example's token ids, at most `max_tokens`, and its slot.

        Raises:
            DataError: What must not be cut (marked spans and cue) alone is longer than that.
            ConfigError: The template does not fit the example or the backbone.
        """
        pieces = [TokenPiece(self._begin, PieceRole.KEEP)]
        for piece in render(example, template, self.style):
            if piece.role is PieceRole.SLOT:
                pieces.append(TokenPiece((self._tokenizer.mask_token_id,), PieceRole.SLOT))
            else:
                ids = self._tokenizer(piece.text, add_special_tokens=False)["input_ids"]
                pieces.append(TokenPiece(ids, piece.role))
        pieces.append(TokenPiece(self._end, PieceRole.KEEP))
        fitted = fit(pieces, max_tokens)
        return Encoded(tuple(fitted.ids), fitted.slot)


def _special_tokens(tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the ids a tokenizer puts before and behind a text."""
    inner = tokenizer(_SAMPLE, add_special_tokens=False)["input_ids"]
    whole = tokenizer(_SAMPLE)["input_ids"]
    for start in range(len(whole) - len(inner) + 1):
        if whole[start : start + len(inner)] == inner:
            return tuple(whole[:start]), tuple(whole[start + len(inner) :])
    return (), ()
