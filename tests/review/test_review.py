"""Review of a workspace: drawn, reported and imported answers, verdicts, learning, accuracy, costs and forgetting."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from conpet import ConPET, Example, Prediction
from conpet.commands.prediction_log import prune
from conpet.errors import ConfigError, DataError, GateRefusedError, ReviewConflictError, UnknownNameError
from conpet.review.label_studio import read_tasks
from conpet.review.queue import ReviewQueue
from conpet.review.records import ItemKind, ItemState, VerdictKind
from tests.helpers.workspaces import files_with, stream, workspace

TASKS = stream()
FIRST, SECOND = TASKS[0].labels
OTHER = TASKS[1].labels[0]
SEEN = [example.text for task in TASKS[:2] for example in task.test]


def recording(folder: Path, **settings: Any) -> ConPET:
    """Return a workspace that knows two tasks and has recorded the answers to their test inputs."""
    learner = workspace(folder, 2, **{"log.predictions": "text", **settings})
    learner.predict(SEEN)
    return learner


def right_label(text: str) -> str:
    return next(str(one.label) for task in TASKS[:2] for one in task.test if one.text == text)


def review_all(learner: ConPET, reviewer: str = "ann") -> int:
    """Review everything that waits, rightly; return how many answers were wrong."""
    wrong = 0
    while item := learner.review.next(reviewer):
        label = right_label(item.example.text)
        done = learner.review.answer(item.id, "correct", label, reviewer=reviewer, seconds=6)
        wrong += done.verdicts[-1].verdict is not VerdictKind.CONFIRM
    return wrong


def examples_of(*numbers: str) -> list[Example]:
    return [Example.of_text(text) for text in new_texts(*numbers)]


def new_texts(*texts: str) -> list[str]:
    return [f"something else entirely, number {text}" for text in texts]


def test_drawn_answers_are_reviewed_and_their_accuracy_is_that_of_all(tmp_path: Path) -> None:
    learner = recording(tmp_path)
    assert learner.review.draw(since=datetime.now(UTC) + timedelta(hours=1)).batch is None
    drawn = learner.review.draw(random=4, uncertain=100, declined=100, seed=1)
    assert (drawn.batch, drawn.population, drawn.unreadable) == (1, len(SEEN), 0)
    assert drawn.drawn["random"] == 4
    assert learner.review.status().states[ItemState.OPEN] == drawn.added == sum(drawn.drawn.values())
    assert learner.review.accuracy().estimate.value is None
    wrong = review_all(learner)
    again = learner.review.draw()
    assert (again.batch, again.population) == (None, 0)
    found = learner.review.accuracy()
    assert found.missing == {}
    assert found.estimate.population == len(SEEN)
    assert found.estimate.reviewed == drawn.added
    if drawn.added == len(SEEN):
        assert found.estimate.value == 1 - wrong / len(SEEN)
    judged = list(learner.prediction_log.judged(0, 0))
    assert len(judged) == 4  # only those drawn at random say how good all answers are
    minutes = sum(kind.resources.minutes for kind in learner.cost().kinds)
    assert minutes == pytest.approx(drawn.added / 10)


def test_answers_without_their_inputs_cannot_be_drawn_and_the_message_says_what_to_do(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2, **{"log.predictions": "hash"})
    with pytest.raises(DataError, match="--predictions text"):
        learner.review.draw()
    learner.predict(SEEN)
    with pytest.raises(DataError, match="--predictions text"):
        learner.review.draw()
    assert "--predictions text" in str(learner.review.status().text_missing)
    learner.set_log("text")
    learner.predict(SEEN[:3])
    drawn = learner.review.draw(random=2)
    assert (drawn.population, drawn.unreadable) == (3, len(SEEN))
    with pytest.raises(ConfigError, match="below=7"):
        learner.review.draw(below=7)
    with pytest.raises(ConfigError, match="nothing to draw"):
        learner.review.draw(random=0, uncertain=0, declined=0)
    private = workspace(tmp_path, 1, "private", **{"replay.latent_only": True})
    with pytest.raises(ConfigError, match="stores no texts"):
        private.review.draw()
    with pytest.raises(ConfigError, match="stores no texts"):
        private.review.add(["a"])


def test_a_reported_answer_comes_first_and_is_found_by_its_request(tmp_path: Path) -> None:
    learner = recording(tmp_path)
    answers = learner.predict(SEEN[:2])
    learner.review.draw(seed=0)
    item, waits = learner.review.report(
        request_id=answers[1].request_id, place=2, label=FIRST, note="no!", reporter="x"
    )
    assert waits
    assert (item.kind, item.example.text, item.label, item.suggested) == (
        ItemKind.REPORTED,
        SEEN[1],
        answers[1].label,
        FIRST,
    )
    assert (item.note, item.reported_by) == ("no!", "x")
    found = learner.review.next("ann")
    assert found is not None
    assert found.id == item.id
    learner.review.answer(item.id, "correct", OTHER, reviewer="ann")
    reported, waits = learner.review.report(SEEN[1])
    assert (waits, reported.reports, reported.state) == (answers[1].label == OTHER, 2, ItemState.DONE)
    other, waits = learner.review.report(new_texts("1")[0])
    assert (waits, other.label, other.answered) == (True, None, False)
    with pytest.raises(ConfigError, match="no answer is known"):
        learner.review.answer(other.id, "confirm")
    with pytest.raises(UnknownNameError, match="nothing is recorded"):
        learner.review.report(request_id="unknown")
    assert learner.review.report(SEEN[0], request_id="not yet")[0].label == answers[0].label
    with pytest.raises(ConfigError, match="not the one of this request"):
        learner.review.report(SEEN[0], request_id=answers[1].request_id, place=2)
    with pytest.raises(ConfigError, match="name the answer"):
        learner.review.report()


def test_a_report_opens_an_item_again_whose_reviewer_had_confirmed_the_answer(tmp_path: Path) -> None:
    learner = recording(tmp_path)
    item, _ = learner.review.report(SEEN[0])
    assert item.label is not None
    learner.review.answer(item.id, "correct", item.label, reviewer="ann")
    again, waits = learner.review.report(SEEN[0])
    assert (waits, again.state, again.right) == (True, ItemState.OPEN, item.label)
    offered = learner.review.next("ann")
    assert offered is not None
    assert offered.id == item.id
    assert learner.review.answer(item.id, "none", reviewer="ann").state is ItemState.DONE


def test_verdicts_take_their_plain_form_and_wrong_ones_are_refused(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2)
    learner.review.add(new_texts("1"))
    (item,) = learner.review.queue.items()
    for verdict, label, error, message in (
        ("correct", "nolabel", UnknownNameError, 'use the verdict "new"'),
        ("new", "  ", ConfigError, "at least one character"),
        ("correct", None, ConfigError, "needs a label"),
        ("skip", "x", ConfigError, "takes no label"),
        ("maybe", None, ConfigError, "unknown verdict"),
    ):
        with pytest.raises(error, match=message):
            learner.review.answer(item.id, verdict, label)
    with pytest.raises(ConfigError, match="printable"):
        learner.review.answer(item.id, "skip", reviewer="\n")
    done = learner.review.answer(item.id, "new", FIRST)  # it is learned already
    assert (done.verdicts[0].verdict, done.right, done.new) == (VerdictKind.CORRECT, FIRST, False)


def test_reviewed_items_are_learned_once_and_the_rest_waits_with_a_reason(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2)
    texts = new_texts("1", "2", "3", "4", "5")
    stored = TASKS[0].train[0]
    learner.review.add([*texts, stored.text])
    items = {item.example.text: item.id for item in learner.review.all_items()}
    learner.review.answer(items[texts[0]], "correct", FIRST)
    learner.review.answer(items[texts[1]], "correct", OTHER)
    learner.review.answer(items[texts[2]], "new", "brand new")
    learner.review.answer(items[texts[3]], "none")
    contrary = SECOND if stored.label == FIRST else FIRST
    learner.review.answer(items[stored.text], "correct", contrary)
    plan = learner.plan_reviewed()
    assert plan.items == 2
    assert {addition.task for addition in plan.additions} == {TASKS[0].name, TASKS[1].name}
    reasons = {held.item: held.reason for held in plan.held}
    assert "say which task learns it" in reasons[items[texts[2]]]
    assert "is stored with the label" in reasons[items[stored.text]]
    assert {str(held.because) for held in plan.held} == {"no-task", "contradicts"}
    reports = learner.learn_reviewed(gate=False)
    assert {report.task: report.version for report in reports} == {TASKS[0].name: 2, TASKS[1].name: 2}
    assert learner.review.queue.get(items[texts[0]]).learned == learner.store.generation()
    assert learner.learn_reviewed(gate=False) == []
    with pytest.raises(ReviewConflictError, match="was learned by generation"):
        learner.review.answer(items[texts[0]], "none")
    assert learner.review.status().learned == 2
    with pytest.raises(ConfigError, match="one of the two"):
        learner.learn_reviewed(into=TASKS[0].name, name="x")
    (report,) = learner.learn_reviewed(into=TASKS[1].name, gate=False)
    assert (report.task, report.version) == (TASKS[1].name, 3)
    assert "brand new" in learner.labels


def test_new_labels_become_a_task_and_labels_that_are_gone_wait(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2)
    texts = new_texts(*"123456789")
    learner.review.add(texts)
    for at, item in enumerate(learner.review.all_items()):
        learner.review.answer(item.id, *(("correct", FIRST) if at == 8 else ("new", f"fresh {at % 2}")))
    learner.rename(FIRST, "renamed", gate=False)
    assert "not learned any more" in learner.plan_reviewed(name="fresh").held[0].reason
    reports = learner.learn_reviewed(name="fresh", gate=False)
    assert [report.task for report in reports] == ["fresh"]
    assert set(learner.review.known_labels()) >= {"fresh 0", "fresh 1"}


def test_a_refused_change_that_is_promoted_later_counts_as_learned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = workspace(tmp_path, 2)
    learner.review.add([Example.of_text(new_texts("1")[0], label=FIRST)])
    monkeypatch.setattr("conpet.types.GateReport.refused", property(lambda _: True))
    with pytest.raises(GateRefusedError):
        learner.learn_reviewed()
    monkeypatch.undo()
    assert learner.review.status().learnable == 1
    learner.promote(gate=False)
    assert learner.learn_reviewed() == []
    assert learner.review.status().learned == 1


def test_a_change_that_was_made_before_the_process_died_is_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = workspace(tmp_path, 2)
    learner.review.add([Example.of_text(new_texts("1")[0], label=FIRST)])

    def die(*_: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ReviewQueue, "learned", die)
        with pytest.raises(KeyboardInterrupt):
            learner.learn_reviewed(gate=False)
    generation = learner.store.generation()
    assert learner.learn_reviewed(gate=False) == []
    assert (learner.store.generation(), learner.review.status().learned) == (generation, 1)


def test_label_studio_and_files_bring_inputs_and_verdicts(tmp_path: Path) -> None:
    learner = recording(tmp_path)
    learner.review.draw(random=3, uncertain=0, declined=0)
    tasks = json.loads(json.dumps(learner.review.export(["open"])))
    for task in tasks:
        value = {"choices": [right_label(task["data"]["text"])]}
        result = [{"from_name": "label", "to_name": "text", "type": "choices", "value": value}]
        task["annotations"] = [{"result": result, "completed_by": {"email": "ann"}, "lead_time": 60}]
    rows = read_tasks(tasks, "tasks.json")
    first = learner.review.add_annotated(rows)
    assert (first.items, first.known, first.verdicts, first.unchanged) == (0, 3, 3, 0)
    second = learner.review.add_annotated(rows)
    assert (second.verdicts, second.unchanged) == (0, 3)
    assert learner.review.status().states[ItemState.DONE] == 3
    assert learner.review.status().minutes == pytest.approx(3)
    assert FIRST in learner.review.label_studio_config()
    given = learner.review.add([Example.of_text(new_texts("1")[0], label="brand new")], reviewer="ben")
    assert (given.items, given.verdicts) == (1, 1)
    assert learner.review.status().new_labels == {"brand new": 1}
    with pytest.raises(DataError):
        learner.review.add(["  "])


def test_what_is_forgotten_is_gone_from_review_and_no_byte_of_it_is_left(tmp_path: Path) -> None:
    learner = recording(tmp_path)
    text, only_reviewed = TASKS[0].train[0].text, new_texts("4711")[0]
    learner.review.add([text, only_reviewed])
    plan = learner.forget([only_reviewed], dry_run=True)
    assert (plan.recorded, plan.reviewed) == (0, 1)
    assert "1 item in review would be deleted" in str(plan)
    assert learner.forget([only_reviewed]).reviewed == 1
    assert files_with(learner, only_reviewed) == []
    report = learner.forget([text], evaluate=False)
    assert report.reviewed == 1
    assert report.complete
    assert learner.review.status().total == 0
    learner.review.add([Example.of_text(SEEN[0], label=OTHER)])
    assert learner.forget(labels=[OTHER], drop_labels=True, evaluate=False).reviewed == 1


def test_items_are_deleted_with_the_record_by_their_age(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2, **{"log.predictions": "text"})
    log, old = learner.prediction_log, time.time() - 3 * 86_400
    for number, days in ((1, 3), (2, 2)):
        answers = [Prediction(FIRST, 0.9, TASKS[0].name, 1, generation=3)]
        log.append(log.rows("r", examples_of(str(number)), answers, with_text=True, at=old + (3 - days) * 86_400))
    learner.review.draw(seed=0)
    learner.set_log(keep_days=30)
    first, second = (item.id for item in sorted(learner.review.all_items(), key=lambda item: item.example.text))
    learner.review.answer(first, "correct", OTHER)
    learner.review.answer(second, "correct", OTHER)
    deleted = learner.review.status().first_deleted
    assert deleted is not None
    assert abs(deleted.timestamp() - old - 30 * 86_400) < 1
    prune(learner.store, log, "60h")
    assert [item.id for item in learner.review.all_items()] == [second]
    learner.set_log(keep_days=1)
    learner.predict(SEEN[:1])
    assert learner.review.status().total == 0
    assert learner.review.accuracy().estimate.reviewed == 2  # without any text


def test_present_answers_are_proposed_without_being_recorded(tmp_path: Path) -> None:
    learner = recording(tmp_path)
    before = learner.prediction_log.total()
    proposed = learner.propose(SEEN[0], top_n=3)
    assert proposed[0].label == learner.prediction_log.entries()[-1].label
    assert len(proposed) == 3
    assert learner.prediction_log.total() == before
