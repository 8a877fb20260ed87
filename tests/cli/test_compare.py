"""`conpet compare`: a table of learners, a recommendation, and the commands to follow it."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from conpet import ConPET, comparison
from conpet.data.stream_writer import write_stream
from conpet.report.comparison import ComparisonReport, LearnerResult
from conpet.testing import toy_stream
from tests.helpers.cli import conpet, write_rows

QUICK = ("--backbone", "tiny-random", "--set", "training.epochs=2")


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "my tasks"
    write_stream(toy_stream(2, 2, 8, 12, 2), folder)
    return folder


def made(**changes: object) -> ComparisonReport:
    """Return a report in which a consolidated learner is chosen, and another failed."""
    costs = {"seconds": 6120.0, "cpu_seconds": 140.0, "ms_per_answer": 2.5, "bytes_stored": 24_900_000}
    lda = LearnerResult(
        learner="lda", correct=70, only_it=2, only_best=22, p_value=3.6e-5, passes_per_example=1, **costs
    )
    best = LearnerResult(
        learner="dynamic+consolidate",
        correct=90,
        only_it=0,
        only_best=0,
        p_value=1,
        passes_per_example=23.9,
        fall=1.3,
        **costs,
    )
    report = ComparisonReport(
        backbone="minilm-l6",
        tasks=("a", "b"),
        labels=4,
        train=80,
        validation=100,
        measured=100,
        distinct=100,
        divisions=1,
        seed=0,
        settings={},
        results=(lda, best),
        failed={"dynamic": "training diverged"},
        best=best.learner,
        chosen=best.learner,
        reading_seconds=1.0,
    )
    return report.model_copy(update=changes)


def test_the_printed_commands_learn_the_data_with_the_chosen_learner(tasks: Path, tmp_path: Path) -> None:
    reading = ("--label-column", "label", "--encoding", "cp1252")
    found = conpet("compare", tasks, "--learners", "dynamic,lda", "--seed", 3, *QUICK, "--json", *reading)
    assert found.code == 0, found.err
    assert [one["learner"] for one in found.json["results"]] == ["dynamic", "lda"]
    assert (found.json["measured"], found.json["seed"]) == (24, 3)
    assert found.json["commands"][1].endswith("--label-column label --encoding cp1252")
    for command in found.json["commands"]:
        program, *arguments = shlex.split(command.replace("WORKSPACE", shlex.quote(str(tmp_path / "ws"))))
        assert program == "conpet"
        assert conpet(*arguments).code == 0
    learned = ConPET.open(tmp_path / "ws")
    assert learned.settings.method.name == found.json["chosen"]
    assert (learned.settings.seed, learned.settings.training.epochs, len(learned.tasks)) == (3, 2, 2)


def test_a_table_and_a_recommendation_are_printed(tasks: Path) -> None:
    found = conpet("compare", tasks, "--learners", "lda", *QUICK)
    assert found.code == 0, found.err
    assert "24 examples are measured: a difference of two learners below 25.0 points" in found.out
    assert "use lda (" in found.out
    assert "expected time: about " in found.err
    assert f"conpet learn WORKSPACE '{tasks}'" in found.out


def test_several_divisions_are_said_and_counted(tasks: Path) -> None:
    found = conpet("compare", tasks, "--learners", "lda", "--divisions", 2, *QUICK)
    assert found.code == 0, found.err
    assert "division 2 of 2, lda" in found.err
    assert "in 2 divisions (all figures are means)" in found.out
    assert "validation examples in 2 divisions)" in found.out


def test_a_consolidation_that_needs_a_bound_says_so(tasks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "compare_learners", lambda *_, **__: made())
    found = conpet("compare", tasks)
    assert "dynamic: training diverged" in found.out
    assert "lowered accuracy on the learners' validation examples by 1.3 points" in found.out
    assert "use dynamic+consolidate (90.0% of 100 validation examples): it is the most accurate, and all" in found.out
    assert "conpet init WORKSPACE --method dynamic\n" in found.out
    assert "conpet consolidate WORKSPACE --bound 2\n" in found.out
    row = next(line for line in found.out.splitlines() if line.startswith("lda"))
    assert row.split()[1:] == ["70.0%", "60.4–78.1", "−20.0", "<0.001", "6,120", "1", "2.5", "24.9", "MB"]


def test_learners_that_the_examples_cannot_tell_apart_are_named() -> None:
    lda, best = made().result("lda").model_copy(update={"p_value": 0.14}), made().result("dynamic+consolidate")
    assert str(made(results=(lda, best), chosen="lda")) == (
        "use lda (70.0% of 100 validation examples): the cheapest of those that these examples cannot tell apart (also "
        "dynamic+consolidate); most accurate: dynamic+consolidate, 90.0%: take it if 20.0 points that may be chance "
        "are worth its cost"
    )


def test_wrong_data_and_options_are_refused(tasks: Path, tmp_path: Path) -> None:
    wrong = write_rows(tmp_path / "wrong.jsonl", [{"text": "", "label": "x"}])
    few = write_rows(tmp_path / "few.jsonl", [{"text": f"text {at}", "label": "ab"[at % 2]} for at in range(20)])
    for arguments, code, message in (
        (["nosuch"], 1, "no such file or folder"),
        ([wrong], 1, "row 1"),
        ([few], 1, "too few validation examples"),
        ([tasks, "--learners", "ldaa"], 1, "ldaa"),
        ([tasks, "--set", "seed=3", "--seed", 4], 2, "seed has an option of its own"),
    ):
        result = conpet("compare", *arguments)
        assert result.code == code
        assert message in result.err


def test_ctrl_c_is_no_error(tasks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(comparison, "compare_learners", interrupted)
    result = conpet("compare", tasks)
    assert (result.code, result.err.splitlines()[-1]) == (130, "stopped: the temporary workspaces are deleted")
