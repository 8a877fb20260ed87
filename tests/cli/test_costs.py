from __future__ import annotations

import csv
import json
from pathlib import Path

from conpet import ConPET
from tests.helpers.cli import STREAM, conpet, taught, write_rows


def test_costs_are_set_and_shown(tmp_path: Path) -> None:
    workspace = taught(tmp_path)
    first = conpet("costs", "show", workspace)
    assert "costs: error 10, question 2, refusal 1" in first.out
    assert "nothing is promised: 8 held-out examples of learned labels, 20 are needed" in first.out
    changed = conpet("costs", "set", workspace, "--error", 30, "--refusal", 0.5)
    assert changed.code == 0
    assert "costs: error 30, question 2, refusal 0.5" in changed.out
    shown = conpet("costs", "show", workspace, "--json").json
    assert (shown["error"], shown["question"], shown["refusal"], shown["coverage"]) == (30, 2, 0.5, None)
    assert [kind["kind"] for kind in shown["kinds"]] == ["text"]
    wanted = conpet("costs", "set", workspace, "--coverage", 0.9).out
    assert "coverage: 0.9 (where it cannot be promised, the costs decide: error 30" in wanted
    assert ConPET.open(workspace).costs.coverage == 0.9
    assert conpet("report", workspace).code == 0


def test_wrong_costs_are_refused_with_what_to_give(tmp_path: Path) -> None:
    workspace = taught(tmp_path)
    assert conpet("costs", "set", workspace, "--error", -1).code == 2
    for options in ((), ("--coverage", 1.5), ("--coverage", 0.9, "--error", 3)):
        refused = conpet("costs", "set", workspace, *options)
        assert refused.code == 1
        assert "coverage" in refused.err
    nothing = conpet("costs", "set", workspace, "--error", 0, "--question", 0, "--refusal", 0)
    assert (nothing.code, "are all 0" in nothing.err) == (1, True)
    missing = conpet("costs", "show", tmp_path / "nowhere")
    assert missing.code == 1
    assert "nowhere" in missing.err


def test_files_say_what_to_do_with_each_input(tmp_path: Path) -> None:
    workspace, target = taught(tmp_path), tmp_path / "out.csv"
    conpet("costs", "set", workspace, "--question", 0.01)
    texts = [task.test[0].text for task in STREAM] + ["completely different words", "the weather is nice"]
    source = write_rows(tmp_path / "in.jsonl", [{"text": text} for text in texts])
    done = conpet("predict", workspace, "-i", source, "-o", target)
    assert " ask, " in done.err
    rows = list(csv.DictReader(target.read_text(encoding="utf-8").splitlines()))
    expected = ConPET.open(workspace).predict(texts)
    assert [row["decision"] for row in rows] == [one.decision for one in expected]
    assert "ask" in {row["decision"] for row in rows}
    for row in rows:
        assert row["label"]
        assert row["reason"]
        assert 0 <= float(row["confidence"]) <= float(row["in_scope"]) <= 1
        if row["decision"] == "ask":
            assert row["label"] == json.loads(row["candidates"])[0]
            assert 0 < float(row["candidates_score"]) <= 1
        else:
            assert row["candidates"] == row["candidates_score"] == ""
    lines = conpet("predict", workspace, *texts, "--json").rows
    assert [line["decision"] for line in lines] == [one.decision for one in expected]
