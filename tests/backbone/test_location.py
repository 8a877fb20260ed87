"""A backbone in a folder of the user's is found from anywhere, and after it was moved."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from conpet import ConPET
from conpet.backbone.fingerprint import Fingerprint
from conpet.backbone.tiny import write_tiny_random
from conpet.commands.verify import verify
from conpet.errors import BackboneError, BackboneMismatchError
from conpet.testing import tiny_settings
from tests.helpers.workspaces import stream


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a backbone `m` and a workspace `ws` that was made and taught there with `./m`."""
    folder = tmp_path / "project"
    folder.mkdir()
    shutil.copytree(write_tiny_random(tmp_path / "home"), folder / "m")
    monkeypatch.chdir(folder)
    settings = tiny_settings()
    ConPET.create("ws", **{**settings, "backbone": {**settings.get("backbone", {}), "name": "./m"}}).learn(stream()[0])
    monkeypatch.chdir(tmp_path)
    return folder


def answers(workspace: Path, backbone: Path | None = None) -> bool:
    return bool(ConPET.open(workspace, backbone=str(backbone) if backbone else None).predict(["some text"]))


def test_a_relative_path_leads_to_the_backbone_from_any_folder(project: Path) -> None:
    assert ConPET.open(project / "ws").settings.backbone.name == str(project / "m")
    assert answers(project / "ws")


def test_a_backbone_moved_with_its_workspace_is_found(project: Path) -> None:
    moved = project.rename(project.with_name("elsewhere"))
    assert answers(moved / "ws")
    assert verify(ConPET.open(moved / "ws").store).backbone_checked


def test_a_link_may_be_led_to_the_new_place(project: Path) -> None:
    (project / "m").rename(project / "n")
    (project / "m").symlink_to(project / "n")
    assert answers(project / "ws")


def test_a_backbone_that_is_gone_is_described_with_the_option_that_names_it(project: Path) -> None:
    new = (project / "m").rename(project.with_name("models"))
    digest = Fingerprint.of_folder(new, project / "hashes.json").digest[:16]
    with pytest.raises(BackboneError, match=rf"not found: no backbone .*--backbone FOLDER.*fingerprint {digest}"):
        ConPET.open(project / "ws")
    assert answers(project / "ws", new)


def test_another_backbone_in_its_place_is_told_apart(project: Path) -> None:
    config = project / "m" / "tokenizer.json"
    config.write_text(config.read_text(encoding="utf-8") + " ", encoding="utf-8")
    with pytest.raises(BackboneMismatchError, match=r"another tokenizer .*expected: fingerprint \w{16}, found: \w{16}"):
        ConPET.open(project / "ws")
