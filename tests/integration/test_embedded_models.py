"""The real embedded models, fetched and converted as a user gets them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from conpet.backbone.cut import Cut
from conpet.backbone.embedded import EMBEDDED, ensure, status, verify
from conpet.backbone.load import load_backbone

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


@pytest.fixture(scope="module")
def mpnet() -> Path:
    return ensure("mpnet-base")


@pytest.fixture(scope="module")
def e5() -> Path:
    return ensure("e5-small-multilingual")


def tokenizer_of(folder: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("name", EMBEDDED)
def test_installed_models_are_whole_and_as_described(name: str) -> None:
    folder, described = ensure(name), EMBEDDED[name]
    assert verify(name) == ()
    assert status(name).path == folder
    assert status(name).bytes == pytest.approx(described.disk_bytes, rel=0.01)
    model = AutoModel.from_pretrained(folder)
    assert type(model).__name__.startswith(described.architecture.removesuffix("ForCausalLM"))
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


def similarities(folder: Path, texts: list[str]) -> Tensor:
    """Return the cosine of the mean states of each pair of texts."""
    batch = tokenizer_of(folder)(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        hidden = AutoModel.from_pretrained(folder)(**batch).last_hidden_state
    weights = batch["attention_mask"].unsqueeze(-1)
    means = torch.nn.functional.normalize((hidden * weights).sum(1) / weights.sum(1))
    return means @ means.T


@pytest.mark.parametrize("encoder", ["minilm", "mpnet"])
def test_sentence_encoders_find_like_meanings_alike(encoder: str, request: pytest.FixtureRequest) -> None:
    texts = ["How do I get a new card?", "I need to replace my bank card.", "The cat sleeps on the warm roof."]
    alike = similarities(request.getfixturevalue(encoder), texts)
    assert alike[0, 1] > 0.5
    assert alike[0, 1] > alike[0, 2] + 0.4


def test_e5_finds_like_meanings_alike_across_languages(e5: Path) -> None:
    english = ["How do I get a new card?", "The cat sleeps on the warm roof.", "It will rain tomorrow."]
    japanese = ["新しいカードはどうすればもらえますか。", "猫が暖かい屋根の上で眠っています。", "明日は雨でしょう。"]
    alike = similarities(e5, english + japanese)[:3, 3:]
    assert alike.argmax(1).tolist() == alike.argmax(0).tolist() == [0, 1, 2]


@pytest.mark.parametrize("name", ["mpnet-base", "e5-small-multilingual"])
def test_deep_encoders_are_cut_at_every_layer(name: str) -> None:
    cut = Cut.of(load_backbone(name, dtype="float32").model)
    assert cut.layers == EMBEDDED[name].layers
    assert all(cut.holds(depth) for depth in range(1, cut.layers + 1))


@pytest.mark.parametrize("encoder", ["minilm", "mpnet"])
def test_texts_are_not_cut_at_128_tokens(encoder: str, request: pytest.FixtureRequest) -> None:
    assert len(tokenizer_of(request.getfixturevalue(encoder))("word " * 300)["input_ids"]) == 302
