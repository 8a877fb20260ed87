"""`conpet review`: the whole way from recorded predictions to examples of the next version."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers.cli import STREAM, conpet, taught, write_rows

FIRST, SECOND = STREAM[0].labels
TEXTS = [f"{example.text} again" for task in STREAM for example in task.test]


@pytest.fixture(autouse=True)
def _reviewer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONPET_ACTOR", "ann")


def test_answers_are_drawn_reviewed_measured_and_learned(tmp_path: Path) -> None:
    folder = taught(tmp_path)
    refused = conpet("review", "draw", folder)
    assert refused.code == 1
    assert "--predictions text" in refused.err
    assert "--predictions text" in conpet("review", "status", folder).err
    assert conpet("audit", "log", folder, "--predictions", "text").code == 0
    assert conpet("predict", folder, *TEXTS).code == 0
    drawn = conpet("review", "draw", folder, "--random", 3, "--uncertain", 1, "--declined", 0, "--json").json
    assert drawn["population"] == len(TEXTS)
    assert "nothing to draw" in conpet("review", "draw", folder).out
    shown = conpet("review", "next", folder, "--candidates", 3)
    assert "item 1 (" in shown.out
    assert "  3. " in shown.out
    numbers: list[int] = []
    while item := conpet("review", "next", folder, "--json").json:
        numbers.append(item["id"])
        choice = ["--label", FIRST] if len(numbers) > 1 else ["--new", "brand new"]
        assert conpet("review", "answer", folder, item["id"], *choice, "--seconds", 30).code == 0
    assert "the verdict is taken back" in conpet("review", "undo", folder).out
    last = conpet("review", "answer", folder, numbers[-1], "--none", "--note", "no topic", "--json").json
    assert (last["state"], last["right"], last["verdicts"][0]["note"]) == ("done", None, "no topic")
    status = conpet("review", "status", folder).out
    assert "new label brand new: 1 item" in status
    assert f"ann: {len(numbers)} verdicts" in status
    accuracy = conpet("review", "accuracy", folder).out
    assert f"of {len(TEXTS)} (95% interval" in accuracy
    assert conpet("review", "accuracy", folder, "--since", "1d", "--json").json["estimate"]["reviewed"] == len(numbers)
    plan = conpet("review", "learn", folder, "--dry-run")
    assert "waits: the label is new" in plan.err
    learned = conpet("review", "learn", folder, "--yes", "--no-gate", "--into", STREAM[1].name, "--json")
    assert {one["task"] for one in learned.json} >= {STREAM[1].name}
    assert "nothing to learn" in conpet("review", "learn", folder, "--yes").out
    assert f"{len(numbers)} verdicts, {len(numbers) / 2:.1f} minutes" in conpet("review", "status", folder).out


def test_plain_texts_are_imported_from_every_format(tmp_path: Path) -> None:
    folder = taught(tmp_path)
    files = {
        "a.txt": "first text\nsecond text\n",
        "b.csv": "text\nthird text\n",
        "c.jsonl": '{"text": "fourth text"}\n',
    }
    for name, content in files.items():
        file = tmp_path / name
        file.write_text(content)
        done = conpet("review", "import", folder, file)
        assert f"{len(content.splitlines()) - (name == 'b.csv')} new item" in done.out, done.err
        assert "0 verdicts" in done.out
    wrong = tmp_path / "d.jsonl"
    wrong.write_text('{"text": "fifth text", "label": ["a", "b"]}\n')
    assert "one label per row" in conpet("review", "import", folder, wrong).err  # a wrong label is not passed over


def test_files_and_label_studio_are_imported_and_exported(tmp_path: Path) -> None:
    folder = taught(tmp_path)
    rows = write_rows(tmp_path / "rows.jsonl", [{"text": "one thing"}, {"text": "another thing", "label": FIRST}])
    assert "2 new items, 0 in review already; 1 verdict" in conpet("review", "import", folder, rows).out
    target, config = tmp_path / "tasks.json", tmp_path / "label.xml"
    assert conpet("review", "export", folder, "-o", target, "--state", "open", "--config", config).code == 0
    (task,) = json.loads(target.read_text())
    assert task["data"]["text"] == "one thing"
    assert FIRST in config.read_text()
    value = {"choices": [SECOND]}
    result = [{"from_name": "label", "to_name": "text", "type": "choices", "value": value}]
    task["annotations"] = [{"result": result, "completed_by": 1, "lead_time": 3.5}]
    target.write_text(json.dumps([task]))
    assert "0 new items, 1 in review already; 1 verdict" in conpet("review", "import", folder, target).out
    assert "changed nothing" in conpet("review", "import", folder, target).err
    task["annotations"][0]["result"][0]["value"]["choices"] = ["a", "b"]
    target.write_text(json.dumps([task]))
    wrong = conpet("review", "import", folder, target)
    assert wrong.code == 1
    assert "2 labels" in wrong.err
    assert len(conpet("review", "export", folder).json) == 2
    assert "unknown state" in conpet("review", "export", folder, "--state", "closed").err
    missing = conpet("review", "import", folder, tmp_path / "nothing.json")
    assert (missing.code, "nothing was imported" in missing.err) == (1, True)


def test_a_report_is_reviewed_first_and_wrong_use_is_named(tmp_path: Path) -> None:
    folder = taught(tmp_path)
    assert "nothing waits" in conpet("review", "next", folder).out
    assert "waits for review" in conpet("review", "report", folder, "a strange answer", "--label", FIRST).out
    shown = conpet("review", "next", folder).out
    assert "reported as wrong 1 time; suggested: " + FIRST in shown
    assert "no answer is recorded" in shown
    assert "with ann until" in conpet("review", "answer", folder, 1, "--skip", "--reviewer", "ben").err
    assert "give one of" in conpet("review", "answer", folder, 1, "--skip", "--none").err
    assert "skipped; others may answer it" in conpet("review", "answer", folder, 1, "--skip").out
    assert "after the slash" in conpet("review", "report", folder, "--request", "abc/x").err
    assert "unknown kind" in conpet("review", "next", folder, "--kind", "odd").err
