"""Verdicts about answers before and after a change."""

from __future__ import annotations

from conpet.config import GateConfig
from conpet.evaluation.answers import AnsweredExample
from conpet.evaluation.gate import AnswerPair, Comparison, GateReport, Level, Verdict, compare

CONFIG = GateConfig(label_margin=10, task_margin=5, whole_margin=2)


def pairs(label: str, task: str, answers: list[tuple[str, str]]) -> list[AnswerPair]:
    """Return examples of a label with their answers before and after."""
    return [
        AnswerPair(
            AnsweredExample(label, before, 0.9, task, task, row), AnsweredExample(label, after, 0.8, task, "new", row)
        )
        for row, (before, after) in enumerate(answers, start=1)
    ]


def found(comparisons: tuple[Comparison, ...], level: Level, name: str = "") -> Comparison:
    (one,) = [each for each in comparisons if each.level is level and each.name == name]
    return one


def test_a_label_that_loses_its_answers_is_broken_and_names_the_taker() -> None:
    taken = pairs("a", "first", [("a", "x")] * 16 + [("a", "a")] * 4)
    same = pairs("b", "first", [("b", "b")] * 20)
    comparisons = compare([*taken, *same], {"a": "first", "b": "first"}, {"x"}, CONFIG)
    broken = found(comparisons, Level.LABEL, "a")
    assert (broken.n, broken.right_before, broken.right_after, broken.fall) == (20, 20, 4, 80.0)
    assert [(taker.label, taker.new, taker.count) for taker in broken.takers] == [("x", True, 16)]
    assert broken.verdict is found(comparisons, Level.TASK, "first").verdict is Verdict.BROKEN
    assert found(comparisons, Level.LABEL, "b").verdict is Verdict.NOT_PROVEN
    assert GateReport(1, CONFIG, comparisons).refused


def test_what_is_lost_and_gained_alike_is_no_fall() -> None:
    swapped = pairs("a", "first", [("a", "x")] * 10 + [("x", "a")] * 10 + [("a", "a")] * 180)
    comparisons = compare(swapped, {"a": "first"}, set(), CONFIG)
    assert found(comparisons, Level.WHOLE).fall == 0.0
    assert {one.verdict for one in comparisons} <= {Verdict.HELD, Verdict.NOT_PROVEN}
    assert found(comparisons, Level.LABEL, "a").verdict is Verdict.HELD


def test_a_label_without_examples_is_not_proven_and_proof_can_be_required() -> None:
    comparisons = compare(pairs("a", "first", [("a", "a")] * 300), {"a": "first", "b": "first"}, set(), CONFIG)
    report = GateReport(1, CONFIG, comparisons)
    assert [one.name for one in report.not_proven] == ["b"]
    assert not report.refused
    assert report.judged(CONFIG.model_copy(update={"require_proof": True})).refused
    assert "not proven for 1 label" in str(report)
    assert report.needed == {Level.LABEL: 29, Level.TASK: 59, Level.WHOLE: 149}
    for level, few in ((Level.LABEL, 29), (Level.TASK, 59), (Level.WHOLE, 149)):
        for n, verdict in ((few, Verdict.HELD), (few - 1, Verdict.NOT_PROVEN)):
            same = compare(pairs("a", "first", [("a", "a")] * n), {"a": "first"}, set(), CONFIG)
            assert [one.verdict for one in same if one.level is level] == [verdict]


def test_many_labels_do_not_make_a_chance_fall_an_alarm() -> None:
    """Of 200 labels, one loses 5 of 10 answers: alone that is far beyond the margin, among 200 it may be chance."""
    few = pairs("a", "first", [("a", "x")] * 5 + [("a", "a")] * 5)
    alone = compare(few, {"a": "first"}, set(), GateConfig(label_margin=2))
    assert found(alone, Level.LABEL, "a").verdict is Verdict.BROKEN
    others = {f"l{number}": "second" for number in range(199)}
    rest = [pair for label in others for pair in pairs(label, "second", [(label, label)] * 10)]
    among = compare([*few, *rest], {"a": "first", **others}, set(), GateConfig(label_margin=2))
    assert found(among, Level.LABEL, "a").verdict is not Verdict.BROKEN


def test_a_task_falls_although_each_of_its_labels_has_too_few_examples_to_say_so() -> None:
    lost = [pair for label in "abcdefgh" for pair in pairs(label, "first", [(label, "x")] * 2)]
    report = GateReport(1, CONFIG, compare(lost, dict.fromkeys("abcdefgh", "first"), set(), CONFIG))
    assert report.fell == {Level.TASK: 1, Level.WHOLE: 1}


def test_nothing_to_compare_is_said() -> None:
    assert str(GateReport(1, CONFIG)) == "there are no held-out examples of earlier labels to compare"
    assert not GateReport(1, CONFIG).refused
