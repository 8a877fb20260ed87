"""Data is checked from Python: alone, against a workspace, and before it is learned."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

import conpet
from conpet import Example, Task, check_data, read_stream, read_task
from conpet.commands.plan import plan
from conpet.data.raw import ReadOptions
from conpet.data.stream_layout import STREAM_FILE
from conpet.errors import ConfigError, DataError
from conpet.report.data_check import Severity
from tests.helpers.cli import write_rows
from tests.helpers.workspaces import stream, workspace

TINY = {"backbone": "tiny-random"}
Texts = Sequence[tuple[str, str]]


def written(folder: Path, **subsets: Texts) -> Path:
    for subset, texts in subsets.items():
        write_rows(folder / f"{subset}.jsonl", [{"text": text, "label": label} for text, label in texts])
    return folder


def messy(folder: Path) -> Path:
    """Write a stream of two tasks with one finding of many kinds each."""
    hours = ["when does it open", "opening times please", "until when today", "are you open on monday"]
    fees = ["how much is the fee", "what does a late book cost", "the price of a lost card", "is joining free"]
    first = [*((text, "hours") for text in hours), *((text, "fee") for text in fees)]
    extra = [
        ("how much is the fee", "fee"),  # 9: a duplicate
        ("", "fee"),  # 10: empty
        ("ask for the\u200b price list", "Fee"),  # 11: invisible, a form of fee
        ("mail ada@example.org for the hours", "hours"),  # 12: personal data
        ("is the desk open", "hours"),  # 13: a test input
    ]
    written(folder / "1-desk", train=[*first, *extra], test=[("is the desk open", "hours"), ("cost of a copy", "fee")])
    loans = [("renew my loan", "renew"), ("extend this loan", "renew"), ("return a book", "return")]
    written(folder / "2-loans", train=[*loans, ("bring it back", "return"), ("cost of a copy", "return")], test=[])
    (folder / "2-loans" / "test.jsonl").write_text("")
    return folder


def codes(report: conpet.DataCheckReport) -> dict[str, int]:
    return dict(report.counts)


def test_one_finding_of_each_kind_and_a_copy_without_them(tmp_path: Path) -> None:
    source = messy(tmp_path / "stream")
    before = {path: path.read_bytes() for path in source.rglob("*.jsonl")}
    report = check_data(source, fix=tmp_path / "clean", quick=True)
    assert codes(report) == {
        "invalid-row": 1,
        "leak": 2,
        "label-forms": 1,
        "characters": 1,
        "personal-data": 1,
        "duplicate": 1,
        "few-examples": 1,
        "no-held-out": 1,
        "empty-file": 1,
    }
    assert report.refused
    assert report.remaining == ()
    assert [(row.row, row.action, row.code) for row in report.left_out if "1-desk" in row.file] == [
        (9, "left out", "duplicate"),
        (10, "left out", "invalid-row"),
        (11, "changed", "label-forms"),
        (13, "left out", "leak"),
    ]
    assert before == {path: path.read_bytes() for path in before}
    first, second = read_stream(tmp_path / "clean", all_rows=True)
    assert [task.name for task in (first, second)] == ["1-desk", "2-loans"]
    assert [len(first.train), len(first.test), len(second.train), len(second.test)] == [10, 2, 4, 0]
    assert Example.of_text("ask for the price list", "fee") in first.train
    clean = check_data(tmp_path / "clean", quick=True)
    assert not clean.refused
    assert not {"leak", "duplicate", "label-forms", "characters", "invalid-row"} & codes(clean).keys()


def test_the_list_of_what_was_left_out_has_every_row_with_its_reason(tmp_path: Path) -> None:
    check_data(messy(tmp_path / "stream"), fix=tmp_path / "clean", quick=True)
    rows = [json.loads(line) for line in (tmp_path / "clean" / "left-out.jsonl").read_text().splitlines()]
    assert len(rows) == 5
    changed = next(row for row in rows if row["action"] == "changed")
    assert changed["was"] == {"text": "ask for the\u200b price list", "label": "Fee"}
    assert changed["is"] == {"text": "ask for the price list", "label": "fee"}
    assert all(row["reason"] and row["file"].endswith("train.jsonl") for row in rows)


def test_a_fix_leaves_out_no_file_whose_columns_have_other_names(tmp_path: Path) -> None:
    task = tmp_path / "task"
    task.mkdir()
    rows = ["is it open,a", "what is the fee,b", "until when,a", "the price of it,b"]
    (task / "train.csv").write_text("\n".join(["words,label", *rows]))
    (task / "test.csv").write_text("text,label\nclosed now,a\nis it free,b\n")
    report = check_data(task, quick=True, fix=tmp_path / "clean", options=ReadOptions({"text": "words"}))
    (remaining,) = report.remaining
    assert "test.csv: row 1: no column 'words', given for text" in remaining
    assert not report.left_out


def test_personal_data_is_in_no_report(tmp_path: Path) -> None:
    report = check_data(messy(tmp_path / "stream"), quick=True)
    assert "ada@example.org" not in json.dumps(report.to_json())
    (finding,) = report.of("personal-data")
    assert finding.message == "contains 1 e-mail address"
    assert finding.place.text == "mail [e-mail address] for the hours"


def test_severities_are_those_of_learning() -> None:
    train = tuple(
        Example.of_text(text, label) for text, label in (("a b", "1"), ("c d", "2"), ("e f", "1"), ("g", "2"))
    )
    report = check_data(Task("t", train), quick=True)
    assert not report.refused
    assert report.severities[Severity.ERROR] == 0
    assert report.of("numeric-labels")[0].place.file == "task 't'"
    assert str(report).startswith("t: 4 rows, 1 task, 2 labels: 1 warning")


def test_a_copy_needs_an_empty_folder_and_files(tmp_path: Path) -> None:
    source = messy(tmp_path / "stream")
    for taken in (source, source / "1-desk" / "train.jsonl"):
        with pytest.raises(ConfigError, match="not an empty folder"):
            check_data(source, fix=taken, quick=True)
    with pytest.raises(ConfigError, match="of files only"):
        check_data(stream()[0], fix=tmp_path / "clean", quick=True)
    with pytest.raises(ConfigError, match="give a path"):
        check_data([], quick=True)
    assert not (tmp_path / "clean").exists()


def test_files_of_one_task_are_taken_together_and_a_stream_file_keeps_its_names(tmp_path: Path) -> None:
    source = messy(tmp_path / "stream")
    one = check_data([source / "1-desk" / "train.jsonl", source / "1-desk" / "test.jsonl"], quick=True)
    assert list(one.rows) == ["1-desk"]
    assert codes(one)["leak"] == 1
    listed = "tasks: [{path: 2-loans, name: loans, template: '{text} is:'}, {path: 1-desk, name: desk}]"
    (source / STREAM_FILE).write_text(listed)
    check_data(source, fix=tmp_path / "clean", quick=True)
    tasks = read_stream(tmp_path / "clean")
    assert [(task.name, task.template) for task in tasks] == [("loans", "{text} is:"), ("desk", None)]


def test_a_file_whose_rows_name_their_subsets_becomes_a_folder(tmp_path: Path) -> None:
    texts = [("when open", "a"), ("when closed", "a"), ("renew it", "b"), ("extend it", "b"), ("when closed", "a")]
    parts = ("train", "train", "train", "train", "test")
    rows = [{"text": text, "label": label, "split": part} for (text, label), part in zip(texts, parts, strict=True)]
    check_data(write_rows(tmp_path / "all.jsonl", rows), fix=tmp_path / "clean", quick=True)
    (task,) = read_stream(tmp_path / "clean", all_rows=True)
    assert (task.name, [one.text for one in task.train]) == ("all", ["when open", "renew it", "extend it"])
    assert [one.text for one in task.test] == ["when closed"]


def test_rows_with_the_same_number_are_told_apart(tmp_path: Path) -> None:
    conll = "Ada\tB-PER\nmet\tO\nParis\tB-LOC\n\nBob\tB-PER\nmet\tO\nRome\tB-LOC\n\nAda\tB-PER\nmet\tO\nParis\tB-LOC\n"
    (tmp_path / "names.conll").write_text(conll)
    report = check_data(tmp_path / "names.conll", fix=tmp_path / "clean", quick=True)
    assert report.counts["duplicate"] == len(report.left_out) == 2
    (task,) = read_stream(tmp_path / "clean", all_rows=True)
    assert [(one.mention, one.label) for one in task.train] == [
        (one.mention, one.label) for one in read_stream(tmp_path / "names.conll", all_rows=True)[0].train[:4]
    ]


def test_inputs_that_are_cut_and_spans_that_do_not_fit_are_found(tmp_path: Path) -> None:
    long = [("word " * 80, "1"), ("word " * 60, "2"), ("short", "1"), ("brief", "2")]
    report = check_data(written(tmp_path / "t", train=long), **TINY)
    assert [finding.place.row for finding in report.of("cut")] == [1, 2]
    (kind,) = [kind for kind in report.kinds if kind.code == "cut"]
    assert "2 of 4 inputs will be cut at 128 tokens" in kind.meaning
    assert "backbone.max_tokens=408 would keep all of them whole" in kind.meaning
    rows = [
        {"tokens": ["a"] * length, "mention": [0, length], "label": str(length % 2)} for length in (1, 2, 3, 4, 400)
    ]
    spans = check_data(write_rows(tmp_path / "spans.jsonl", rows), **TINY)
    (finding,) = spans.of("unencodable")
    assert (finding.place.row, spans.refused, spans.remaining) == (5, True, ())


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> conpet.ConPET:
    """Return a workspace that knows one task of the toy stream."""
    return workspace(tmp_path_factory.mktemp("known"), 1)


def test_against_a_workspace_both_rows_are_named(tmp_path: Path, known: conpet.ConPET) -> None:
    old, new = stream()[:2]
    rows = [(example.text, str(example.label)) for example in new.train]
    rows += [(old.test[2].text, new.labels[0]), (old.train[1].text, new.labels[0])]
    task = written(tmp_path / "new", train=rows, test=[(one.text, str(one.label)) for one in new.test])
    report = check_data(task, against=known.path)
    (leak,) = report.of("leak")
    assert leak.place.row == len(rows) - 1
    assert "stored test example 3" in leak.message
    assert leak.other is not None
    assert (leak.other.row, leak.other.text) == (3, old.test[2].text)
    (contradiction,) = report.of("contradiction")
    assert "stored train example 2" in contradiction.message
    assert not check_data(new, against=known.path, quick=True).refused


def test_more_examples_of_known_labels_are_no_error(tmp_path: Path, known: conpet.ConPET) -> None:
    old = stream()[0]
    texts = [(old.train[0].text, str(old.train[0].label)), ("quite another example", old.labels[0])]
    report = check_data(written(tmp_path / "more", train=texts), against=known.path, quick=True)
    assert codes(report) == {"known-labels": 1, "duplicate": 1}
    assert "learn with --extend" in report.of("known-labels")[0].message
    assert report.learn_options == "--extend"


def test_files_of_old_and_new_labels_are_what_mixed_learns(tmp_path: Path, known: conpet.ConPET) -> None:
    old = stream()[0]
    texts = [("quite another example", old.labels[0]), ("a new thing", "new"), ("another new thing", "newer")]
    report = check_data(written(tmp_path / "mixed", train=texts), against=known.path, quick=True)
    assert (report.refused, report.learn_options) == (False, "--mixed")
    (note,) = report.of("known-labels")
    assert note.message == (
        f"1 row of known labels would be added to task {old.name!r}, and 2 rows of 2 new labels would become a new "
        "task 'mixed': learn with --mixed"
    )
    (few,) = report.of("few-examples")
    assert "2 labels" in few.message
    one = check_data(written(tmp_path / "one", train=texts[:2]), against=known.path, quick=True)
    assert (one.refused, one.learn_options) == (False, "--mixed --into TASK")
    untrained = check_data(written(tmp_path / "u", train=texts, test=[("held", "out")]), against=known.path, quick=True)
    assert untrained.of("invalid-row")[0].message == "label 'out' has no training example"
    again = check_data(written(tmp_path / old.name, train=texts[:2]), against=known.path, quick=True)
    assert (again.refused, again.learn_options) == (False, None)  # the task is learned anew


def test_a_label_in_another_form_becomes_the_known_one(tmp_path: Path, known: conpet.ConPET) -> None:
    label = stream()[0].labels[0]
    texts = [("quite another example", label), ("one in capitals", label.upper()), ("two in capitals", label.upper())]
    check_data(written(tmp_path / "more", train=texts), against=known.path, quick=True, fix=tmp_path / "clean")
    clean = check_data(tmp_path / "clean", against=known.path, quick=True)
    assert (clean.labels, clean.learn_options) == (1, "--extend")


def test_a_workspace_without_texts_is_compared_by_its_features(tmp_path: Path) -> None:
    latent = workspace(tmp_path, 1, replay={"latent_only": True})
    old, new = stream()[:2]
    leaking = Task("new", (*new.train, old.test[0].labelled(new.labels[0])))
    quick = check_data(leaking, against=latent.path, quick=True)
    assert quick.of("leak") == []
    assert any("stores no text" in line for line in quick.skipped)
    (leak,) = check_data(leaking, against=latent.path).of("leak")
    assert leak.place.row == len(leaking.train)
    assert "stored test example 1" in leak.message


def test_the_expected_time_is_of_the_right_order(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 1)
    new = stream()[1]
    report = learner.learn(new)
    planned = plan(
        [stream()[0], new],
        workspace(tmp_path, 1, "other").store.snapshot(),
        learner.backbone,
        learner.settings,
        evaluate=True,
    )
    first, second = planned.tasks
    assert (first.version, second.version) == (None, 1)
    assert second.steps == sum(stage.steps for stage in report.cost)
    seconds = sum(stage.seconds for stage in report.cost)
    assert seconds / 6 < planned.seconds < 6 * seconds + 2
    assert planned.memory == 0 or 1e8 < planned.memory < 1e11


def test_python_learns_files_that_were_checked(tmp_path: Path) -> None:
    check_data(messy(tmp_path / "stream"), fix=tmp_path / "clean", quick=True)
    with pytest.raises(DataError):
        read_task(tmp_path / "stream" / "1-desk")
    assert read_task(tmp_path / "clean" / "1-desk").labels == ("fee", "hours")
