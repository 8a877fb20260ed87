"""Artifacts: what is written is what is read, and nothing else is accepted."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conpet.artifact import (
    READ_BYTES,
    Artifact,
    ArtifactReader,
    Manifest,
    load_checkpoint,
    save_checkpoint,
    write_artifact,
)
from conpet.errors import ConfigError, CorruptionError, UnknownNameError

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cs",))),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=("Cs",))), inner, max_size=3)
    ),
    max_leaves=8,
)


def example() -> Artifact:
    return Artifact(
        tensors={"module": {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4, dtype=torch.bfloat16)}},
        documents={"settings": {"z": 1, "a": ["日本語", None, 0.5]}},
        tables={"rows": [{"text": "line\nbreak \u2028 and \r"}, {"text": "口座"}]},
    )


@pytest.fixture
def written(tmp_path: Path) -> ArtifactReader:
    folder = tmp_path / "it"
    return ArtifactReader(folder, write_artifact(folder, example()))


def test_reads_back_what_was_written(written: ArtifactReader) -> None:
    tensors = written.tensors("module")
    assert torch.equal(tensors["a"], torch.arange(6.0).reshape(2, 3))
    assert tensors["b"].dtype == torch.bfloat16
    assert written.document("settings") == {"z": 1, "a": ["日本語", None, 0.5]}
    assert list(written.rows("rows")) == [{"text": "line\nbreak \u2028 and \r"}, {"text": "口座"}]
    assert written.has("rows")
    assert not written.has("row")
    assert written.bytes == sum(path.stat().st_size for path in written.folder.iterdir())
    written.verify()


@given(value=JSON)
def test_any_json_survives(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    folder = tmp_path_factory.mktemp("any") / "it"
    artifact = Artifact(documents={"value": value}, tables={"rows": [{"value": value}]})
    reader = ArtifactReader(folder, write_artifact(folder, artifact))
    assert reader.document("value") == value
    assert list(reader.rows("rows")) == [{"value": value}]


def test_equal_artifacts_are_equal_bytes(tmp_path: Path) -> None:
    first = write_artifact(tmp_path / "1", Artifact(documents={"d": {"a": 1, "b": 2}}))
    second = write_artifact(tmp_path / "2", Artifact(documents={"d": {"b": 2, "a": 1}}))
    assert first == second
    assert Manifest.from_json(first.to_json()) == first


def test_views_and_shared_memory_are_written_as_their_own_values(tmp_path: Path) -> None:
    pool = torch.arange(12.0).reshape(4, 3).requires_grad_()
    tensors = {"row": pool[1], "column": pool[:, 1], "whole": pool, "again": pool, "empty": torch.empty(0)}
    reader = ArtifactReader(tmp_path / "it", write_artifact(tmp_path / "it", Artifact(tensors={"bank": tensors})))
    for name, tensor in reader.tensors("bank").items():
        assert torch.equal(tensor, tensors[name])
    assert reader.bytes < 1000


@pytest.fixture(params=[6, READ_BYTES], ids=["small", "large"])
def ones(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactReader:
    """An artifact with as many ones: small files are read, large ones mapped."""
    artifact = Artifact(tensors={"module": {"a": torch.ones(request.param), "empty": torch.ones(0, 2)}})
    return ArtifactReader(tmp_path / "ones", write_artifact(tmp_path / "ones", artifact))


def test_changing_what_was_read_does_not_change_the_file(ones: ArtifactReader) -> None:
    ones.tensors("module")["a"].zero_()
    assert bool(ones.tensors("module")["a"].all())
    ones.verify()


def test_tensors_read_outlive_their_file(ones: ArtifactReader) -> None:
    tensors = ones.tensors("module")
    for path in ones.folder.iterdir():
        path.unlink()
    assert bool(tensors["a"].all())
    assert tensors["empty"].shape == (0, 2)


def test_damaged_tensors_are_found(ones: ArtifactReader) -> None:
    path = ones.folder / "module.safetensors"
    path.write_bytes(b"\xff" * path.stat().st_size)
    with pytest.raises(CorruptionError, match=r"module\.safetensors is damaged"):
        ones.tensors("module")


@pytest.mark.parametrize("stem", ["", "../up", "a/b", ".hidden", "a b", "タスク"])
def test_unsafe_stems_are_refused_before_anything_is_written(tmp_path: Path, stem: str) -> None:
    with pytest.raises(ConfigError, match="cannot name"):
        write_artifact(tmp_path / "it", Artifact(documents={"fine": 1, stem: 2}))
    assert not (tmp_path / "it").exists()


def test_never_writes_over_an_artifact(written: ArtifactReader) -> None:
    with pytest.raises(FileExistsError):
        write_artifact(written.folder, example())
    written.verify()


def test_asking_for_what_was_never_written_names_what_is_there(written: ArtifactReader) -> None:
    with pytest.raises(UnknownNameError, match=r"module\.safetensors, rows\.jsonl, settings\.json"):
        written.document("module")


READS: dict[str, Callable[[ArtifactReader], Iterable[object]]] = {
    "module.safetensors": lambda reader: reader.tensors("module"),
    "settings.json": lambda reader: reader.document("settings"),
    "rows.jsonl": lambda reader: reader.rows("rows"),
}


@pytest.mark.parametrize("name", READS)
def test_a_missing_longer_or_shorter_file_is_found_when_it_is_read(written: ArtifactReader, name: str) -> None:
    path = written.folder / name
    content = path.read_bytes()
    for changed in (content + b" ", content[:-1], b""):
        path.write_bytes(changed)
        for found in (READS[name], ArtifactReader.verify):
            message = rf"{name} has {len(changed)} bytes instead of {len(content)}.*restore"
            with pytest.raises(CorruptionError, match=message):
                found(written)
    path.unlink()
    for found in (READS[name], ArtifactReader.verify):
        with pytest.raises(CorruptionError, match=f"{name} is missing"):
            found(written)


def test_damage_to_one_file_leaves_the_others_readable(written: ArtifactReader) -> None:
    (written.folder / "module.safetensors").unlink()
    assert written.document("settings")["z"] == 1
    assert len(list(written.rows("rows"))) == 2


def test_a_surplus_file_is_found_by_verify(written: ArtifactReader) -> None:
    (written.folder / "extra.bin").write_bytes(b"")
    with pytest.raises(CorruptionError, match=r"unexpected files: extra\.bin"):
        written.verify()


def test_a_missing_folder_is_found(tmp_path: Path, written: ArtifactReader) -> None:
    gone = ArtifactReader(tmp_path / "gone", written.manifest)
    with pytest.raises(CorruptionError, match="gone is missing"):
        gone.verify()
    with pytest.raises(CorruptionError, match=r"gone/settings\.json is missing"):
        gone.document("settings")


@pytest.mark.parametrize("name", READS)
def test_one_changed_bit_is_found_by_the_first_reading(written: ArtifactReader, name: str) -> None:
    path = written.folder / name
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    for found in (lambda reader: list(READS[name](reader)), ArtifactReader.verify):
        with pytest.raises(CorruptionError, match=rf"{name} is damaged.*restore"):
            found(written)
    content[-3] ^= 1
    path.write_bytes(content)
    assert list(READS[name](written))


def test_a_file_is_hashed_only_when_it_is_first_read(ones: ArtifactReader) -> None:
    assert ones.tensors("module")
    path = ones.folder / "module.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert ones.tensors("module")["a"][-1] != 1
    with pytest.raises(CorruptionError, match="is damaged"):
        ones.verify()


def test_plain_peft_loads_an_adapter_folder(tmp_path: Path) -> None:
    from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 4))
    inputs = torch.randn(2, 4)
    tuned = get_peft_model(model, LoraConfig(r=2, target_modules=["0"], init_lora_weights=False))
    expected = tuned(inputs)
    config = tuned.peft_config["default"].to_dict()
    config = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    artifact = Artifact({"adapter_model": get_peft_model_state_dict(tuned)}, {"adapter_config": config})
    write_artifact(tmp_path / "it", artifact)
    assert torch.equal(PeftModel.from_pretrained(tuned.unload(), tmp_path / "it")(inputs), expected)


def test_checkpoints_replace_each_other(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    assert load_checkpoint(folder) is None
    for step in range(3):
        save_checkpoint(folder, Artifact({"state": {"w": torch.full((2,), float(step))}}, {"step": step}))
        reader = load_checkpoint(folder)
        assert reader is not None
        assert reader.document("step") == step
        assert reader.tensors("state")["w"].tolist() == [step, step]
    assert len(list(folder.iterdir())) == 2  # the pointer and one checkpoint


def test_a_checkpoint_that_fails_half_way_leaves_the_former(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path, Artifact(documents={"step": 1}))

    def fail(*_: object) -> None:
        raise OSError("disk full")

    for call in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(f"os.{call}", fail)
            with pytest.raises(OSError, match="disk full"):
                save_checkpoint(tmp_path, Artifact(documents={"step": 2}))
        reader = load_checkpoint(tmp_path)
        assert reader is not None
        assert reader.document("step") == 1
    save_checkpoint(tmp_path, Artifact(documents={"step": 3}))
    assert len(list(tmp_path.iterdir())) == 2


def test_a_damaged_checkpoint_is_ignored(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, Artifact(documents={"step": 1}))
    path = next(tmp_path.glob("*/step.json"))
    path.write_bytes(b"2\n")
    assert load_checkpoint(tmp_path) is None
    (tmp_path / "checkpoint.json").write_bytes(b"\0\0")
    assert load_checkpoint(tmp_path) is None
