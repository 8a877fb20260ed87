"""Accuracy over time, read in parts, is that of the report; and what was spent since a moment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from conpet.commands import accuracy_history
from conpet.commands.accuracy_history import AccuracyHistory
from conpet.commands.cost import spent_since
from conpet.commands.report import report_data
from tests.helpers.workspaces import stream, workspace


def test_the_course_is_that_of_the_report_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accuracy_history, "_CHUNK", 2)
    learner = workspace(tmp_path, 2)
    followed = AccuracyHistory(learner.path)
    first = followed.points()
    learner.set_costs(error=2)  # changes no answer
    learner.learn(stream()[2], gate=False)
    learner.rename(stream()[0].labels[0], "renamed", evaluate=False, gate=False)
    points = followed.points()
    assert points[: len(first)] == first
    events = [event for event in report_data(learner.store).events if event.changes_answers]
    assert [(one.verb, one.task, one.version, one.whole, one.average, one.forgetting) for one in points] == [
        (str(one.verb), one.task, one.version, one.whole_accuracy, one.average_accuracy, one.forgetting)
        for one in events
    ]
    assert [(one.tasks, one.tested) for one in points] == [(1, 8), (2, 16), (3, 24), (0, 0)]


def test_what_was_spent_since_a_moment_is_part_of_the_whole(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2)
    learner.set_costs(prices={"currency": "JPY", "cpu_hour": 3600.0, "review_hour": 60.0})
    learner.add_review(5.0)
    now = datetime.now(UTC)
    everything, currency = spent_since(learner.store, now - timedelta(days=365))
    assert currency == "JPY"
    assert everything == pytest.approx(learner.cost().money - learner.cost().storage_money)
    assert everything > 5.0
    assert spent_since(learner.store, now + timedelta(hours=2)) == (0.0, "JPY")
