"""What watching reports: values against a reference, alarms with their time, and the windows."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from conpet.errors import ConfigError
from conpet.store.prediction_log import Judged, Watched
from conpet.watching.feedback import accuracy_of
from conpet.watching.report import WatchOptions, WatchReport
from conpet.watching.watch import Baseline, Watch

HOUR = 3600.0
BASELINE = Baseline({"cards": ("lost", "new"), "loans": ("rate", "pay")}, {"text": tuple(range(100))})


def answers(number: int, seed: int = 0, start: float = 0.0, loans: float = 0.5, low: float = 0.0) -> list[Watched]:
    """Return answers a minute apart; a share `low` of them is unlike everything learned."""
    generator = random.Random(seed)
    found = []
    for at in range(number):
        task = "loans" if generator.random() < loans else "cards"
        unlike = generator.random() < low
        scope = -5.0 if unlike else generator.uniform(0, 100)
        label = generator.choice(BASELINE.labels[task])
        decision = "decline" if unlike else "answer"
        inside = 0.1 if unlike else 0.95
        when = start + 60.0 * at
        found.append(Watched(at, when, "text", 1, task, label, inside, inside, decision, 0.9, scope))
    return found


def watched(*parts: Sequence[Watched], **options: object) -> WatchReport:
    watch = Watch(BASELINE, WatchOptions.of(**{"reference": 200, "window": 100, **options}))  # type: ignore[arg-type]
    for part in parts:
        watch.add(part)
    return watch.report()


def test_without_a_change_there_is_no_alarm_and_values_are_near_the_reference() -> None:
    report = watched(answers(2000))
    assert (report.inputs, report.reference, report.complete, report.window) == (2000, 200, True, 100)
    assert report.alarms == ()
    values = {signal.name: (signal.value, signal.reference) for signal in report.signals}
    assert set(values) == {
        *("task cards", "task loans", "label lost", "label new", "label rate", "label pay"),
        *("declined", "asked", "unfit", "selector", "confidence", "scope", "learning"),
    }
    assert all(abs((value or 0) - (reference or 0)) < 0.2 for value, reference in values.values())


def test_new_inputs_and_a_larger_share_are_found_with_their_time_and_a_hint() -> None:
    before = answers(1000)
    report = watched(before, answers(1000, 1, 60_000.0, loans=0.9, low=0.2))
    found = {signal.name: signal for signal in report.alarms}
    assert {"declined", "unfit", "scope", "learning", "task loans"} <= set(found)
    declined = found["declined"]
    assert declined.value is not None
    assert declined.value > 0.1
    assert declined.reference == 0
    assert declined.at is not None
    assert declined.since is not None
    assert 60_000 <= declined.at.timestamp() <= 60_000 + 300 * 60
    assert abs(declined.since.timestamp() - 60_000) <= 100 * 60
    assert "conpet learn" in declined.hint
    assert WatchReport.from_json(report.to_json()) == report


def test_the_parts_in_which_answers_come_do_not_matter() -> None:
    stream = [*answers(700), *answers(500, 1, low=0.3)]
    pieces = [stream[at : at + 37] for at in range(0, len(stream), 37)]
    assert watched(*pieces) == watched(stream)


def test_nothing_is_compared_before_the_reference_is_complete() -> None:
    report = watched(answers(150))
    assert (report.complete, report.reference) == (False, 150)
    assert [signal.name for signal in report.signals] == ["learning"]
    assert watched([]).first is None


def test_reference_and_window_may_be_given_in_time() -> None:
    report = watched(answers(600), reference="2h", window="1h")
    assert (report.reference, report.window) == (120, 61)
    assert watched(answers(600), reference="10m").reference == 50  # never fewer


def test_inputs_of_several_kinds_are_compared_with_their_own_kind() -> None:
    stream = [
        one if at % 2 else replace(one, kind="relation", scope=(one.scope or 0) - 1000)
        for at, one in enumerate(answers(3000))
    ]
    assert watched(stream).alarms == ()


@pytest.mark.parametrize(
    "wrong", [{"false_alarm": 0}, {"false_alarm": 1}, {"reference": 10}, {"reference": "soon"}, {"window": 0}]
)
def test_wrong_options_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        WatchOptions.of(**wrong)  # type: ignore[arg-type]


def feedback(right: int, wrong: int, start: float = 0.0) -> list[Judged]:
    found = [Judged(start + at, "cards", "lost", "lost" if at < right else "new") for at in range(right + wrong)]
    random.Random(0).shuffle(found)
    return found


def test_accuracy_below_that_of_held_out_examples_is_an_alarm() -> None:
    baseline = replace(BASELINE, answered=(200, 190), margin=0.02)
    watch = Watch(baseline, WatchOptions.of(window=100))
    watch.add_feedback(feedback(285, 15))
    (signal,) = [one for one in watch.report().signals if one.name == "accuracy"]
    assert (signal.alarm, signal.reference, watch.alarm) == (False, 0.95, False)
    watch.add_feedback(feedback(60, 40, start=1000.0))
    (signal,) = watch.report().alarms
    assert signal.value == 0.6
    assert signal.since is not None
    assert abs(signal.since.timestamp() - 1000) <= 20
    assert signal.since_input is not None
    assert abs(signal.since_input - 300) <= 20
    assert "--extend" in signal.hint
    few = Watch(replace(BASELINE, answered=(19, 19)), WatchOptions.of())
    few.add_feedback(feedback(0, 100))
    assert (few.alarm, "accuracy" in [one.name for one in few.report().signals]) == (False, False)


def of_tasks(tasks: int, right: int, n: int) -> Baseline:
    """Return tasks with one label each, all with the same held-out answers."""
    names = [f"t{number}" for number in range(tasks)]
    return Baseline(
        {name: (f"label of {name}",) for name in names},
        answered=(tasks * n, tasks * right),
        margin=0.02,
        answered_by_task=dict.fromkeys(names, (n, right)),
        task_margin=0.03,
    )


def of_task(name: str, number: int, share: float, generator: random.Random) -> list[Judged]:
    label = f"label of {name}"
    return [Judged(0.0, name, label if generator.random() < share else "x", label) for _ in range(number)]


def test_a_task_whose_accuracy_falls_is_named_and_the_others_are_not() -> None:
    watch = Watch(of_tasks(20, 190, 200), WatchOptions.of())
    generator = random.Random(0)
    for _ in range(40):
        for number in range(20):
            watch.add_feedback(of_task(f"t{number}", 5, 0.6 if number == 3 else 0.95, generator))
    watch.add_feedback([Judged(0.0, "t1", "label of t1", "never learned")])
    signals = {one.name: one for one in watch.report().signals}
    assert [one.name for one in watch.report().alarms] == ["accuracy t3"]
    fallen = signals["accuracy t3"]
    assert (fallen.reference, "of the task t3" in fallen.meaning, "--extend" in fallen.hint) == (0.95, True, True)
    assert fallen.value is not None
    assert fallen.value < 0.7
    assert (fallen.inputs or 0) <= 100
    assert len(signals) == 21
    # All tasks together may raise as many false alarms as the signal of all together: half each.
    (whole, *each) = signals.values()
    assert sum(1 / one.threshold for one in each) == pytest.approx(1 / whole.threshold)
    few = replace(of_tasks(2, 190, 200), answered_by_task={"t0": (19, 19), "t1": (200, 190)})
    watch = Watch(few, WatchOptions.of())
    watch.add_feedback(of_task("t0", 50, 0.0, generator) + of_task("t1", 5, 1.0, generator))
    assert {one.name for one in watch.report().signals} == {"accuracy", "accuracy t1"}
    only = Watch(of_tasks(1, 190, 200), WatchOptions.of())
    only.add_feedback(of_task("t0", 50, 0.5, generator))
    assert [one.name for one in only.report().signals] == ["accuracy"]


def test_many_tasks_together_hardly_ever_raise_a_false_alarm() -> None:
    alarms = 0
    for run in range(40):
        generator = random.Random(run)
        right = {f"t{number}": (60, sum(generator.random() < 0.9 for _ in range(60))) for number in range(30)}
        watch = Watch(replace(of_tasks(30, 54, 60), answered_by_task=right), WatchOptions.of(false_alarm=0.5))
        for name in right:
            watch.add_feedback(of_task(name, 100, 0.9 - 0.03, generator))
        alarms += watch.alarm
    assert alarms <= 2  # the bound for accuracies is 0.05, or 2 of 40


def test_without_times_alarms_have_the_numbers_of_their_inputs() -> None:
    stream = [replace(one, time=None, id=at) for at, one in enumerate([*answers(1000), *answers(300, 1, low=0.3)], 1)]
    report = watched(stream)
    (declined,) = [signal for signal in report.alarms if signal.name == "declined"]
    assert (report.first, declined.at, declined.since) == (None, None, None)
    assert declined.at_input is not None
    assert declined.since_input is not None
    assert 950 <= declined.since_input <= declined.at_input <= 1300
    rows = report.numbered(range(10, 2000))
    assert {one.at_input for one in rows.alarms} == {(one.at_input or 0) + 9 for one in report.alarms}


def test_accuracy_is_by_time_task_and_label_with_the_labels_that_are_confused() -> None:
    judged = [
        *(Judged(HOUR * at, "cards", "lost", "lost") for at in range(4)),
        Judged(5 * HOUR, "cards", "lost", "new"),
        Judged(5 * HOUR + 1, "loans", "rate", "new"),
        Judged(5 * HOUR + 2, "cards", "lost", "new"),
    ]
    found = accuracy_of(judged, 2)
    assert found.whole is not None
    assert (found.found, found.missing, found.whole.right, found.period) == (7, 2, 4, "hour")
    assert [(one.name, one.right, one.n) for one in found.tasks] == [("cards", 4, 6), ("loans", 0, 1)]
    assert [(one.name, one.right, one.n) for one in found.labels] == [("new", 0, 3), ("lost", 4, 4)]
    assert [(one.right, one.n) for one in found.periods] == [(1, 1)] * 4 + [(0, 3)]
    assert found.confusions == (("new", "lost", 2), ("new", "rate", 1))
    assert found.labels[0].low == 0
    assert 0.5 < found.labels[0].high < 0.6
