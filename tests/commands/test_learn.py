"""Learning as users see it: reports, versions, refusals, limits, kinds, and resuming after an interruption."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conpet import ConPET, Example, Span, Task
from conpet.data import Kind
from conpet.errors import (
    BackboneMismatchError,
    ConfigError,
    CorruptionError,
    DataError,
    UnknownNameError,
    WorkspaceExistsError,
    WorkspaceNotFoundError,
)
from conpet.evaluation.history import matrix_of
from conpet.methods.dynamic import CALIBRATION
from conpet.modules import optimisation
from conpet.testing import Trial, ask, tiny_settings, toy_stream
from tests.helpers.workspaces import Stopped, digests, frozen_state, shared_digests, stop_at, stream, workspace

# Making and opening


def test_unknown_and_wrong_settings_are_named_and_nothing_is_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown setting 'module.ranks' .*; have: .*rank"):
        ConPET.create(tmp_path / "ws", **tiny_settings(module={"ranks": 8}))
    with pytest.raises(ConfigError, match=r"'module.dropout'.*\(got 1.5\)"):
        ConPET.create(tmp_path / "ws", **tiny_settings(module={"dropout": 1.5}))
    with pytest.raises(UnknownNameError, match="no method 'static'; have: a-gem, crl, der"):
        ConPET.create(tmp_path / "ws", **tiny_settings(method="static"))
    with pytest.raises(UnknownNameError, match="no selector 'oracle'"):
        ConPET.create(tmp_path / "ws", **tiny_settings(selector="oracle"))
    with pytest.raises(UnknownNameError, match="no replay schedule 'never'; have: dynamic, fixed"):
        ConPET.create(tmp_path / "ws", **tiny_settings(replay="never"))
    with pytest.raises(UnknownNameError, match="no retention 'newest'; have: class-balanced, k-means, reservoir"):
        ConPET.create(tmp_path / "ws", **tiny_settings(replay={"retention": "newest"}))
    with pytest.raises(ConfigError, match=r"tiny-random has no linear map q; have: .*q_proj"):
        ConPET.create(tmp_path / "ws", **tiny_settings(module={"targets": ("q",)}))
    assert list(tmp_path.iterdir()) == []


def test_a_workspace_is_made_once_and_opened_where_it_is(tmp_path: Path) -> None:
    made = ConPET.create(tmp_path / "ws", **tiny_settings())
    with pytest.raises(WorkspaceExistsError):
        ConPET.create(tmp_path / "ws", **tiny_settings())
    with pytest.raises(WorkspaceNotFoundError):
        ConPET.open(tmp_path / "other")
    opened = ConPET.open(tmp_path / "ws")
    assert opened.settings == made.settings
    assert opened.settings.backbone.frozen_layers == opened.backbone.frozen_layers
    assert (opened.tasks, opened.labels, opened.owners) == ((), (), {})


def test_a_task_whose_class_sums_are_damaged_is_named_by_the_first_answer(tmp_path: Path) -> None:
    path = workspace(tmp_path, 2).path
    damaged = next((path / "objects").glob("module-text-1-*")) / "classes.safetensors"
    content = damaged.read_bytes()
    for kept in (content[:-1], content[:10]):
        damaged.write_bytes(kept)
        with pytest.raises(CorruptionError, match=r"module-text-1-.*classes\.safetensors has .* bytes instead of"):
            ConPET.open(path).predict(["hello"])
    damaged.unlink()
    with pytest.raises(CorruptionError, match=r"module-text-1-.*classes\.safetensors is missing"):
        ConPET.open(path).predict(["hello"])


def test_another_backbone_is_refused(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 1)
    other = ConPET.create(tmp_path / "seed", **tiny_settings()).backbone.fingerprint
    assert other == learner.backbone.fingerprint
    folder = tmp_path / "changed"
    source = Path(learner.backbone.cut.model.config.name_or_path)
    folder.mkdir()
    for path in source.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    assert ConPET.open(learner.path, backbone=str(folder)).predict(["a"])
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.1}))
    with pytest.raises(BackboneMismatchError, match=r"another .*config.* than .*changed"):
        ConPET.open(learner.path, backbone=str(folder))


# Learning


def test_reports_say_what_was_learned_and_what_it_cost(tmp_path: Path) -> None:
    learner = workspace(tmp_path)
    stages: dict[str, list[float]] = {}
    for number, task in enumerate(stream(), start=1):
        report = learner.learn(task, progress=lambda stage, share: stages.setdefault(stage, []).append(share))
        assert (report.task, report.version, report.skipped, report.labels) == (task.name, 1, False, 2)
        assert (report.tasks_seen, report.labels_seen) == (number, 2 * number)
        assert report.evaluation is not None
        assert report.evaluation.whole_accuracy is not None
        assert report.evaluation.whole_accuracy > 0.6
        assert report.evaluation.best_reference is not None
        assert report.forgetting is not None
        assert report.trainable_parameters > report.head_parameters > 0
        assert {stage.stage for stage in report.cost} >= {"prefix", "selector", "module", "calibration", "evaluation"}
        assert task.name in str(report)
    assert stages.keys() >= {"prefix", "module", "evaluation"}
    assert all(shares[-1] == 1.0 for shares in stages.values())
    assert [event.verb for event in learner.store.events()] == ["create", "learn", "learn", "learn"]
    assert learner.owners == {label: task.name for task in stream() for label in task.labels}


def test_a_task_learned_from_the_same_data_is_skipped(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2)
    again = [replace(example, id="another id") for example in stream()[0].train]
    with frozen_state(learner):
        report = learner.learn(replace(stream()[0], train=tuple(again), notes=("read from elsewhere",)))
    assert report.skipped
    assert "already learned" in str(report)
    assert [report.skipped for report in learner.learn_stream(stream(), evaluate=False)] == [True, True, False]


def test_changed_data_make_a_new_version_and_leave_the_old_one_alone(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2)
    first, second, _ = stream()
    old = digests(learner.tasks[0].active)
    others = digests(learner.tasks[1].active)
    report = learner.learn(replace(first, train=first.train[::2]))
    assert (report.version, report.skipped, report.tasks_seen) == (2, False, 2)
    one, two = learner.tasks[0].versions
    assert (one.active, two.active) == (False, True)
    assert digests(one) == old != digests(two)
    assert digests(learner.tasks[1].active) == others
    assert [task.name for task in learner.tasks] == [first.name, second.name]
    answer = learner.predict([first.train[0]])[0]
    assert answer.version == (2 if answer.task == first.name else 1)


def test_settings_of_one_task_are_its_own(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 1)
    learner.learn(
        replace(stream()[1], settings={"module": {"rank": 2, "targets": ("q_proj",)}, "training": {"epochs": 1}})
    )
    ranks = [task.active.module.document("adapter_config")["r"] for task in learner.tasks if task.active.module]
    assert ranks == [4, 2]
    with frozen_state(learner), pytest.raises(ConfigError, match="'selector' is a setting of the whole workspace"):
        learner.learn(replace(stream()[2], settings={"selector": {"top_k": 2}}))


def test_a_label_has_one_owner(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 1)
    taken = learner.labels[0]
    train = (Example.of_text("one", taken), Example.of_text("two", "new"))
    with frozen_state(learner), pytest.raises(DataError, match=f"{taken!r} belongs to the earlier task 'text-0'"):
        learner.learn(Task("other", train))


def test_learning_without_evaluation_measures_nothing(tmp_path: Path) -> None:
    learner = workspace(tmp_path)
    for task in stream():
        report = learner.learn(task, evaluate=False)
        assert (report.evaluation, report.forgetting, report.backward_transfer) == (None, None, None)
    assert not any(event.metrics for event in learner.store.events())
    evaluation = learner.evaluate()
    assert evaluation.tasks.keys() == {task.name for task in stream()}


def test_no_test_examples_give_no_accuracy(tmp_path: Path) -> None:
    learner = workspace(tmp_path)
    report = learner.learn(replace(stream()[0], test=()))
    assert report.evaluation is not None
    assert report.evaluation.whole_accuracy is None
    assert report.forgetting is None
    assert str(report).endswith("; no accuracy: task text-0 has no test examples")


def test_the_history_holds_the_accuracy_matrix(tmp_path: Path) -> None:
    learner = workspace(tmp_path)
    reports = [learner.learn(task) for task in stream()]
    matrix = matrix_of(learner.store.events())
    assert [row.learned for row in matrix.rows] == [task.name for task in stream()]
    for row, report in zip(matrix.rows, reports, strict=True):
        assert report.evaluation is not None
        assert row.tallies == report.evaluation.tallies
    table = matrix.table()
    drops = [max(table[0][0] or 0, table[1][0] or 0) - (table[2][0] or 0), (table[1][1] or 0) - (table[2][1] or 0)]
    assert reports[-1].forgetting == pytest.approx(sum(drops) / 2)
    assert learner.evaluate().matrix.table() == table


# Kinds and languages


def test_texts_relations_and_mentions_live_in_one_workspace(tmp_path: Path) -> None:
    learner = workspace(tmp_path)
    streams = {kind: toy_stream(2, 2, 8, 2, 4, kind=kind) for kind in Kind}
    for task in (task for some in streams.values() for task in some):
        report = learner.learn(task)
    assert report.evaluation is not None
    assert len(report.evaluation.tasks) == 6
    assert (report.evaluation.whole_accuracy or 0) > 0.6
    mixed = [some[0].test[0] for some in streams.values()] * 2
    assert [answer.task.split("-")[0] for answer in learner.predict(mixed)] == [str(kind) for kind in Kind] * 2


def test_an_input_of_a_kind_nobody_taught_is_refused(tmp_path: Path) -> None:
    learner = workspace(tmp_path)
    with pytest.raises(DataError, match="learn a task first"):
        learner.predict(["hello"])
    learner.learn(stream()[0], evaluate=False)
    mention = Example.of_mention(["Paris"], Span(0, 1))
    with pytest.raises(DataError, match="is of kind typing, but the tasks are of kind text") as e:
        learner.predict(["hello", mention])
    assert [problem.row for problem in e.value.problems] == [2]


def test_japanese_is_learned_kept_and_answered(tmp_path: Path) -> None:
    texts = {
        "残高照会": ("残高を教えて", "口座の残高はいくら", "残高が知りたい"),
        "振込": ("振込をしたい", "お金を振り込む", "振込の手続き"),
    }
    train = tuple(Example.of_text(text, label) for label, some in texts.items() for text in some)
    learner = workspace(tmp_path, 1)
    learner.learn(Task("銀行", train, test=(Example.of_text("残高は", "残高照会"),), template="{text}\n意図:"))
    reopened = ConPET.open(learner.path)
    answers = reopened.predict([example.text for example in train])
    assert sum(answer.label == example.label for answer, example in zip(answers, train, strict=True)) >= 5
    assert reopened.tasks[1].name == "銀行"
    assert [row["text"] for row in reopened.tasks[1].active.objects["memory"].rows("train")] == [e.text for e in train]


# Limits of the memory


def rows_on_disk(learner: ConPET) -> dict[str, int]:
    return {
        path.parent.name: len(path.read_bytes().splitlines()) for path in learner.path.glob("objects/*/train.jsonl")
    }


def test_a_limit_in_examples_bounds_what_is_on_disk(tmp_path: Path) -> None:
    learner = workspace(tmp_path, replay={"memory_examples": 12, "retention": "class-balanced"})
    kept = []
    for task in stream():
        learner.learn(task, evaluate=False)
        kept.append(sorted(rows_on_disk(learner).values()))
    assert kept == [[12], [6, 6], [4, 4, 4]]
    first = stream()[0]
    learner.learn(replace(first, train=first.train[::2]), evaluate=False)
    sizes = rows_on_disk(learner).values()  # the version out of use keeps its share: 12 between eight labels
    assert (sum(sizes), min(sizes), max(sizes)) == (12, 2, 4)
    held_out = learner.tasks[0].active.objects["memory"]
    assert len(list(held_out.rows("test"))) == len(first.test)


def test_a_limit_in_bytes_bounds_what_is_on_disk(tmp_path: Path) -> None:
    learner = workspace(tmp_path, replay={"memory_bytes": 1000})
    for task in stream():
        learner.learn(task, evaluate=False)
        sizes = [path.stat().st_size for path in learner.path.glob("objects/*/train.jsonl")]
        assert len(sizes) == len(learner.tasks)
        assert 0 < sum(sizes) <= 1000


def test_what_a_smaller_memory_keeps_was_kept_before(tmp_path: Path) -> None:
    learner = workspace(tmp_path, replay={"memory_examples": 12})
    kept: set[str] = {example.text for example in stream()[0].train}
    for task in stream():
        learner.learn(task, evaluate=False)
        now = {row["text"] for row in learner.tasks[0].active.objects["memory"].rows("train")}
        assert now < kept
        kept = now


# Interruptions


@pytest.mark.parametrize(
    ("stage", "settings"),
    [
        ("module", {}),
        ("selector", {"selector": {"name": "learned", "steps": 8}}),
        ("module", {"selector": {"name": "learned", "steps": 8}}),
        ("evaluation", {}),
    ],
)
def test_an_interrupted_learn_goes_on_to_the_same_result(
    stage: str, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimisation, "CHECKPOINT_SECONDS", -1.0)
    settings = {"training.epochs": 3, **settings}
    unbroken = workspace(tmp_path, 1, "unbroken", **settings)
    broken = workspace(tmp_path, 1, "broken", **settings)
    whole = unbroken.learn(stream()[1])
    with frozen_state(broken), pytest.raises(Stopped):
        broken.learn(stream()[1], progress=stop_at(stage, 0.5))
    assert broken.store.scratches()
    rest = ConPET.open(broken.path).learn(stream()[1])
    assert digests(broken.tasks[1].active) == digests(unbroken.tasks[1].active)
    assert shared_digests(broken, CALIBRATION) == shared_digests(unbroken, CALIBRATION)
    assert broken.store.scratches() == []
    steps = {cost.stage: cost.steps for cost in rest.cost}
    assert steps.pop("lost") <= steps["module"] + steps["selector"]
    assert steps == {cost.stage: cost.steps for cost in whole.cost}


@pytest.mark.parametrize("batch", [1, 2])
def test_the_costs_of_all_attempts_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    monkeypatch.setattr(optimisation, "CHECKPOINT_SECONDS", -1.0)
    tasks = [replace(task, settings={"training.epochs": 12}) for task in stream()[1 : 1 + batch]]
    learner, straight = workspace(tmp_path, 1), workspace(tmp_path, 1, "straight")
    seen: list[str] = []

    def stop_at_the_third_step(stage: str, share: float) -> None:
        seen.append(stage)
        if seen.count("module") == 3:
            seen.clear()
            raise Stopped

    for _ in range(2):
        with pytest.raises(Stopped):
            learner.learn_batch(tasks, progress=stop_at_the_third_step)
    report = learner.learn_batch(tasks, progress=lambda stage, _: seen.append(stage))[-1]
    expected = straight.learn_batch(tasks)[-1]

    assert seen.count("resumed") == 1
    costs, needed = ({cost.stage: cost for cost in one.cost} for one in (report, expected))
    lost = costs.pop("lost")
    assert "lost" not in needed
    # Each attempt stopped before the checkpoint of its third step.
    assert (costs["module"].steps, lost.steps) == (needed["module"].steps, 2)
    assert costs["module"].tokens == needed["module"].tokens
    assert costs["module"].seconds + lost.seconds < report.seconds
    assert lost.seconds > 0
    assert f"of which {lost.seconds:.1f} s were lost to interruptions" in str(report)
    assert learner.store.events()[-1].costs[-1].stage == "lost"


def test_an_interruption_leaves_nothing_to_go_wrong_in_another_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimisation, "CHECKPOINT_SECONDS", -1.0)
    learner = workspace(tmp_path, 1)
    straight = workspace(tmp_path, 1, "straight")
    with pytest.raises(Stopped):
        learner.learn(stream()[2], progress=stop_at("module", 0.5))
    for one in (learner, straight):
        one.learn(stream()[1])
        assert one.store.scratches() == []  # no training can be resumed from there
        one.learn(stream()[2])
    assert [digests(task.active) for task in learner.tasks] == [digests(task.active) for task in straight.tasks]
    texts = [example.text for task in stream() for example in task.test]
    assert ask(learner, texts) == ask(straight, texts)


def test_the_smallest_task_is_learned_in_any_workspace(tmp_path: Path) -> None:
    learner = Trial(tmp_path, tiny_settings(selector="learned")).workspace()
    for task in toy_stream(2, 2, 1, 0, 0):
        assert learner.learn(task).tasks_seen == len(learner.tasks)
    assert learner.evaluate().whole_accuracy is None
