from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conpet.api import ConPET
from conpet.commands.report import History, evaluated, overall, report_data
from conpet.evaluation.history import Standing
from conpet.evaluation.metrics import AccuracyMatrix, Row, Tally, backward_transfer, forgetting
from conpet.report import text
from conpet.report.data import Verb
from conpet.report.page import render_page
from conpet.report.tables import tasks_table
from conpet.report.view import PageView
from tests.helpers.cli import taught
from tests.helpers.workspaces import workspace

TALLIES = st.dictionaries(st.sampled_from("abcd"), st.integers(0, 5).map(lambda correct: Tally(correct, 5)))
HISTORIES = st.lists(st.builds(Row, st.sampled_from([None, *"abcd"]), TALLIES), max_size=8)


@given(HISTORIES)
def test_standing_gives_the_metrics_of_the_whole_matrix(rows: list[Row]) -> None:
    standing = Standing()
    for number, row in enumerate(rows, start=1):
        whole, short = AccuracyMatrix(tuple(rows[:number])), standing.followed_by(row)
        assert forgetting(short) == pytest.approx(forgetting(whole))
        assert backward_transfer(short) == pytest.approx(backward_transfer(whole))


def test_a_report_tells_what_was_recorded(tmp_path: Path) -> None:
    workspace = ConPET.open(taught(tmp_path))
    data = report_data(workspace.store)
    fresh = workspace.evaluate()
    last = data.events[-1]
    assert [event.verb for event in data.events] == [Verb.LEARN, Verb.LEARN]
    assert last.whole_accuracy == fresh.whole_accuracy
    assert last.forgetting == pytest.approx(forgetting(fresh.matrix))
    assert last.references == {name: one.value for name, one in fresh.references.items()}
    assert data.selector_confusion == fresh.selector_confusion
    assert data.workspace.backbone.parameters == workspace.backbone.parameters
    assert data.workspace.settings["training"]["epochs"] == 2
    assert [task.test for task in data.tasks] == [8, 8]
    version = workspace.tasks[-1].active
    assert last.trainable_parameters == version.parameters
    assert last.trainable_parameters_with_heads == version.parameters + version.head_parameters
    assert {"prefix", "module", "evaluation"} <= set(last.cost)
    assert evaluated(data, fresh).summary == data.summary


def test_the_history_is_read_once(tmp_path: Path) -> None:
    workspace = ConPET.open(taught(tmp_path))
    history = History(workspace.store)
    before = history.events()
    workspace.remove(workspace.tasks[0].name)
    after = history.events()
    assert after[:-1] == before
    assert (after[-1].verb, after[-1].version) == (Verb.REMOVE, 1)
    assert set(after[-1].scores) == {workspace.tasks[0].name}
    assert after == report_data(workspace.store).events


def test_after_a_removal_the_whole_still_tells_what_a_task_trains(tmp_path: Path) -> None:
    workspace = ConPET.open(taught(tmp_path))
    workspace.remove(workspace.tasks[0].name)
    data = report_data(workspace.store)
    whole = overall(data)
    assert whole is not None
    assert data.events[-1].trainable_parameters == 0
    assert whole.trainable_parameters == workspace.tasks[0].active.parameters
    assert whole.total_cost.seconds == pytest.approx(sum(event.total_cost.seconds for event in data.events))


def test_a_new_workspace_has_an_empty_report(tmp_path: Path) -> None:
    workspace = ConPET.create(tmp_path / "new", "tiny-random")
    data = report_data(workspace.store)
    assert (data.tasks, data.events, overall(data)) == ((), (), None)
    assert data.summary["accuracy_matrix"] == []


def test_a_workspace_is_read_without_torch(tmp_path: Path) -> None:
    workspace = taught(tmp_path)
    script = (
        "import sys, json; from conpet.cli import main; from contextlib import redirect_stdout; import io\n"
        "with redirect_stdout(io.StringIO()): codes = [main(line.split()) for line in sys.argv[1:]]\n"
        "print(json.dumps([codes, 'torch' in sys.modules]))"
    )
    verbs = [f"report {workspace}", f"modules list {workspace}", f"modules verify {workspace}", "backbones list"]
    run = subprocess.run([sys.executable, "-c", script, *verbs], capture_output=True, text=True, check=True)
    assert json.loads(run.stdout) == [[0, 0, 0, 0], False]


def test_a_module_that_serves_all_tasks_is_counted_once(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2, method="sequential")
    first, last = (task.active for task in learner.tasks)
    data = report_data(learner.store)
    assert [task.counted_with for task in data.tasks] == [last.task, None]
    assert list(tasks_table(data.tasks).columns[7].cells) == ["shared", text.short_count(last.parameters)]
    kept = next(row for row in PageView(data).parameters if row.name.startswith("Stored"))
    assert kept.number == text.count(last.parameters)
    assert kept.with_heads == text.count(last.parameters + last.head_parameters)
    assert 0 < first.head_parameters < last.head_parameters
    learner.rename(first.labels[0], "another name", evaluate=False)
    assert PageView(report_data(learner.store)).parameters == PageView(data).parameters


def test_a_merged_module_is_counted_once_and_its_head_label_by_label(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2)
    first, last = (task.active for task in learner.tasks)
    learner.merge([first.task, last.task], bound=100.0, evaluate=False)
    kept = next(row for row in PageView(report_data(learner.store)).parameters if row.name.startswith("Stored"))
    assert kept.number == text.count(first.parameters) == text.count(last.parameters)
    assert kept.with_heads == text.count(last.parameters + first.head_parameters + last.head_parameters)


def test_a_warm_up_shows_in_the_fingerprint_and_behind_the_cut(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 1, backbone={"warmup": "first-task"})
    data = report_data(learner.store)
    assert data.workspace.backbone.fingerprint == learner.backbone.fingerprint.digest
    assert f"all layers were first tuned once, on task {learner.tasks[0].name}" in render_page(data)


def test_of_a_closed_form_nothing_is_said_about_tuning(tmp_path: Path) -> None:
    page = render_page(report_data(workspace(tmp_path, 1, method="lda").store))
    assert "method lda" in page
    assert "uning" not in page[: page.index("<h2>Glossary</h2>")].replace("without tuning", "")
    tuned = render_page(report_data(workspace(tmp_path, 1, "tuned").store))
    assert "Dynamic ConPET" in tuned
    assert "Tuning adds" in tuned
