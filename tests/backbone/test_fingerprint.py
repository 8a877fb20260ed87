"""Fingerprints: equal for equal models wherever they lie, different for any change that changes an answer."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from conpet.backbone.fingerprint import Fingerprint
from tests.helpers.backbones import write_model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model", "bert")


@pytest.fixture
def copy(model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model, tmp_path / "copy"))


def of(folder: Path) -> Fingerprint:
    return Fingerprint.of_folder(folder, folder.parent / "hashes.json")


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    value = json.loads(path.read_text(encoding="utf-8"))
    change(value)
    path.write_text(json.dumps(value), encoding="utf-8")


def test_the_same_model_has_the_same_fingerprint_wherever_it_lies(model: Path, copy: Path) -> None:
    assert of(model) == of(copy) == Fingerprint(**of(model).to_json())
    assert of(model).digest == of(copy).digest
    assert of(model).differences(of(copy)) == []


def test_a_changed_weight_is_noticed(model: Path, copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    tensors[min(tensors)].view(-1)[0] += 1e-3
    save_file(tensors, copy / "model.safetensors")
    assert of(model).differences(of(copy)) == ["weights"]
    assert of(model).digest != of(copy).digest


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("tokenizer.json", lambda value: value["model"]["vocab"].update(zzz=299)),
        ("tokenizer_config.json", lambda value: value.update({"mask_token": "[UNK]"})),
        ("tokenizer_config.json", lambda value: value.update(add_bos_token=True)),
    ],
)
def test_a_changed_tokenizer_is_noticed(file: str, change: Any, model: Path, copy: Path) -> None:
    edit(copy / file, change)
    assert of(model).differences(of(copy)) == ["tokenizer"]


def test_a_changed_configuration_is_noticed(model: Path, copy: Path) -> None:
    edit(copy / "config.json", lambda value: value.update(layer_norm_eps=0.5))
    assert of(model).differences(of(copy)) == ["config"]


def test_how_and_by_whom_a_model_was_saved_does_not_count(model: Path, copy: Path) -> None:
    edit(
        copy / "config.json", lambda value: value.update(transformers_version="9.9", dtype="bfloat16", use_cache=False)
    )
    edit(
        copy / "tokenizer_config.json",
        lambda value: value.update(
            {"model_max_length": 7, "tokenizer_class": "X", "mask_token": {"content": "[MASK]", "lstrip": False}}
        ),
    )
    (copy / "README.md").write_text("hello")
    assert of(model) == of(copy)


def test_hashes_are_remembered_until_a_file_changes(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = of(model)
    stat = (model / "model.safetensors").stat()
    with monkeypatch.context() as patch:
        patch.setattr("hashlib.file_digest", lambda *_: pytest.fail("a file was read again"))
        assert of(model) == first
    tensors = load_file(model / "model.safetensors")
    tensors[min(tensors)].view(-1)[0] += 1
    save_file(tensors, model / "model.safetensors")
    os.utime(model / "model.safetensors", ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert of(model).differences(first) == ["weights"]


@pytest.mark.parametrize("garbage", ["", "[1, 2]", '"x"', "\x00"])
def test_a_garbled_memory_of_hashes_costs_only_time(garbage: str, model: Path) -> None:
    first = of(model)
    (model.parent / "hashes.json").write_text(garbage)
    assert of(model) == first


def test_hashes_need_no_place_to_be_remembered(model: Path) -> None:
    (model.parent / "file").write_text("")
    assert Fingerprint.of_folder(model, model.parent / "file" / "hashes.json") == of(model)
