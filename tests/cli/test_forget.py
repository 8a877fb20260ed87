"""`conpet forget`: what it asks, prints, writes and refuses."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from conpet import ConPET
from conpet.commands import purge
from conpet.jobs.queue import JobQueue
from conpet.jobs.records import JobKind, JobRequest
from tests.helpers.cli import STREAM, conpet, taught, write_rows

FIRST, SECOND = STREAM
ROWS = [example.text for example in SECOND.train[:2]]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CONPET_HOME", str(tmp_path / "home"))
    return taught(tmp_path)


def texts_of(workspace: Path) -> str:
    return "".join(path.read_text(encoding="utf-8") for path in workspace.glob("objects/memory-*/*.jsonl"))


def test_a_dry_run_says_what_would_happen_and_changes_nothing(workspace: Path) -> None:
    before = conpet("audit", "head", workspace).out
    shown = conpet("forget", workspace, ROWS[0], "--dry-run")
    assert shown.code == 0
    assert shown.out.splitlines()[:3] == [
        "1 row would be forgotten",
        f"  {SECOND.name}: 1 train",
        f"would be learned again: {SECOND.name}",
    ]
    assert "the state cache of all workspaces would be emptied" in shown.out
    assert conpet("forget", workspace, ROWS[0], "--dry-run", "--json").json["rows"] == 1
    assert conpet("audit", "head", workspace).out == before
    assert ROWS[0] in texts_of(workspace)


def test_rows_of_a_file_are_forgotten_with_a_signed_receipt(workspace: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", [{"text": text, "label": "other"} for text in ROWS])
    key, receipt = tmp_path / "key.pem", tmp_path / "receipt.json"
    assert conpet("audit", "key", key).code == 0
    digest = hashlib.sha256(FIRST.test[0].text.encode()).hexdigest()
    options = ("--yes", "--reason", "request 17", "--key", key, "--receipt", receipt)
    done = conpet("forget", workspace, "-i", rows, "--hash", digest, *options)
    assert done.code == 0, done.err
    assert f"  {FIRST.name}: 1 test" in done.out
    assert "nothing is left" in done.out
    assert not any(text in texts_of(workspace) for text in (*ROWS, FIRST.test[0].text))
    document = json.loads(receipt.read_bytes())
    assert (document["reason"], document["rows"], document["complete"]) == (
        "request 17",
        {"train": 2, "validation": 0, "test": 1},
        True,
    )
    assert document == json.loads((workspace / "receipts" / f"{document['generation']}.json").read_bytes())
    checked = conpet("audit", "verify", workspace, "--receipt", receipt, "--public-key", f"{key}.pub")
    assert checked.out.splitlines() == [
        f"{workspace}: history and content are as recorded",
        f"{receipt}: is signed with this key, agrees with the history, and nothing that it deleted is back",
    ]
    assert conpet("audit", "verify", workspace, "--receipt", receipt).code == 1  # without the key
    assert "conpet predict" not in done.err
    assert ConPET.open(workspace).predict([SECOND.train[5].text])[0].label in (*FIRST.labels, *SECOND.labels)


def test_a_changed_receipt_and_one_of_another_workspace_are_found(workspace: Path, tmp_path: Path) -> None:
    receipt = tmp_path / "receipt.json"
    assert conpet("forget", workspace, ROWS[0], "--yes", "--no-evaluate", "--receipt", receipt).code == 0
    assert conpet("audit", "verify", workspace, "--receipt", receipt).code == 0
    document = json.loads(receipt.read_bytes())
    receipt.write_text(json.dumps(document | {"rows": {"train": 7}}), encoding="utf-8")
    changed = conpet("audit", "verify", workspace, "--receipt", receipt)
    assert changed.code == 1
    assert f"event {document['generation']}: the receipt differs from the history in 'rows'" in changed.out
    (tmp_path / "more").mkdir()
    other = conpet("audit", "verify", taught(tmp_path / "more"), "--receipt", receipt)
    assert other.code == 1
    assert "is not in the history" in other.out
    receipt.write_text("{}", encoding="utf-8")
    assert "is not a receipt" in conpet("audit", "verify", workspace, "--receipt", receipt).err


def test_a_receipt_of_a_deletion_that_is_not_complete_is_not_confirmed(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purge, "READERS_SECONDS", 0.1)
    receipt, later = tmp_path / "receipt.json", tmp_path / "later.json"
    with ConPET.open(workspace).store.snapshot():
        done = conpet("forget", workspace, ROWS[0], "--yes", "--no-evaluate", "--receipt", receipt)
    document = json.loads(receipt.read_bytes())
    assert (done.code, document["complete"]) == (1, False)
    (folder, *_) = document["still_read_by_a_process"]
    for said in (document, document | {"complete": True}):
        receipt.write_text(json.dumps(said), encoding="utf-8")
        refused = conpet("audit", "verify", workspace, "--receipt", receipt)
        assert refused.code == 1
        assert f"the deletion is not complete: a process still read objects/{folder}" in refused.out
        assert "the deletion is not complete: the search found text in objects/memory-" in refused.out
        assert "nothing that it deleted is back" not in refused.out
    assert conpet("forget", workspace, "--finish", "--receipt", later).code == 0
    assert conpet("audit", "verify", workspace, "--receipt", later).code == 0


def test_it_asks_before_it_forgets(workspace: Path) -> None:
    asked = conpet("forget", workspace, ROWS[0])
    assert asked.code == 1
    assert "1 row would be forgotten" in asked.err
    assert "This cannot be undone" in asked.err
    assert "the state cache of all workspaces would be emptied" in asked.err
    assert ROWS[0] in texts_of(workspace)
    assert "--yes" in conpet("forget", workspace, "-i", "-").err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name what to forget"),
        (["text", "--finish"], "or only --finish"),
        (["--older-than", "soon"], "is no duration"),
        (["-i", "missing.jsonl"], "no such file"),
        (["--label", "nothing"], "no label 'nothing'"),
        (["--task", "nothing"], "no task 'nothing'"),
        (["nobody said this"], "no stored row matches"),
    ],
)
def test_errors_say_what_to_do(arguments: list[str], said: str, workspace: Path) -> None:
    refused = conpet("forget", workspace, *arguments, "--yes")
    assert refused.code != 0
    assert said in refused.err


def test_what_matches_nothing_is_named_and_a_second_time_says_that_nothing_is_left(workspace: Path) -> None:
    planned = conpet("forget", workspace, ROWS[0], "--id", "8213", "--dry-run")
    assert "1 given row matched nothing that is stored: id 8213" in planned.out
    assert conpet("forget", workspace, ROWS[0], "--dry-run", "--id", "8213", "--json").json["unmatched"] == ["id 8213"]
    assert conpet("forget", workspace, ROWS[0], "--yes", "--no-evaluate").code == 0
    again = conpet("forget", workspace, ROWS[0], "--yes")
    assert (again.code, "forgotten before, nothing is left to do" in again.err) == (1, True)


def test_a_text_that_was_only_predicted_is_cleared_and_the_command_says_so(workspace: Path) -> None:
    assert conpet("audit", "log", workspace, "--predictions", "text").code == 0
    assert conpet("predict", workspace, "nobody learned this").code == 0
    done = conpet("forget", workspace, "nobody learned this", "--yes")
    assert (done.code, done.out.startswith("1 recorded prediction cleared")) == (0, True)
    assert "there is no receipt" in done.err
    assert conpet("audit", "trace", workspace, "--text", "nobody learned this").code == 1


def test_nothing_may_be_old_enough_and_nothing_left_to_finish(workspace: Path) -> None:
    kept = conpet("forget", workspace, "--older-than", "1d", "--yes")
    assert (kept.code, kept.out) == (0, "no stored row is as old; nothing was changed\n")
    assert conpet("forget", workspace, "--finish").out == "nothing is left to complete\n"


def test_an_interrupted_deletion_is_completed_by_the_same_command(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    queue = JobQueue(workspace)
    job = queue.submit(JobRequest(JobKind.CONSOLIDATE))
    queue.log(job.id, f"warning: {ROWS[0]!r} is long")
    monkeypatch.setattr(purge, "finish", interrupted)
    assert conpet("forget", workspace, ROWS[0], "--yes", "--no-evaluate").code == 130
    monkeypatch.undo()
    assert (workspace / "forgetting.json").exists()
    assert "the deletion of event 4 is not complete" in conpet("audit", "verify", workspace).err
    completed = conpet("forget", workspace, ROWS[0])
    assert (completed.code, completed.out) == (0, "receipt: receipts/4.json in the workspace\n"), completed.err
    assert not (workspace / "forgetting.json").exists()
    assert not [path for path in workspace.rglob("*") if path.is_file() and ROWS[0].encode() in path.read_bytes()]
    again = conpet("forget", workspace, ROWS[0], "--yes")
    assert (again.code, "no stored row matches" in again.err) == (1, True)


def test_a_deletion_that_was_killed_before_its_commit_is_not_taken_for_a_complete_one(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(purge, "begin", killed)
    monkeypatch.setattr(purge, "ended", lambda *_: None)
    assert conpet("forget", workspace, ROWS[0], "--yes", "--no-evaluate").code == 130
    monkeypatch.undo()
    said = "is not committed: unless it is still at work, it was killed, and nothing of it is deleted"
    finish = conpet("forget", workspace, "--finish")
    assert (finish.code, finish.out, said in finish.err) == (1, "", True)
    assert said in conpet("audit", "verify", workspace).err
    assert conpet("forget", workspace, ROWS[0], "--yes", "--no-evaluate").code == 0
    assert conpet("forget", workspace, "--finish").out == "nothing is left to complete\n"
    assert conpet("audit", "verify", workspace).err == ""
