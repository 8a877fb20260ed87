"""Examples to token ids: special tokens, the slot, user text that looks like special tokens, cutting to length."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tokenizers.processors import TemplateProcessing

from conpet.backbone.encode import Encoder
from conpet.data import Example, Span, Style
from conpet.errors import BackboneError, DataError
from tests.helpers.backbones import byte_tokenizer, mask_tokenizer

JAPANESE = "東京の天気は?"


def causal(tokenizer: Any = None) -> tuple[Encoder, Any]:
    tokenizer = tokenizer or byte_tokenizer()
    return Encoder(tokenizer, Style.CAUSAL), tokenizer


def masked() -> tuple[Encoder, Any]:
    tokenizer = mask_tokenizer()
    return Encoder(tokenizer, Style.MASKED), tokenizer


def test_a_masked_model_reads_its_mask_between_the_tokenizers_own_marks() -> None:
    encoder, tokenizer = masked()
    found = encoder.encode([Example.of_text("hi")], "{text} {slot}.", 64)[0]
    assert tokenizer.convert_ids_to_tokens(found.ids) == ["[CLS]", "h", "##i", "[MASK]", ".", "[SEP]"]
    assert found.slot == 3
    assert encoder.pad == tokenizer.pad_token_id


def test_a_causal_model_reads_its_last_token_and_no_end_mark_follows() -> None:
    encoder, tokenizer = causal()
    found = encoder.encode([Example.of_text("hi")], "{text}\nIntent:", 64)[0]
    assert tokenizer.decode(found.ids) == "<s>hi\nIntent:"
    assert found.slot == len(found.ids) - 1


def test_a_causal_tokenizers_own_first_token_is_kept_and_not_doubled() -> None:
    tokenizer = byte_tokenizer()
    around = [("<s>", tokenizer.bos_token_id), ("</s>", tokenizer.eos_token_id)]
    tokenizer._tokenizer.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=around)
    encoder, _ = causal(tokenizer)
    assert tokenizer.decode(encoder.encode([Example.of_text("hi")], "{text}:", 64)[0].ids) == "<s>hi:"


def test_a_causal_tokenizer_without_a_first_token_gets_none() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.bos_token = None
    encoder, _ = causal(tokenizer)
    assert tokenizer.decode(encoder.encode([Example.of_text("hi")], "{text}:", 64)[0].ids) == "hi:"


@pytest.mark.parametrize("text", ["[MASK]", "[SEP] hi [CLS]", "x[PAD]", "[UNK]"])
def test_a_masked_models_special_tokens_in_a_users_text_are_only_text(text: str) -> None:
    encoder, tokenizer = masked()
    found = encoder.encode([Example.of_text(text)], "{text} {slot}.", 64)[0]
    tokens = tokenizer.convert_ids_to_tokens(found.ids)
    assert [token for token in tokens if token in tokenizer.all_special_tokens] == ["[CLS]", "[MASK]", "[SEP]"]
    spelled = "".join(token.removeprefix("##") for token in tokens[1:-3])
    assert spelled == text.lower().replace(" ", "")
    assert found.slot == len(tokens) - 3


@pytest.mark.parametrize("text", ["</s>", "<s>a</s> b <pad>"])
def test_a_causal_models_special_tokens_in_a_users_text_are_only_text(text: str) -> None:
    encoder, tokenizer = causal()
    found = encoder.encode([Example.of_text(text)], "{text}:", 64)[0]
    assert [token for token in found.ids if token in tokenizer.all_special_ids] == [tokenizer.bos_token_id]
    assert tokenizer.decode(found.ids) == f"<s>{text}:"


def test_special_tokens_in_marked_spans_are_only_text_too() -> None:
    encoder, tokenizer = masked()
    example = Example.of_relation(["[MASK]", "of", "[SEP]"], Span(0, 1), Span(2, 3))
    tokens = tokenizer.convert_ids_to_tokens(encoder.encode([example], None, 128)[0].ids)
    assert [token for token in tokens if token in tokenizer.all_special_tokens] == ["[CLS]", "[MASK]", "[SEP]"]


def test_without_a_slot_a_masked_model_is_read_at_its_first_token() -> None:
    encoder, tokenizer = masked()
    found = encoder.encode([Example.of_text("abc")], "{text}", 64)[0]
    assert tokenizer.convert_ids_to_tokens(found.ids) == ["[CLS]", "a", "##b", "##c", "[SEP]"]
    assert found.slot == 0


def test_japanese_is_read_whole() -> None:
    encoder, tokenizer = causal()
    assert tokenizer.decode(encoder.encode([Example.of_text(JAPANESE)], "{text}:", 64)[0].ids) == f"<s>{JAPANESE}:"
    encoder, tokenizer = masked()
    tokens = tokenizer.convert_ids_to_tokens(encoder.encode([Example.of_text("東京")], "{text} {slot}.", 64)[0].ids)
    assert tokens == ["[CLS]", "東", "##京", "[MASK]", ".", "[SEP]"]


def test_a_long_text_is_cut_and_the_cue_stays() -> None:
    encoder, tokenizer = causal()
    found = encoder.encode([Example.of_text("abcdefghij" * 10)], "{text}\nIntent:", 16)[0]
    assert tokenizer.decode(found.ids) == "<s>abcdefg\nIntent:"
    assert len(found.ids) == 16


def test_what_may_not_be_cut_but_does_not_fit_is_named_by_the_texts_start() -> None:
    encoder, _ = masked()
    words = ["The", "very" * 20, "tower"]
    with pytest.raises(DataError, match=r"'The veryvery.*\.\.\.'.*raise backbone"):
        encoder.encode([Example.of_mention(words, Span(1, 2))], None, 40)
    with pytest.raises(DataError, match="'hi'"):
        encoder.encode([Example.of_text("hi")], "{text}" + "x" * 50 + "{slot}", 40)


def test_a_tokenizer_without_a_mask_cannot_serve_a_model_that_reads_both_ways() -> None:
    with pytest.raises(BackboneError, match="no mask token"):
        Encoder(byte_tokenizer(), Style.MASKED)


def test_threads_share_an_encoder() -> None:
    encoder, _ = masked()
    texts = [f"hi {number} [MASK]" for number in range(200)]
    expected = [encoder.encode([Example.of_text(text)], None, 64)[0] for text in texts]
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(lambda text: encoder.encode([Example.of_text(text)], None, 64)[0], texts)) == expected


def test_examples_are_encoded_alike_together_and_one_by_one() -> None:
    encoder, _ = masked()
    examples = [Example.of_text("hi"), Example.of_mention(["the", "tower"], Span(1, 2)), Example.of_text("hi there")]
    assert encoder.encode(examples, None, 64) == [encoder.encode([one], None, 64)[0] for one in examples]
    assert encoder.encode([], None, 64) == []
