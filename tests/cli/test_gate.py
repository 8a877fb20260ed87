"""`conpet gate`, `conpet candidates` and `conpet promote`."""

from __future__ import annotations

from pathlib import Path

from conpet import ConPET
from tests.helpers.cli import conpet, write_rows
from tests.helpers.gate import BROKEN, TAKER, harmful, learned

WIDE = ("--set", "gate.label_margin=99", "--set", "task_margin=90", "--set", "whole_margin=90")


def test_a_refused_learn_is_shown_judged_again_and_made(tmp_path: Path) -> None:
    path = learned(tmp_path).path
    data = write_rows(tmp_path / "harmful.jsonl", ({"text": one.text, "label": one.label} for one in harmful().train))
    refused = conpet("learn", path, data, "--all-rows", "--no-evaluate")
    assert refused.code == 1
    assert f"label '{BROKEN}'" in refused.err
    assert f"conpet gate {path} 1" in refused.err

    shown = conpet("gate", path)
    assert shown.code == 1
    assert "candidate 1 (learn 'harmful'" in shown.out
    assert TAKER in shown.out
    document = conpet("gate", path, 1, "--json")
    assert (document.code, document.json["refused"], document.json["candidate"]) == (1, True, 1)
    assert conpet("gate", path, *WIDE).code == 0
    assert conpet("gate", path, "--set", "margin=3").code == 1

    still = conpet("promote", path)
    assert (still.code, "stays candidate 1" in still.err) == (1, True)
    (record,) = conpet("candidates", path, "--json").json
    assert (record["number"], record["verb"], record["outdated"]) == (1, "learn", False)
    assert "learn" in conpet("candidates", path).out
    made = conpet("promote", path, 1, "--no-gate")
    assert made.code == 0
    assert "the change is made (learn 'harmful')" in made.out
    assert TAKER in ConPET.open(path).labels


def test_a_candidate_is_discarded_and_a_change_is_made_without_the_gate(tmp_path: Path) -> None:
    path = learned(tmp_path).path
    data = write_rows(tmp_path / "harmful.jsonl", ({"text": one.text, "label": one.label} for one in harmful().train))
    assert conpet("learn", path, data, "--all-rows", "--no-evaluate").code == 1
    assert "candidate 1: discarded" in conpet("candidates", path, "--discard", 1).out
    assert conpet("candidates", path).out.startswith(f"{path} has no candidates")
    assert conpet("candidates", path, "--discard", 1).code == 1
    missing = conpet("gate", path)
    assert (missing.code, "no candidate" in missing.err) == (1, True)
    assert conpet("learn", path, data, "--all-rows", "--no-evaluate", "--no-gate").code == 0
    (event,) = conpet("modules", "show", path, "harmful", "--json").json["history"]
    assert event["detail"]["gate"] == {"verdict": "off"}
