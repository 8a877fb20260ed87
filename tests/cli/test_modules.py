from __future__ import annotations

import json
from pathlib import Path

import pytest
from peft import PeftModel
from transformers import AutoModel

from conpet.backbone.tiny import write_tiny_random
from conpet.home import conpet_home
from conpet.store import Store
from tests.helpers.cli import QUICK, STREAM, conpet, taught, write_stream

FIRST, SECOND = (task.name for task in STREAM)


def learn_again(workspace: Path, folder: Path) -> None:
    changed = write_stream(folder / "changed") / FIRST
    with (changed / "train.jsonl").open("a") as file:
        file.write(f'{{"text": "quite another example", "label": "{STREAM[0].labels[0]}"}}\n')
    assert conpet("learn", workspace, changed, "--no-evaluate").code == 0


def test_modules_list_names_every_version(tmp_path: Path) -> None:
    workspace = taught(tmp_path)
    learn_again(workspace, tmp_path)
    rows = conpet("modules", "list", workspace, "--json").json
    assert [(row["task"], row["version"], row["active"]) for row in rows] == [
        (FIRST, 1, False),
        (FIRST, 2, True),
        (SECOND, 1, True),
    ]
    assert set(rows[0]) >= {"labels", "parameters", "head_parameters", "bytes", "created"}
    shown = conpet("modules", "list", workspace).out
    assert shown.count("active") == 2


def test_modules_list_of_an_empty_workspace_says_what_to_do(tmp_path: Path) -> None:
    conpet("init", tmp_path / "new", *QUICK)
    assert "conpet learn" in conpet("modules", "list", tmp_path / "new").out
    assert conpet("modules", "list", tmp_path / "new", "--json").json == []


def test_modules_show_tells_what_a_module_was_learned_from(tmp_path: Path) -> None:
    workspace = taught(tmp_path)
    found = conpet("modules", "show", workspace, FIRST, "--json").json
    assert found["labels"] == list(STREAM[0].labels)
    assert found["counts"] == {"train": 16, "validation": 4, "test": 8}
    assert [event["verb"] for event in found["history"]] == ["learn"]
    shown = conpet("modules", "show", workspace, FIRST).out
    assert all(label in shown for label in STREAM[0].labels)
    assert "16 train" in shown


def test_unknown_tasks_and_versions_are_answered_with_the_known_ones(tmp_path: Path) -> None:
    workspace = taught(tmp_path)
    missing = conpet("modules", "show", workspace, "nope")
    assert missing.code == 1
    assert f"no task 'nope' in this workspace; have: '{FIRST}', '{SECOND}'" in missing.err
    assert "has no version 9; have: 1" in conpet("modules", "show", workspace, FIRST, "--version", 9).err
    assert "has no version 9; have: 1" in conpet("modules", "rollback", workspace, FIRST, 9).err
    assert conpet("modules", "remove", workspace, "nope", "--yes").code == 1


def test_modules_rollback_takes_an_older_version_into_use(tmp_path: Path) -> None:
    workspace = taught(tmp_path)
    learn_again(workspace, tmp_path)
    back = conpet("modules", "rollback", workspace, FIRST, 1)
    assert back.code == 0
    assert "version 1 is active" in back.out
    assert "whole accuracy" in back.out
    assert Store.open(workspace).snapshot().task(FIRST).active.number == 1
    assert "already; nothing changed" in conpet("modules", "rollback", workspace, FIRST, 1).out


def test_modules_remove_asks_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = taught(tmp_path)
    monkeypatch.setattr("builtins.input", lambda *_: "n")
    monkeypatch.setattr("typer.confirm", _refuse)
    assert conpet("modules", "remove", workspace, FIRST).code == 1
    assert len(Store.open(workspace).snapshot().tasks) == 2
    removed = conpet("modules", "remove", workspace, FIRST, "--yes")
    assert removed.code == 0
    assert "removed with its 2 labels" in removed.out
    assert [task.name for task in Store.open(workspace).snapshot().tasks] == [SECOND]
    matrix = conpet("report", workspace, "--json").json
    assert [(event["verb"], event["task"], event["version"]) for event in matrix["events"]][-1] == ("remove", FIRST, 1)


def test_modules_remove_says_what_of_the_task_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr("typer.confirm", lambda question, **_: asked.append(question) or _refuse(question))
    one_for_all = ("--method", "sequential", "--set", "backbone.warmup=first-task")
    assert conpet("init", tmp_path / "ws", *QUICK, *one_for_all).code == 0
    assert conpet("learn", tmp_path / "ws", write_stream(tmp_path / "stream")).code == 0
    for workspace, task in ((tmp_path / "ws", FIRST), (tmp_path / "ws", SECOND), (taught(tmp_path / "own"), FIRST)):
        conpet("modules", "remove", workspace, task)
    assert ["serves other tasks too" in question for question in asked] == [True, True, False]
    assert ["warmed up with this task" in question for question in asked] == [True, False, False]


def _refuse(question: str, **_: object) -> bool:
    import typer

    assert "cannot be undone" in question
    raise typer.Abort


def test_modules_export_makes_a_folder_that_plain_peft_loads(tmp_path: Path) -> None:
    workspace = taught(tmp_path)
    made = tmp_path / "exported"
    assert conpet("modules", "export", workspace, FIRST, made).code == 0
    base = AutoModel.from_pretrained(write_tiny_random(conpet_home()))
    assert PeftModel.from_pretrained(base, made).peft_config
    again = conpet("modules", "export", workspace, FIRST, made)
    assert again.code == 1
    assert "exists" in again.err


def test_modules_export_says_whose_format_it_is(tmp_path: Path) -> None:
    assert conpet("init", tmp_path / "ws", *QUICK, "--module", "pfeiffer").code == 0
    assert conpet("learn", tmp_path / "ws", write_stream(tmp_path / "stream")).code == 0
    made = conpet("modules", "export", tmp_path / "ws", FIRST, tmp_path / "exported")
    assert "conpet's own format (PEFT does not support pfeiffer)" in " ".join(made.out.split())
    assert json.loads((tmp_path / "exported" / "adapter_config.json").read_text())["peft_type"] == "CONPET_PFEIFFER"
    assert (
        "format of Hugging Face PEFT"
        in conpet("modules", "export", taught(tmp_path / "lora"), FIRST, tmp_path / "2").out
    )


def test_modules_verify_finds_a_changed_byte(tmp_path: Path) -> None:
    workspace = taught(tmp_path)
    tiny = write_tiny_random(conpet_home())
    sound = conpet("modules", "verify", workspace, "--json", "--backbone", tiny)
    assert sound.code == 0
    assert sound.json == {"sound": True, "problems": [], "backbone_checked": True}
    victim = next((workspace / "objects").glob("module-*/adapter_model.safetensors"))
    content = bytearray(victim.read_bytes())
    content[-1] ^= 1
    victim.chmod(0o644)
    victim.write_bytes(content)
    damaged = conpet("modules", "verify", workspace)
    assert damaged.code == 1
    assert "adapter_model.safetensors" in damaged.err
    assert conpet("modules", "verify", workspace, "--json").json["sound"] is False


def test_modules_verify_notices_another_backbone(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for file in write_tiny_random(conpet_home()).iterdir():
        content = file.read_bytes()
        (other / file.name).write_bytes(content[:-1] + b"\0" if file.suffix == ".safetensors" else content)
    found = conpet("modules", "verify", taught(tmp_path), "--backbone", other)
    assert found.code == 1
    assert "the backbone's weights" in found.err


def test_backbones_list_and_show_need_no_network() -> None:
    rows = conpet("backbones", "list", "--json").json
    assert [row["name"] for row in rows] == ["smollm2-135m", "minilm-l6", "mpnet-base", "e5-small-multilingual"]
    assert not any(row["installed"] for row in rows)
    assert "not installed" in conpet("backbones", "list").out
    shown = conpet("backbones", "show", "mpnet-base").out
    assert "768" in shown
    assert len(rows[2]["wheels"]) == 5
    assert all(f"{wheel}  {digest}" in shown for wheel, digest in rows[2]["wheels"].items())


def test_backbones_show_describes_a_folder() -> None:
    found = conpet("backbones", "show", write_tiny_random(conpet_home()), "--json").json
    assert (found["layers"], found["hidden_size"], found["parameters"]) == (4, 32, 45408)
    assert found["architecture"] == "LlamaModel"


def test_unknown_backbones_are_answered_with_the_known_ones() -> None:
    for verb in ("show", "pull"):
        missing = conpet("backbones", verb, "nope")
        assert missing.code == 1
        assert "smollm2-135m" in missing.err


def test_backbones_pull_fetches_and_says_where(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def ensure(name: str, *, progress, verify: bool) -> Path:
        progress(f"{name}: downloading")
        return tmp_path / f"{name}-{verify}"

    monkeypatch.setattr("conpet.backbone.embedded.ensure", ensure)
    pulled = conpet("backbones", "pull", "minilm-l6", "--verify")
    assert pulled.out.strip() == str(tmp_path / "minilm-l6-True")
    assert "downloading" in pulled.err


def test_cache_is_shown_and_cleared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONPET_HOME", str(tmp_path / "home"))
    empty = conpet("cache", "--json").json
    assert (empty["entries"], empty["bytes"]) == (0, 0)
    assert not Path(empty["path"]).exists()
    conpet("init", tmp_path / "ws", *QUICK)
    conpet("learn", tmp_path / "ws", write_stream(tmp_path / "stream"))
    full = conpet("cache", "show", "--json").json
    assert full["entries"] > 0
    assert full["entries"] < full["bytes"] <= full["limit_bytes"]
    assert "the states of" in conpet("cache").out
    assert conpet("cache", "clear").code == 0
    assert conpet("cache", "--json").json["entries"] == 0


def test_modules_remove_leaves_no_word_of_the_task_on_disk(tmp_path: Path) -> None:
    workspace = taught(tmp_path)
    learned = next(iter(STREAM[0].train)).text.encode()
    assert any(learned in path.read_bytes() for path in workspace.rglob("*") if path.is_file())
    assert conpet("modules", "remove", workspace, FIRST, "--yes").code == 0
    assert [path for path in workspace.rglob("*") if path.is_file() and learned in path.read_bytes()] == []
