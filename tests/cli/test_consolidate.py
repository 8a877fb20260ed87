"""`conpet consolidate`, `generations` and `restore`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from conpet import ConPET
from conpet.store import Store
from tests.helpers.cli import QUICK, STREAM, conpet, taught, write_stream

FIRST, SECOND = (task.name for task in STREAM)
ONCE = ("--set", "epochs=1", "--bound", 100)


def test_consolidate_tells_what_it_gained_and_how_to_go_back(tmp_path: Path) -> None:
    workspace = taught(tmp_path)
    done = conpet("consolidate", workspace, *ONCE)
    assert done.code == 0
    assert "consolidated 32 training examples" in done.out
    assert "share 0.5;" in done.out
    assert "accuracy on 8 validation examples" in done.out
    back = re.search(r"to go back: conpet restore \S+ (\d+)", done.out)
    assert back
    wrong = conpet("consolidate", workspace, "--bound", "-1")
    assert (wrong.code, "--bound" in wrong.err) == (2, True)  # even if there would be nothing to do
    listed = conpet("generations", workspace, "--json").json
    assert [(row["number"], row["present"], row["consolidated"]) for row in listed] == [
        (int(back[1]), False, 0),
        (int(back[1]) + 1, True, 2),
    ]
    restored = conpet("restore", workspace, back[1])
    assert restored.code == 0
    assert f"as in generation {back[1]}, with 4 labels in 2 tasks" in restored.out
    assert "whole accuracy" in restored.out
    assert conpet("modules", "verify", workspace).code == 0


def test_every_restore_names_a_way_back_that_exists(tmp_path: Path) -> None:
    workspace = taught(tmp_path)
    done = conpet("consolidate", workspace, *ONCE, "--no-evaluate")
    to = re.search(r"to go back: conpet restore \S+ (\d+)", done.out)
    for _ in range(5):
        assert to is not None
        restored = conpet("restore", workspace, to[1], "--no-evaluate")
        assert restored.code == 0, restored.err
        to = re.search(r"to undo this: conpet restore \S+ (\d+)", restored.out)


def test_generations_are_shown_and_dropped(tmp_path: Path) -> None:
    workspace = taught(tmp_path)
    conpet("consolidate", workspace, *ONCE, "--no-evaluate")
    kept, present = conpet("generations", workspace, "--json").json
    shown = conpet("generations", workspace).out
    assert "present" in shown
    assert "2 tasks" in shown
    assert conpet("generations", workspace, "--drop", 99, "--yes").code == 1
    dropped = conpet("generations", workspace, "--drop", kept["number"], "--yes")
    assert f"generation {kept['number']}: dropped" in dropped.out
    again = conpet("restore", workspace, kept["number"])
    assert again.code == 1
    assert "is not kept" in again.err
    assert [row["number"] for row in conpet("generations", workspace, "--json").json] == [present["number"]]


def test_a_report_in_json(tmp_path: Path) -> None:
    workspace = taught(tmp_path)
    report = conpet("consolidate", workspace, *ONCE, "--json").json
    assert (report["examples"], report["validation_examples"]) == (32, 8)
    assert report["whole_accuracy"] is not None


def test_learn_says_when_one_is_due_and_does_it_when_asked(tmp_path: Path) -> None:
    data = write_stream(tmp_path / "stream")
    for name, more in (("plain", ()), ("doubling", ("--consolidate", "doubling"))):
        assert conpet("init", tmp_path / name, *QUICK, "--set", "consolidation.epochs=1").code == 0
        learned = conpet("learn", tmp_path / name, data, *more)
        assert learned.code == 0
        assert ("a consolidation is due: 32 training examples in 2 tasks" in learned.out) == (not more)
        *_, last = learned.out.splitlines()
        ways = ["predict", "report", *([] if more else ["consolidate", "consolidate"])]
        assert learned.out.count("next:") == 1
        assert re.findall(r"conpet (\w+)", last) == ways
        assert last.endswith("--set layers=top") == (not more)
    assert "validation examples" in learned.out
    assert conpet("consolidate", tmp_path / "plain", "--set", "epoch=1").code == 1


def test_wrong_uses_are_refused_before_anything_is_learned(tmp_path: Path) -> None:
    data = write_stream(tmp_path / "stream")
    assert conpet("init", tmp_path / "static", *QUICK, "--method", "emr").code == 0
    refused = conpet("learn", tmp_path / "static", data, "--consolidate", "doubling")
    assert refused.code == 1
    assert "method 'emr' has no consolidation; methods that have one: " in refused.err
    assert Store.open(tmp_path / "static").snapshot().tasks == ()
    for options in (("--consolidate", "always"), ("--consolidate", "doubling", "--extend")):
        assert conpet("learn", tmp_path / "static", data, *options).code == 2


def test_removing_tells_which_kept_generations_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = taught(tmp_path)
    assert conpet("consolidate", workspace, *ONCE).code == 0
    kept = ConPET.open(workspace).generations[0].number
    asked: list[str] = []
    monkeypatch.setattr("typer.confirm", lambda question, **_: asked.append(question))
    label = STREAM[0].labels[0]
    assert conpet("labels", "retire", workspace, label).code == 0
    assert f"Kept generations that contain it are deleted: {kept}" in asked[0]
    assert conpet("modules", "remove", workspace, FIRST).code == 0
    assert "The backbone was consolidated with this task" in asked[1]
    assert "Kept generations" not in asked[1]


def test_rolling_back_behind_a_consolidation_says_that_it_learns_again(tmp_path: Path) -> None:
    workspace = taught(tmp_path)
    opened = ConPET.open(workspace)
    opened.rename(STREAM[0].labels[0], "renamed", evaluate=False)
    assert conpet("consolidate", workspace, *ONCE, "--no-evaluate").code == 0
    listed = conpet("modules", "list", workspace, "--json").json
    assert [row["parameters"] > 0 for row in listed] == [False, True, True]
    rolled = conpet("modules", "rollback", workspace, FIRST, 1)
    assert "learned again from its 16 stored training examples" in rolled.out


def test_a_second_consolidation_without_anything_new_does_nothing(tmp_path: Path) -> None:
    workspace = taught(tmp_path)
    assert conpet("consolidate", workspace, "--bound", 100).code == 0
    before = conpet("generations", workspace, "--json").json
    second = conpet("consolidate", workspace, "--bound", 100)
    assert second.code == 0
    assert "nothing has changed since the last consolidation; nothing done (--again" in second.out
    assert "1 kept generation: " in second.out
    assert conpet("generations", workspace, "--json").json == before
    assert conpet("consolidate", workspace, "--bound", 100, "--again").code == 0
    assert len(conpet("generations", workspace, "--json").json) == len(before) + 1
    top = ("consolidate", workspace, "--set", "layers=top")
    assert "nothing done" in conpet(*top).out
    refused = conpet(*top, "--set", "epochs=3")
    assert (refused.code, "consolidation.epochs has no effect" in refused.err) == (1, True)
    other = ("consolidate", workspace, "--bound", 100, "--set", "share=0.3")
    assert conpet(*other, "--json").json["share"] == 0.3
    assert "nothing done" in conpet(*other).out


def test_an_interrupted_consolidation_says_how_to_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = taught(tmp_path)

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ConPET, "consolidate", interrupted)
    stopped = conpet("consolidate", workspace)
    assert stopped.code == 130
    assert "stopped: nothing was changed. Run the same command to go on; up to 20 s" in stopped.err


def test_no_consolidation_is_advised_without_validation_examples_to_judge_it_by(tmp_path: Path) -> None:
    data = write_stream(tmp_path / "stream")
    assert conpet("init", tmp_path / "ws", *QUICK).code == 0
    for file in sorted(data.rglob("*validation*")):
        file.unlink()
    learned = conpet("learn", tmp_path / "ws", data, "--all-rows")
    assert learned.code == 0
    assert "a consolidation is due" not in learned.out
