"""`conpet cost`, prices and review on the command line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from conpet import ConPET
from tests.helpers.cli import QUICK, STREAM, conpet, taught, write_rows


@pytest.fixture(scope="module")
def priced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a workspace with prices, answers and review."""
    made = taught(tmp_path_factory.mktemp("priced"))
    prices = ("--cpu-hour", 3600, "--gb-month", 0.02, "--kwh", 0.25, "--cpu-watts", 20, "--gpu-watts", 300)
    scored = ("--wrong-answer", 2, "--answers", 100_000, "--late-day", 5, "--currency", "CHF")
    weights = ("--freshness-weight", 2, "--update-weight", 3, "--running-weight", 4, "--review-weight", 5)
    more = ("--gpu-hour", 2, "--review-hour", 60, "--quality", "accuracy")
    assert conpet("costs", "set", made, *prices, *scored, *weights, *more).code == 0
    texts = [example.text for task in STREAM for example in task.test]
    source = write_rows(made.parent / "in.jsonl", [{"text": text} for text in texts])
    assert conpet("predict", made, "-i", source, "-o", made.parent / "out.jsonl").code == 0
    assert conpet("costs", "add-review", made, 30, "--task", "text-0", "--note", "labels").code == 0
    return made


def test_prices_are_shown_and_are_those_of_the_library(priced: Path) -> None:
    shown = conpet("costs", "show", priced, "--json").json["prices"]
    assert shown == ConPET.open(priced).costs.prices.model_dump(mode="json")
    assert {name: shown[name] for name in ("currency", "cpu_watts", "review_weight", "answers", "kwh")} == {
        "currency": "CHF",
        "cpu_watts": 20,
        "review_weight": 5,
        "answers": 100_000,
        "kwh": 0.25,
    }
    assert "wrong_answer 2" in conpet("costs", "show", priced).out


def test_the_report_is_that_of_the_library(priced: Path) -> None:
    expected = ConPET.open(priced).cost()
    found = conpet("cost", priced, "--json").json
    assert found["answers"] == expected.answers == 16
    assert found["tasks"] == expected.to_json()["tasks"]
    assert found["versions"][0]["updates"] == expected.versions[0].updates
    printed = conpet("cost", priced)
    for words in ("learn", "predict", "30 min", "text-1", "learning everything anew each time", "CHF spent", "kWh"):
        assert words in printed.out
    assert "estimate" in printed.out
    assert "without a price" not in printed.err


def test_versions_are_listed_with_their_score(priced: Path) -> None:
    printed = conpet("cost", priced, "--by-version").out
    assert "learn text-1" in printed
    assert "lower is better" in printed
    assert "* an estimate" in printed
    versions = conpet("cost", priced, "--json").json["versions"]
    assert [version["tasks"] for version in versions] == [["text-0"], ["text-1"]]
    score = versions[1]["score"]
    assert score["total"] == pytest.approx(sum(value for name, value in score.items() if name != "total"))
    assert score["review"] == pytest.approx(5 * 30 / 100)


def test_a_delay_counts_from_the_day_of_need(tmp_path: Path) -> None:
    made = taught(tmp_path)
    rows = [{"text": f"word{number} {label}", "label": label} for number in range(6) for label in ("new a", "new b")]
    since = datetime.now(UTC).date() - timedelta(days=4)
    source = write_rows(tmp_path / "late.jsonl", rows)
    learned = conpet("learn", made, source, "--all-rows", "--no-gate", "--no-evaluate", "--needed-since", since)
    assert learned.code == 0
    late = conpet("cost", made, "--json").json["versions"][-1]["late_days"]
    assert late == 2 * 4
    more = write_rows(tmp_path / "more.jsonl", [{"text": "word7 again", "label": "new a"}])
    for mode in (("--extend",), ("--mixed", "--all-rows")):
        assert conpet("learn", made, more, *mode, "--no-gate", "--needed-since", since).code == 0
    for wrong, message in (("yesterday", "is not a day like"), ("2999-01-01", "in the future")):
        refused = conpet("learn", made, source, "--needed-since", wrong)
        assert refused.code == 2
        assert message in refused.err


def test_what_is_not_set_or_wrong_is_said(tmp_path: Path) -> None:
    made = taught(tmp_path)
    plain = conpet("cost", made)
    assert plain.code == 0
    assert "without a price, so not counted: --cpu-hour, --gb-month" in plain.err
    assert "composite scores need --wrong-answer and --answers" in plain.err
    assert conpet("costs", "set", made, "--quality", "luck").code == 1
    assert conpet("costs", "set", made, "--kwh", -1).code == 2
    assert conpet("costs", "set", made, "--answers", 0).code == 2
    assert "no task 'x'" in conpet("costs", "add-review", made, 5, "--task", "x").err
    assert conpet("costs", "add-review", made, 5).code == 0
    assert "2.5 minutes of review so far" in conpet("costs", "add-review", made, "-2.5", "--note", "typing error").out
    assert "only 2.5 minutes were entered" in conpet("costs", "add-review", made, "--", -3).err
    assert "at most 1,000,000 minutes in one entry" in conpet("costs", "add-review", made, 1e9).err
    assert "no workspace" in conpet("cost", tmp_path / "nowhere").err


def test_a_workspace_whose_gate_needs_prices_says_so_when_it_is_made(tmp_path: Path) -> None:
    options = (*QUICK, "--set", "gate.objective=composite")
    made = conpet("init", tmp_path / "ws", *options)
    assert (made.code, "nothing can be learned yet: gate.objective=composite needs" in made.err) == (0, True), made.err
    prices = ("--set", "prices.wrong_answer=2", "--set", "prices.answers=1000")
    assert "nothing can be learned" not in conpet("init", tmp_path / "priced", *options, *prices).err
