"""`conpet watch`, and the record of predictions on the command line."""

from __future__ import annotations

import json
import re
import sqlite3
import warnings
from contextlib import closing
from pathlib import Path

import pytest

from conpet import ConPET, Example
from conpet.errors import ConfigError, DataError, ReadOnlyError
from conpet.store.prediction_log import FILE, PredictionLog
from conpet.watching import watch
from tests.helpers.cli import STREAM, conpet, taught, write_rows
from tests.helpers.permissions import public_folder, reading_only

TEXTS = [[example.text for example in task.test] for task in STREAM]
LABELLED = [example for task in STREAM for example in task.test]
SETTINGS = ("--reference", "50", "--window", "60")


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Return a workspace whose predictions are recorded."""
    folder = taught(tmp_path)
    assert conpet("audit", "log", folder, "--predictions", "text").code == 0
    return folder


def rows_of(task: int, number: int) -> list[dict[str, str]]:
    return [{"text": TEXTS[task][at % len(TEXTS[task])]} for at in range(number)]


def test_nothing_is_recorded_by_default_and_watching_says_how_to_record(tmp_path: Path) -> None:
    folder = taught(tmp_path)
    assert conpet("predict", folder, "a text", "--json").rows[0].get("request_id") is None
    assert not PredictionLog(folder).exists
    assert conpet("audit", "log", folder).out == "predictions: off\n"
    for refused in (conpet("watch", folder), conpet("watch", folder, "--restart")):
        assert refused.code == 1
        assert "conpet audit log" in refused.err
    nothing = conpet("audit", "trace", folder, "--text", "a text")
    assert (nothing.code, "predictions are not recorded here" in nothing.err) == (1, True)


def test_an_answer_is_traced_to_its_rows_module_and_version(recording: Path) -> None:
    answer = conpet("predict", recording, *TEXTS[0], "--json").rows[1]
    by_request = conpet("audit", "trace", recording, "--request", answer["request_id"], "--json").json
    assert [entry["content"] for entry in by_request] == TEXTS[0]
    (entry,) = conpet("audit", "trace", recording, "--text", TEXTS[0][1], "--json").json
    assert entry == by_request[1]
    assert (entry["label"], entry["task"], entry["generation"]) == (
        answer["label"],
        answer["task"],
        answer["generation"],
    )
    assert entry["answered_by"]["data"] == conpet("audit", "trace", recording, answer["task"], "--json").json["data"]
    train = STREAM[[task.name for task in STREAM].index(answer["task"])].train
    assert len(entry["learned_from"]) == sum(example.label == answer["label"] for example in train)
    shown = conpet("audit", "trace", recording, "--request", answer["request_id"]).out
    assert f"input: {TEXTS[0][1]}" in shown
    assert f"task {answer['task']}, version 1, generation {answer['generation']}" in shown
    assert "learned from" in shown


def test_the_modules_that_ran_are_named_with_their_hashes(tmp_path: Path) -> None:
    folder = taught(tmp_path)
    with ConPET.open(folder) as workspace:
        workspace.set_log("hash", keep_days=30)
        texts = [f"{first} {second}" for first, second in zip(*TEXTS, strict=True)]
        answers = workspace.predict(texts)
        traces = [trace for one in answers[:1] for trace in workspace.trace_request(str(one.request_id))]
        ran = [module for trace in traces for module in trace["modules"]]
        assert ran
        assert {module["task"] for module in ran} <= {task.name for task in workspace.tasks}
        assert all(one["sha256"] for module in ran for one in module["objects"])
        assert workspace.trace_input(texts[0])[0]["content"] is None
        assert [event.verb for event in workspace.store.events()][-1] == "log"
        assert workspace.settings.log.keep_days == 30


def test_trace_takes_one_thing_to_trace(recording: Path) -> None:
    for wrong in ((), ("cards", "--text", "x"), ("--request", "r", "--version", "1")):
        assert conpet("audit", "trace", recording, *wrong).code == 2
    assert "is recorded" in conpet("audit", "trace", recording, "--request", "unknown").err


def test_changed_entries_are_found_by_verify_and_old_ones_pruned(recording: Path) -> None:
    conpet("predict", recording, *TEXTS[0], "--json")
    assert conpet("audit", "verify", recording).code == 0
    assert "8 entries" in conpet("audit", "log", recording).out
    assert conpet("audit", "prune", recording, "--older-than", "90d").out == "0 entries deleted, 8 left\n"
    assert conpet("audit", "prune", recording, "--older-than", "soon").code == 1
    assert "--keep-days" in conpet("audit", "prune", recording).err
    conpet("audit", "log", recording, "--keep-days", "30")
    assert conpet("audit", "prune", recording).out == "0 entries deleted, 8 left\n"
    log = PredictionLog(recording)
    with closing(sqlite3.connect(log.file)) as raw, raw:
        assert raw.execute("UPDATE prediction SET content = 'x' WHERE content = ?", (TEXTS[0][0],)).rowcount
    assert "prediction 1" in conpet("audit", "verify", recording).out


def test_recorded_predictions_are_listed_by_task_decision_and_time(recording: Path) -> None:
    assert "not recorded here" in conpet("audit", "predictions", recording).err
    answers = conpet("predict", recording, *TEXTS[0], *TEXTS[1], "--json").rows
    listed = conpet("audit", "predictions", recording, "--json").json
    assert [entry["content"] for entry in listed[::-1]] == [*TEXTS[0], *TEXTS[1]]
    task = answers[0]["task"]
    of_task = conpet("audit", "predictions", recording, "--task", task, "--since", "1h", "--json").json
    assert len(of_task) == sum(one["task"] == task for one in answers)
    page = conpet("audit", "predictions", recording, "--limit", "3")
    assert TEXTS[1][-1][:20] in page.out
    assert f"--before {listed[2]['id']}" in page.out
    older = conpet("audit", "predictions", recording, "--before", listed[2]["id"], "--limit", "2", "--json").json
    assert [entry["id"] for entry in older] == [listed[3]["id"], listed[4]["id"]]
    assert conpet("audit", "predictions", recording, "--since", "2999-01-01").out.startswith("no recorded prediction")
    for wrong in (("--decision", "maybe"), ("--since", "soon")):
        refused = conpet("audit", "predictions", recording, *wrong)
        assert (refused.code, wrong[0] in refused.err) == (1, True)


def test_an_alarm_has_an_exit_status_of_its_own(recording: Path, tmp_path: Path) -> None:
    quiet = write_rows(tmp_path / "quiet.jsonl", [rows_of(at % 2, 1)[0] for at in range(200)])
    conpet("predict", recording, "-i", quiet, "-o", tmp_path / "out.jsonl")
    fine = conpet("watch", recording, *SETTINGS)
    assert fine.code == 0
    assert "200 inputs, the first 50 as reference" in fine.out
    conpet(
        "predict", recording, "-i", write_rows(tmp_path / "one.jsonl", rows_of(1, 400)), "-o", tmp_path / "out.jsonl"
    )
    alarm = conpet("watch", recording, *SETTINGS)
    assert alarm.code == 3
    assert re.search(rf"^task {STREAM[1].name} .*100", alarm.out, re.MULTILINE)
    assert "next: " in alarm.out
    document = conpet("watch", recording, *SETTINGS, "--json").json
    assert f"task {STREAM[1].name}" in document["alarms"]
    assert conpet("watch", recording, *SETTINGS, "--restart").code == 0
    again = conpet("watch", recording, *SETTINGS, "--json").json
    assert (again["inputs"], again["alarms"]) == (0, [])


def test_a_file_is_watched_without_recording_it(recording: Path, tmp_path: Path) -> None:
    rows = [*(rows_of(at % 2, 1)[0] for at in range(200)), *rows_of(0, 300)]
    found = conpet("watch", recording, "-i", write_rows(tmp_path / "in.jsonl", rows), *SETTINGS, "--json")
    assert found.code == 3
    assert f"task {STREAM[0].name}" in found.json["alarms"]
    (signal,) = [one for one in found.json["signals"] if one["name"] == f"task {STREAM[0].name}"]
    assert (signal["at"], found.json["first"]) == (None, None)
    assert 150 <= signal["since_input"] <= signal["at_input"] <= 500
    shown = conpet("watch", recording, "-i", tmp_path / "in.jsonl", *SETTINGS).out
    assert f"row {signal['since_input']}" in shown
    assert "column `time`" in conpet("watch", recording, "-i", tmp_path / "in.jsonl", "--reference", "1h").err
    dated = [row | {"time": f"2026-01-{1 + at // 50:02}T10:00:00"} for at, row in enumerate(rows)]
    timed = conpet("watch", recording, "-i", write_rows(tmp_path / "dated.jsonl", dated), *SETTINGS, "--json").json
    (signal,) = [one for one in timed["signals"] if one["name"] == f"task {STREAM[0].name}"]
    assert (signal["since"], timed["first"]) == (
        dated[signal["since_input"] - 1]["time"] + "+00:00",
        "2026-01-01T10:00:00+00:00",
    )
    wrong = write_rows(tmp_path / "wrong.jsonl", [*dated[:6], dated[6] | {"time": "yesterday"}, *dated[7:]])
    for options in ((), ("--reference", "24h")):
        refused = conpet("watch", recording, "-i", wrong, *options)
        assert (refused.code, "row 7: no time that can be read" in refused.err) == (1, True), refused.err
    descending = conpet("watch", recording, "-i", write_rows(tmp_path / "descending.jsonl", dated[::-1]), *SETTINGS)
    assert (descending.code, "sort them by time" in descending.err) == (1, True), descending.err
    assert not (recording / FILE).exists()
    assert conpet("watch", recording, "-i", tmp_path / "in.jsonl", "--restart").code == 2
    assert conpet("watch", recording, "-i", tmp_path / "missing.jsonl").code == 1
    empty = conpet("watch", recording, "-i", write_rows(tmp_path / "empty.csv", []))
    assert (empty.code, "no inputs" in empty.err or "no rows" in empty.err) == (1, True)


def test_feedback_gives_accuracy_by_task_label_and_time(recording: Path, tmp_path: Path) -> None:
    answers = conpet("predict", recording, *(example.text for example in LABELLED), "--json").rows
    feedback = write_rows(tmp_path / "right.jsonl", [{"text": one.text, "label": one.label} for one in LABELLED])
    accuracy = conpet("watch", recording, "--feedback", feedback, "--json").json["accuracy"]
    right = sum(one["label"] == example.label for one, example in zip(answers, LABELLED, strict=True))
    assert (accuracy["found"], accuracy["missing"], accuracy["whole"]["right"]) == (len(LABELLED), 0, right)
    assert {one["name"] for one in accuracy["tasks"]} <= {task.name for task in STREAM}
    shown = conpet("watch", recording, "--feedback", feedback).out
    assert f"feedback: {len(LABELLED)} labelled inputs found in the record" in shown
    named = [{"id": f"{answers[0]['request_id']}/{at}", "label": one.label} for at, one in enumerate(LABELLED, start=1)]
    by_id = write_rows(tmp_path / "ids.jsonl", [*named, {"id": "unknown", "label": "x"}])
    again = conpet("watch", recording, "--feedback", by_id, "--request-column", "id", "--json").json["accuracy"]
    assert (again["found"], again["missing"], again["whole"]["right"]) == (len(LABELLED), 1, right)
    later = conpet("watch", recording, "--json").json["accuracy"]  # kept with the record
    assert (later["found"], later["whole"]["right"]) == (len(LABELLED), right)
    other = write_rows(tmp_path / "other.jsonl", [{"text": "never asked", "label": "x"}])
    assert "none of 1 labelled inputs" in conpet("watch", recording, "--feedback", other).err


def test_wrong_answers_with_feedback_raise_an_alarm(recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "LEAST_HELD_OUT", 1)
    with ConPET.open(recording) as workspace:
        texts = [f"{text} {number}" for number in range(10) for text in TEXTS[0]]
        answers = workspace.predict(texts)
        wrong = [
            Example.of_text(text, label=next(label for label in workspace.labels if label != one.label))
            for text, one in zip(texts, answers, strict=True)
        ]
        report = workspace.watch(feedback=wrong, false_alarm=0.9)
        task = workspace.owners[str(wrong[0].label)]
        assert {"accuracy", f"accuracy {task}"} <= {signal.name for signal in report.alarms}
        shown = conpet("watch", recording, "--false-alarm", "0.9")
        assert shown.code == 3
        assert f"accuracy {task} " in shown.out
        assert workspace.watch(false_alarm=0.9).alarms == report.alarms  # the labels are kept
        workspace.set_costs(error=5)
        assert workspace.watch(false_alarm=0.9).accuracy is None  # of former answers


def test_watching_begins_anew_with_every_change_of_the_answers(recording: Path) -> None:
    with ConPET.open(recording) as workspace:
        workspace.predict(TEXTS[0] * 20)
        assert workspace.watch(reference=50).inputs == 160
        workspace.set_log("hash")
        workspace.predict(TEXTS[0])
        assert workspace.watch(reference=50).inputs == 168
        workspace.set_costs(error=5)
        assert workspace.watch(reference=50).inputs == 0
        assert workspace.watch(TEXTS[0] * 20, reference=50).inputs == 160
        with pytest.raises(ConfigError):
            workspace.watch(false_alarm=2)
        with pytest.raises(DataError, match="2 of 3 inputs cannot be answered"):
            workspace.watch(["a text", "", {"tokens": ["a"]}])
        with pytest.raises(DataError, match="no label"):
            workspace.watch(feedback=[LABELLED[0].labelled(None)])


def test_answers_are_given_when_they_cannot_be_recorded(recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ConPET.open(recording) as workspace:
        log = workspace.prediction_log
        with monkeypatch.context() as patch:
            patch.setattr(log, "append", full)
            with pytest.warns(UserWarning, match="not recorded until this is mended"):
                assert [one.label for one in workspace.predict(TEXTS[0])] != []
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # said once
                assert workspace.predict(TEXTS[0])[0].request_id is None
        assert workspace.predict(TEXTS[0])[0].request_id is not None
        assert [(note.what, note.number) for note in log.notes()] == [("lost", 16)]


def test_what_is_recorded_is_recorded_once_if_old_entries_cannot_be_deleted(
    recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert conpet("audit", "log", recording, "--predictions", "text", "--keep-days", "1").code == 0
    with ConPET.open(recording) as workspace:
        monkeypatch.setattr(PredictionLog, "prune", lambda *_: full(None))
        with pytest.warns(UserWarning, match="too old cannot be deleted yet"):
            assert workspace.predict(TEXTS[0])[0].request_id is not None
        log = workspace.prediction_log
        assert (log.total(), list(log.notes())) == (len(TEXTS[0]), [])


def full(_: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_read_only_workspace_names_the_option_and_records_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    with public_folder() as place, public_folder() as records:
        records.chmod(0o777)
        monkeypatch.setenv("CONPET_HOME", str(place / "home"))
        folder = taught(place)
        conpet("predict", folder, "a text")  # writes the backbone
        conpet("audit", "log", folder, "--predictions", "hash")
        with reading_only(place), ConPET.open(folder) as workspace:
            with pytest.raises(ReadOnlyError, match="--log-to FOLDER"):
                workspace.predict(TEXTS[0])
            with ConPET.open(folder, log_to=records) as elsewhere:
                elsewhere.predict(TEXTS[0])
        assert PredictionLog(folder, records).total() == len(TEXTS[0])
        assert "8 entries" in conpet("audit", "log", folder, "--log-to", records).out
        assert not (folder / FILE).exists()


def test_a_workspace_that_stores_no_texts_records_hashes_only(tmp_path: Path) -> None:
    options = ("--backbone", "tiny-random", "--set", "replay.latent_only=true")
    refused = conpet("init", tmp_path / "a", *options, "--set", "log.predictions=text")
    assert refused.code == 1
    assert "stores no texts" in refused.err
    assert conpet("init", tmp_path / "b", *options, "--set", "log.predictions=off").code == 0
    assert "stores no texts" in conpet("audit", "log", tmp_path / "b", "--predictions", "text").err
    assert conpet("audit", "log", tmp_path / "b", "--predictions", "hash").out == "predictions: hash\n"


def test_wrong_options_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    for options, reason in (
        (("--webhook", "file:///etc/passwd"), "http:// or https://"),
        (("--reference", "3"), "at least 50"),
        (("--false-alarm", "1.5"), "above 0 and below 1"),
    ):
        refused = conpet("watch", tmp_path / "none", *options)
        assert refused.code == 1
        assert reason in refused.err
    assert conpet("watch", tmp_path / "none", "--request-column", "id").code == 2
    assert conpet("audit", "log", taught(tmp_path), "--predictions", "everything").code == 1
    assert json.loads(conpet("audit", "log", tmp_path / "ws", "--json").out)["predictions"] == "off"
