"""The real embedded models, fetched and converted as a user gets them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from conpet.backbone.embedded import EMBEDDED, ensure, status, verify

pytestmark = pytest.mark.integration

TEXTS = [
    "My card was swallowed by the machine.",
    "  two leading spaces,\ttabs\nand\n\n  lines  ",
    "日本語のテキスト。\n改行も、絵文字も😀",
    "I'll pay 1,234.50 EUR on 2024-01-31; it's naïve to wait.",
    "",
]


@pytest.fixture(scope="module")
def smollm2() -> Path:
    return ensure("smollm2-135m")


@pytest.fixture(scope="module")
def minilm() -> Path:
    return ensure("minilm-l6")


def tokenizer_of(folder: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(folder)


def test_installed_models_are_whole_and_as_described(smollm2: Path, minilm: Path) -> None:
    for name, folder in (("smollm2-135m", smollm2), ("minilm-l6", minilm)):
        described = EMBEDDED[name]
        assert verify(name) == ()
        assert status(name).path == folder
        assert status(name).bytes == pytest.approx(described.disk_bytes, rel=0.01)
        model = AutoModel.from_pretrained(folder)
        assert model.dtype is torch.float32
        assert model.num_parameters() == described.parameters
        assert model.config.num_hidden_layers == described.layers
        assert model.config.hidden_size == described.hidden_size
        assert tokenizer_of(folder).model_max_length == described.context


def test_smollm2_knows_the_capital_of_france(smollm2: Path) -> None:
    tokenizer = tokenizer_of(smollm2)
    model = AutoModelForCausalLM.from_pretrained(smollm2)
    ids = tokenizer("The capital of France is", return_tensors="pt")
    with torch.inference_mode():
        best = model(**ids).logits[0, -1].argmax()
    assert tokenizer.decode(best) == " Paris"


def test_smollm2_reads_and_gives_back_any_text(smollm2: Path) -> None:
    tokenizer = tokenizer_of(smollm2)
    for text in TEXTS:
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.pad_token_id is not None


def test_smollm2_reads_every_digit_alone(smollm2: Path) -> None:
    tokenizer = tokenizer_of(smollm2)
    assert tokenizer.convert_ids_to_tokens(tokenizer("hi  12")["input_ids"]) == ["hi", "ĠĠ", "1", "2"]


def test_minilm_finds_like_meanings_alike(minilm: Path) -> None:
    tokenizer = tokenizer_of(minilm)
    model = AutoModel.from_pretrained(minilm)
    texts = ["How do I get a new card?", "I need to replace my bank card.", "The cat sleeps on the warm roof."]
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        hidden = model(**batch).last_hidden_state
    weights = batch["attention_mask"].unsqueeze(-1)
    means = torch.nn.functional.normalize((hidden * weights).sum(1) / weights.sum(1))
    alike = means @ means.T
    assert alike[0, 1] > 0.5
    assert alike[0, 1] > alike[0, 2] + 0.4


def test_minilm_is_not_cut_at_128_tokens(minilm: Path) -> None:
    assert len(tokenizer_of(minilm)("word " * 300)["input_ids"]) == 302
