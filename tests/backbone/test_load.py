"""Backbones by name: found, frozen, read the right way; what cannot serve is refused with the reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers as tf
from safetensors.torch import load_file, save_file

from conpet.backbone.backbone import Backbone
from conpet.backbone.load import choose_device, choose_dtype, find_folder, load_backbone
from conpet.data import Style
from conpet.errors import BackboneError, ConfigError
from tests.helpers.backbones import CAUSAL, CONFIGS, EXAMPLES, VOCABULARY, mask_tokenizer, tiny_model, write_model


def test_tiny_random_is_written_once_and_the_same_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fingerprints = set()
    for home in ("a", "b", "b"):
        monkeypatch.setenv("CONPET_HOME", str(tmp_path / home))
        fingerprints.add(load_backbone("tiny-random").fingerprint)
    assert len(fingerprints) == 1
    assert [path.name for path in (tmp_path / "a" / "models").iterdir()] == ["tiny-random-1"]


@pytest.mark.parametrize("architecture", [name for name in CONFIGS if name != "gpt2"])
def test_any_architecture_loads_from_a_folder_frozen_and_is_read_its_own_way(architecture: str, tmp_path: Path) -> None:
    loaded = load_backbone(str(write_model(tmp_path / "model", architecture)), dtype="float32", device="cpu")
    assert loaded.encoder.style is (Style.CAUSAL if architecture in CAUSAL else Style.MASKED)
    assert not loaded.model.training
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    known = tiny_model(architecture).state_dict()
    weights = loaded.model.state_dict()
    assert all(torch.equal(weights[name], known[name]) for name in known if not name.startswith("pooler."))
    states = Backbone(loaded).states(EXAMPLES)
    assert torch.isfinite(states.features).all()


def test_a_model_is_loaded_in_the_number_format_asked_for(tmp_path: Path) -> None:
    folder = str(write_model(tmp_path / "model"))
    for dtype in ("float32", "bfloat16"):
        loaded = load_backbone(folder, dtype=dtype)
        assert {parameter.dtype for parameter in loaded.model.parameters()} == {getattr(torch, dtype)}
    assert loaded.encoder.style is Style.CAUSAL
    with pytest.raises(ConfigError, match="use auto, float32"):
        load_backbone(folder, dtype="int3")


def test_the_number_format_follows_the_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    for check in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, check, lambda: False, raising=False)
    assert choose_dtype("auto", cpu) is torch.float32
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    assert choose_dtype("auto", cpu) is torch.bfloat16
    for supported, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda supported=supported: supported)
        assert choose_dtype("auto", cuda) is dtype
    with pytest.warns(UserWarning, match="use bfloat16"):
        assert choose_dtype("float16", cpu) is torch.float16


def test_the_device_is_the_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto").type == "cpu"
    with pytest.raises(BackboneError, match="use device=cpu"):
        choose_device("cuda:1")
    with pytest.raises(BackboneError, match="no device 'warp'"):
        choose_device("warp")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto").type == "cuda"


@pytest.mark.parametrize("name", ["nosuch", "./nosuch", "a/b/c", "~/nosuch-model"])
def test_a_name_that_can_be_nothing_is_refused_with_what_there_is(name: str) -> None:
    with pytest.raises(BackboneError, match="smollm2-135m"):
        find_folder(name)


def test_a_hub_model_that_cannot_be_reached_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(BackboneError, match="use the folder of a local copy"):
        find_folder("nobody/no-such-model")


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=r"has no config\.json"):
        find_folder(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(BackboneError, match="no weights"):
        load_backbone(str(tmp_path))


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    weights = write_model(tmp_path / "model") / "model.safetensors"
    whole = load_file(weights)
    without = {name: tensor for name, tensor in whole.items() if "layers.1.mlp" not in name}
    save_file(without, weights, metadata={"format": "pt"})
    with pytest.raises(BackboneError, match=r"3 tensors are missing from the weights \(layers\.1\.mlp"):
        load_backbone(str(tmp_path / "model"))
    save_file({**whole, "norm.weight": torch.ones(7)}, weights, metadata={"format": "pt"})
    with pytest.raises(BackboneError, match="cannot load the model"):
        load_backbone(str(tmp_path / "model"))
    weights.write_bytes(b"not tensors")
    with pytest.raises(BackboneError, match="cannot load the model"):
        load_backbone(str(tmp_path / "model"))
    (tmp_path / "model" / "config.json").write_text("{")
    with pytest.raises(BackboneError, match="cannot load the model"):
        load_backbone(str(tmp_path / "model"))


def test_a_model_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    tiny_model("bert").save_pretrained(tmp_path / "model")
    with pytest.raises(BackboneError, match="tokenizer"):
        load_backbone(str(tmp_path / "model"))


def test_a_model_that_reads_both_ways_needs_a_mask_token(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    tiny_model("bert").save_pretrained(folder)
    mask_tokenizer(has_mask=False).save_pretrained(folder)
    with pytest.raises(BackboneError, match=f"{folder}.*no mask token"):
        load_backbone(str(folder))


def test_an_encoder_decoder_is_refused(tmp_path: Path) -> None:
    sizes = {"vocab_size": VOCABULARY, "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    tf.T5Model(tf.T5Config(**sizes, decoder_start_token_id=0)).save_pretrained(tmp_path)
    with pytest.raises(BackboneError, match="encoder-decoder"):
        load_backbone(str(tmp_path))
