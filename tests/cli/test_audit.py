"""`conpet audit`: what it finds, prints and writes."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from conpet import ConPET, Example, Prediction
from conpet.backbone.fingerprint import Fingerprint
from conpet.backbone.load import find_folder
from conpet.store import Store
from conpet.store.prediction_log import PredictionLog
from tests.helpers.cli import conpet
from tests.helpers.store import commit, learn, make_store


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    store = make_store(tmp_path / "ws")
    commit(store, learn("cards", 1.0), learn("loans", 2.0), learn("cards", 3.0))
    return store.path


def head_of(workspace: Path) -> str:
    return conpet("audit", "head", workspace).out.strip()


def test_an_untouched_workspace_passes(workspace: Path) -> None:
    noted = head_of(workspace)
    commit_more = conpet("audit", "verify", workspace, "--head", noted)
    assert (commit_more.code, commit_more.out) == (0, f"{workspace}: history and content are as recorded\n")
    assert conpet("audit", "verify", workspace, "--json").json == []


def test_a_changed_byte_and_a_changed_event_are_named(workspace: Path) -> None:
    with closing(sqlite3.connect(workspace / "workspace.sqlite")) as raw, raw:
        raw.execute("UPDATE event SET actor = 'nobody' WHERE id = 2")
    file = next((workspace / "objects").glob("module-loans-*/*.safetensors"))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    result = conpet("audit", "verify", workspace)
    assert result.code == 1
    assert "event 2: was changed after it was recorded" in result.out
    assert any(row.startswith(str(file)) for row in result.out.splitlines())
    assert "2 differences from what was recorded" in result.err


def test_a_removed_event_is_named_in_plain_words(workspace: Path) -> None:
    with closing(sqlite3.connect(workspace / "workspace.sqlite")) as raw, raw:
        raw.execute("PRAGMA foreign_keys = OFF")
        raw.execute("DELETE FROM event WHERE id = 2")
    shown = conpet("audit", "verify", workspace).out
    assert "event 2: is missing\n" in shown
    assert "rows of the table object belong to rows of event that are gone" in shown
    assert "(ok)" not in shown


def test_a_backbone_exchanged_with_its_recorded_fingerprint_is_found(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "backbone"
    with ConPET.create(tmp_path / "first", backbone="tiny-random") as learner:
        shutil.copytree(find_folder(learner.backbone.name), folder)
    with ConPET.create(tmp_path / "ws", backbone=str(folder)) as learner:
        store = learner.store
    weights = next(folder.glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert "the backbone's weights differ" in conpet("audit", "verify", store.path).out
    backbone = {**store.header().backbone, "fingerprint": Fingerprint.of_folder(folder, tmp_path / "hashes").to_json()}
    with closing(sqlite3.connect(store.path / "workspace.sqlite")) as raw, raw:
        raw.execute("UPDATE header SET backbone = ?", (json.dumps(backbone),))
    said = "event {}: the backbone or other fixed properties of the workspace differ from those {}\n"
    assert said.format(1, "it recorded") in conpet("audit", "verify", store.path).out
    commit(store, learn("cards"))  # the next change records the exchanged one
    assert said.format(2, "recorded before it") in conpet("audit", "verify", store.path).out


def test_a_history_written_anew_or_cut_off_is_found_by_a_head_noted_before(workspace: Path, tmp_path: Path) -> None:
    noted = head_of(workspace)
    other = make_store(tmp_path / "other")
    commit(other, learn("cards", 1.0), learn("loans", 2.0))
    assert conpet("audit", "verify", other.path).code == 0
    cut = conpet("audit", "verify", other.path, "--head", noted)
    assert (cut.code, cut.out) == (1, "event 4: was noted, but is not in the history\n")
    commit(other, learn("cards", 3.0))
    anew = conpet("audit", "verify", other.path, "--head", noted)
    assert anew.code == 1
    assert "was written anew" in anew.out
    wrong = conpet("audit", "verify", other.path, "--head", "4:abc")
    assert (wrong.code, wrong.out) == (1, "")
    assert "'4:abc' is not GENERATION:DIGEST" in wrong.err


def test_an_exported_history_is_checked_without_the_workspace(workspace: Path, tmp_path: Path) -> None:
    file, noted = tmp_path / "history.jsonl", head_of(workspace)
    assert "4 entries written" in conpet("audit", "export", workspace, "-o", file).err
    assert conpet("audit", "verify", file, "--head", noted).out == f"{file}: the history is as recorded\n"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([lines[0], *lines[2:]]))
    assert "event 2: is missing\n" in conpet("audit", "verify", file).out
    file.write_text("\n".join([lines[0], json.dumps(json.loads(lines[1]) | {"verb": "remove"}), *lines[2:]]))
    assert "event 2: was changed" in conpet("audit", "verify", file).out
    for text in ("", "not JSON", "[1]"):
        file.write_text(text)
        assert conpet("audit", "verify", file).code == 1
        assert str(file) in conpet("audit", "verify", file).err
    assert "no such file or folder" in conpet("audit", "verify", tmp_path / "nothing").err


def test_a_signed_checkpoint_needs_its_key(workspace: Path, tmp_path: Path) -> None:
    key, checkpoint = tmp_path / "key.pem", tmp_path / "checkpoint.json"
    assert conpet("audit", "key", key).code == 0
    assert key.stat().st_mode & 0o077 == 0
    assert "never replaced" in conpet("audit", "key", key).err
    assert conpet("audit", "sign", workspace, "--key", key, "-o", checkpoint).code == 0
    check = ("audit", "verify", workspace, "--checkpoint", checkpoint, "--public-key")
    assert conpet(*check, f"{key}.pub").code == 0
    conpet("audit", "key", tmp_path / "other")
    assert "was changed, or was not signed with the key" in conpet(*check, tmp_path / "other.pub").err
    document = json.loads(checkpoint.read_text())
    assert document["head"] == head_of(workspace)
    checkpoint.write_text(json.dumps(document | {"time": "2020-01-01T00:00:00+00:00"}))
    assert "was changed" in conpet(*check, f"{key}.pub").err
    checkpoint.write_text("{}")
    assert "is not a checkpoint" in conpet(*check, f"{key}.pub").err
    assert "--public-key" in conpet(*check[:-1]).err
    assert "is not an Ed25519 private key" in conpet("audit", "sign", workspace, "--key", f"{key}.pub").err


def test_trace_tells_who_made_a_version_and_from_what(workspace: Path) -> None:
    found = conpet("audit", "trace", workspace, "cards", "--json").json
    assert (found["version"], found["active"], found["data"]) == (2, True, "digest-3.0")
    assert [event["version"] for event in found["events"]] == [1, 2]
    assert {each["slot"] for each in found["objects"]} == {"module", "memory"}
    text = conpet("audit", "trace", workspace, "cards", "--version", 1)
    assert "task cards, version 1 (not active)" in text.out
    assert f"by {found['made']['actor']}" in text.out
    assert "it has had: 1, 2" in conpet("audit", "trace", workspace, "cards", "--version", 9).err
    assert "no task 'news' was ever learned" in conpet("audit", "trace", workspace, "news").err


def test_python_gives_the_same(tmp_path: Path) -> None:
    with ConPET.create(tmp_path / "ws", backbone="tiny-random") as learner:
        noted = learner.history_head()
        assert str(noted) == head_of(learner.path)
        assert learner.verify_history([noted]) == []


def test_keys_are_in_the_trail_that_is_listed_exported_and_verified(workspace: Path, tmp_path: Path) -> None:
    made = conpet("keys", "create", workspace, "--role", "operate", "--name", "boss", "--json").json
    noted, file = head_of(workspace), tmp_path / "history.jsonl"
    conpet("keys", "revoke", workspace, made["id"])
    listed = conpet("audit", "actions", workspace, "--json").json
    assert [(one["verb"], one["detail"]["name"]) for one in listed] == [("key-revoked", "boss"), ("key-made", "boss")]
    shown = conpet("audit", "actions", workspace, "--search", "made").out
    assert f"key {made['id']}, name boss, role operate" in " ".join(shown.split())
    assert conpet("audit", "actions", workspace, "--search", "nobody").out == "no action is like that\n"
    assert conpet("audit", "verify", workspace, "--head", noted).code == 0
    assert "6 entries written" in conpet("audit", "export", workspace, "-o", file).err
    assert made["key"] not in file.read_text()
    assert conpet("audit", "verify", file, "--head", noted).code == 0
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[:-1], lines[-1].replace(made["id"], "0" * 12)]))
    assert "action 2: was changed" in conpet("audit", "verify", file).out
    file.write_text("\n".join(lines[:-2]))
    assert "action 1: was noted, but is not in the trail" in conpet("audit", "verify", file, "--head", noted).out
    with closing(sqlite3.connect(workspace / "actions.sqlite")) as raw, raw:
        raw.execute("UPDATE action SET actor = 'nobody' WHERE id = 1")
    assert "action 1: was changed after it was recorded" in conpet("audit", "verify", workspace).out


def recorded(workspace: Path, *texts: str, at: float | None = None) -> PredictionLog:
    log = PredictionLog(workspace)
    answers = [Prediction("no", 0.8, "cards", 2, generation=4) for _ in texts]
    log.append(log.rows("r", [Example.of_text(text) for text in texts], answers, with_text=True, at=at))
    log.close()
    return log


def in_record(log: PredictionLog, *statements: str) -> None:
    with closing(sqlite3.connect(log.file)) as raw, raw:
        for statement in statements:
            raw.execute(statement)


FORGET_COUNTS = ("DELETE FROM hour", "UPDATE sqlite_sequence SET seq = 1 WHERE name = 'prediction'")


def test_predictions_cut_off_are_found_by_a_head_a_later_change_and_a_later_pruning(workspace: Path) -> None:
    log = recorded(workspace, "a", "b")
    noted = head_of(workspace)
    assert "~2:" in noted
    commit(Store.open(workspace), learn("news"))
    assert conpet("audit", "verify", workspace, "--head", noted.upper()).code == 0
    in_record(log, "DELETE FROM prediction WHERE id = 2", *FORGET_COUNTS)
    assert "prediction 2: event 5 noted it, but it is not in the record" in conpet("audit", "verify", workspace).out
    assert "prediction 2: the head noted it" in conpet("audit", "verify", workspace, "--head", noted).out
    for file in workspace.glob("predictions.sqlite*"):
        file.unlink()
    assert "entry 2 event 5 noted is not here" in conpet("audit", "verify", workspace).out
    assert "there is no record of predictions" in conpet("audit", "verify", workspace, "--head", noted).out
    recorded(workspace, "a", "b")  # a new one in its place
    assert "entry 2 event 5 noted is not here" in conpet("audit", "verify", workspace).out


def test_each_pruning_is_an_action_and_a_note_of_pruning_cannot_be_made_without_one(workspace: Path) -> None:
    recorded(workspace, "old", "older", at=1_700_000_000.0)
    log = recorded(workspace, "new", "newer")
    assert "2 entries deleted" in conpet("audit", "prune", workspace, "--older-than", "5d").out
    assert conpet("audit", "verify", workspace).out == f"{workspace}: history and content are as recorded\n"
    (action,) = conpet("audit", "actions", workspace, "--json").json
    assert (action["verb"], action["detail"]["number"], action["detail"]["through"]) == ("predictions-pruned", 2, 2)
    with closing(sqlite3.connect(log.file)) as raw:
        (digest,) = raw.execute("SELECT hex(digest) FROM prediction WHERE id = 3").fetchone()
    in_record(
        log,
        f"UPDATE note SET number = 3, digest = x'{digest}'",  # noqa: S608 - a digest
        "DELETE FROM prediction WHERE id = 3",
        "UPDATE hour SET number = 1",
    )
    out = conpet("audit", "verify", workspace).out
    assert "predictions up to 3 are missing, and no action says that they were pruned" in out


def test_a_broken_history_is_not_signed_and_no_checkpoint_is_replaced(workspace: Path, tmp_path: Path) -> None:
    key, checkpoint = tmp_path / "key.pem", tmp_path / "checkpoint.json"
    conpet("audit", "key", key)
    sign = ("audit", "sign", workspace, "--key", key, "-o")
    assert conpet(*sign, checkpoint).code == 0
    again = conpet(*sign, checkpoint)
    assert (again.code, "never replaced" in again.err) == (1, True)
    with closing(sqlite3.connect(workspace / "workspace.sqlite")) as raw, raw:
        raw.execute("UPDATE event SET actor = 'bob' WHERE id = 3")
    broken = conpet(*sign, tmp_path / "second.json")
    assert broken.code == 1
    assert "first: event 3: was changed after it was recorded" in " ".join(broken.err.split())
    assert not (tmp_path / "second.json").exists()
    exported = conpet("audit", "export", workspace, "-o", tmp_path / "history.jsonl")
    assert "the history is not as recorded: event 3" in " ".join(exported.err.split())


def test_a_key_that_is_twice_in_an_exported_history_is_an_error(workspace: Path, tmp_path: Path) -> None:
    file = tmp_path / "history.jsonl"
    conpet("audit", "export", workspace, "-o", file)
    file.write_text(file.read_text().replace('"verb": "learn"', '"verb": "remove", "verb": "learn"'))
    assert "the key 'verb' is there twice" in " ".join(conpet("audit", "verify", file).err.split())


def test_a_version_follows_its_task_in_trace(workspace: Path) -> None:
    assert conpet("audit", "trace", workspace, "cards", 1, "--json").json["version"] == 1
    assert conpet("audit", "trace", workspace, "cards", 1, "--version", 2).code == 2


def test_an_unknown_task_or_label_is_said_when_no_prediction_is_found(workspace: Path) -> None:
    recorded(workspace, "a")
    result = conpet("audit", "predictions", workspace, "--task", "card", "--label", "maybe")
    assert result.out == "no recorded prediction is like that\n"
    assert "no task 'card' now; did you mean 'cards'?" in result.err
    assert "no label 'maybe' now" in result.err
    assert conpet("audit", "predictions", workspace, "--decision", "decline").err == ""
