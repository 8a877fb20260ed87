"""A search for a design on the command line, in the history and in the report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conpet import ConPET
from conpet.commands.report import History, evaluated, overall, report_data
from conpet.config.base import flat
from conpet.report.data import ReportData, Verb
from conpet.report.design import Design
from conpet.report.page import render_page
from tests.helpers.cli import QUICK, conpet, write_rows, write_stream
from tests.helpers.workspaces import frozen_state, stream, workspace
from tests.report.test_page import Page

FAST = {"epochs": 2, "warmups": ["none"]}


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> ConPET:
    """Return a workspace that searched, learned two tasks and searched again."""
    learner = workspace(tmp_path_factory.mktemp("tuned"))
    learner.tune(stream()[0], trials=3, choices=FAST | {"adapted": [1.0]})
    for task in stream()[:2]:
        learner.learn(task)
    learner.tune(stream()[2], trials=2, choices=FAST)
    return learner


def test_a_search_is_in_the_history_and_changes_no_accuracy(tuned: ConPET) -> None:
    data = report_data(tuned.store)
    assert [event.verb for event in data.events] == [Verb.TUNE, Verb.LEARN, Verb.LEARN, Verb.TUNE]
    assert [event.version for event in data.events] == [None, 1, 1, None]
    assert [event.task for event in data.answering] == ["text-0", "text-1"]
    search = data.events[-1].cost["search"]
    assert search.optimiser_steps == sum(trial.steps for trial in data.design.trials) > 0
    fresh = tuned.evaluate()
    last = overall(data)
    assert last.task == "text-1"
    assert data.summary["whole_accuracy"] == last.whole_accuracy == fresh.whole_accuracy
    assert data.summary["tasks"] == ["text-0", "text-1"]  # the third was only searched on
    assert data.selector_confusion == fresh.selector_confusion
    again = evaluated(data, fresh)
    assert (again.summary, again.events) == (data.summary, data.events)
    assert fresh.matrix.rows[-1].learned == "text-1"
    assert len(fresh.matrix.rows) == 2


def test_the_report_holds_what_was_tried_and_chosen(tuned: ConPET) -> None:
    data = report_data(tuned.store)
    assert ReportData.from_json(data.to_json()) == data
    assert (data.design.task, len(data.design.trials), data.design.applied) == ("text-2", 2, True)
    assert data.design.choice.design.rank == tuned.settings.module.rank
    assert data.workspace.backbone.frozen_layers == tuned.settings.backbone.frozen_layers
    assert History(tuned.store).events()[:2] == data.events[:2]
    page = Page(render_page(data))
    assert ("href", "#design") in page.attributes
    assert "2 designs tried on task text-2" in page.text
    assert "Frozen layers and warm-up stay unchanged" in page.text
    assert "tune: text-0" in page.text
    assert "learn text-0" in page.text
    assert "tune text-2 v" not in page.text


def test_a_page_without_a_search_has_no_design(tmp_path: Path) -> None:
    page = Page(render_page(report_data(workspace(tmp_path, tasks=1).store)))
    assert ("href", "#design") not in page.attributes
    assert "equivalent" not in page.text


def test_only_searched_nothing_is_learned_yet(tmp_path: Path) -> None:
    learner = workspace(tmp_path)
    learner.tune(stream()[0], trials=1)
    data = report_data(learner.store)
    assert overall(data) is None
    assert "Nothing has been learned yet." in Page(render_page(data)).text
    assert "has learned nothing yet" in conpet("evaluate", learner.path).out


def test_the_first_task_of_a_stream_is_searched_on_from_the_command_line(tmp_path: Path) -> None:
    made, tasks = tmp_path / "ws", write_stream(tmp_path / "stream")
    assert conpet("init", made, *QUICK).code == 0
    with frozen_state(ConPET.open(made)):
        tried = conpet("tune", made, tasks, "--trials", 2, "--dry-run")
    assert tried.code == 0
    assert "1 before" in tried.out
    assert "nothing changed" in tried.out
    found = conpet("tune", made, tasks, "--trials", 2, "--json")
    assert (found.code, found.json["task"], len(found.json["trials"])) == (0, "text-0", 2)
    chosen = Design.model_validate(found.json["trials"][found.json["chosen"] - 1]["design"]).for_workspace
    settings = flat(ConPET.open(made).settings.to_json())
    assert {key: settings[key] for key in chosen} == json.loads(json.dumps(chosen))
    assert conpet("learn", made, tasks).code == 0
    by_name = conpet("tune", made, "text-1", "--trials", 1)
    assert "frozen layers and warm-up stay" in by_name.out
    assert "no better design: the settings are unchanged" in by_name.out
    assert "example" in by_name.out
    shown = conpet("modules", "show", made, "text-1", "--json").json
    assert [event["verb"] for event in shown["history"]] == ["learn", "tune"]


def test_the_command_line_refuses_what_it_cannot_search_on(tmp_path: Path) -> None:
    learner = workspace(tmp_path, tasks=1)
    wrong = write_rows(tmp_path / "wrong.jsonl", [{"text": "", "label": "x"}])
    columns = tmp_path / "columns.csv"
    columns.write_text("words,label\n ,x\n")
    for arguments, message in (
        (["nosuch", "--trials", 1], "no learned task of this name; learned: text-0"),
        ([columns, "--trials", 1, "--text-column", "words"], "row 2: empty text"),
        ([columns, "--trials", 1], "no column named text"),
        (["text-0"], "give seconds, passes (forward-pass equivalents) or trials"),
        ([wrong, "--trials", 1], "row 1"),
    ):
        result = conpet("tune", learner.path, *arguments)
        assert result.code == 1
        assert message in result.err
    assert conpet("tune", learner.path, "text-0", "--trials", 1, "--encoding", "cp1252").code == 2


def test_ctrl_c_leaves_the_workspace_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = workspace(tmp_path, tasks=1)

    def interrupted(self: ConPET, *_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ConPET, "tune", interrupted)
    with frozen_state(learner):
        result = conpet("tune", learner.path, "text-0", "--trials", 1)
    assert (result.code, result.err.splitlines()[-1]) == (130, "stopped: nothing changed")
