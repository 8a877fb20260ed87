"""The overhead of learning a task does not grow with the number of tasks; counted, not timed."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from sqlalchemy import Engine, event

from conpet import ConPET
from conpet.artifact import ArtifactReader
from conpet.backbone.backbone import Backbone
from conpet.commands.gate import NEAREST
from conpet.features import logistic
from conpet.features.logistic import LogisticRegression
from conpet.modules.pool import ModulePool
from conpet.state import logistic as state_logistic
from conpet.store import Change, Store
from conpet.testing import ask, toy_stream
from tests.helpers.store import STEPS, commit, describe_snapshot, history, learn, make_store, module
from tests.helpers.workspaces import stream, workspace

TASKS = toy_stream(26, 2, 4, 2, 1)


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Count database statements, JSON documents decoded, and files of objects read."""
    counts: Counter[str] = Counter()

    def note(kind: str, call: Any) -> Any:
        def noted(*arguments: Any, **named: Any) -> Any:
            counts[kind] += 1
            return call(*arguments, **named)

        return noted

    def statement(*arguments: object) -> None:
        counts["statements"] += 1

    event.listen(Engine, "before_cursor_execute", statement)
    with monkeypatch.context() as patched:
        patched.setattr(json.JSONDecoder, "decode", note("documents", json.JSONDecoder.decode))
        patched.setattr(ArtifactReader, "_path", note("files", ArtifactReader._path))
        yield counts
    event.remove(Engine, "before_cursor_execute", statement)


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "lda"},
        {"method": "dynamic"},
        {"selector.name": "learned", "selector.steps": 2, "selector.top_k": 2, "fusion.name": "paper"},
        {"method": "emr", "replay": "fixed"},
        {"method": "ewc"},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_a_late_task_costs_what_an_early_one_does(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = workspace(
        tmp_path,
        **{"training.epochs": 1, "training.batch_size": 4},
        **{"fusion.calibration_examples": 4, "refusal.held_out_examples": 1, "gate.examples": 1},
        **settings,
    )
    costs = []
    for number, task in enumerate(TASKS):
        with counted(monkeypatch) as counts:
            learner.learn(task, evaluate=False)
        if number in (9, len(TASKS) - 1):
            costs.append(counts)
    early, late = costs
    assert early["statements"] == late["statements"] > 0
    for kind in ("documents", "files"):  # of few old examples, drawn for several ends, each may be of another task
        assert late[kind] <= early[kind] + 12 + NEAREST  # the gate reads examples of the labels nearest to the new ones


def test_a_late_task_runs_and_trains_what_an_early_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_logistic, "MAX_EXAMPLES", 16)
    monkeypatch.setattr(state_logistic, "MAX_OTHERS", 4)
    monkeypatch.setattr(logistic, "REVISED", 4)
    learner = workspace(
        tmp_path,
        **{"training.epochs": 1, "fusion.calibration_examples": 4, "refusal.held_out_examples": 4},
        **{"fusion.skip_above": 1e-6, "gate.label_margin": 99, "gate.task_margin": 99, "gate.whole_margin": 99},
    )
    reports, works = [], []
    for task in TASKS[:16]:
        with worked(monkeypatch) as work:
            reports.append(learner.learn(task, evaluate=False).gate)
        works.append(work)
    assert reports[-1].compared == 4 * (len(works) - 1)  # every held-out example of all earlier tasks
    early, late = works[5], works[-1]
    assert early["texts"] > 0 < early["weights"]
    for kind in ("texts", "outputs", "weights"):
        assert late[kind] <= early[kind] + 4, kind  # of few old examples, drawn by chance, some are drawn twice


@contextmanager
def worked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Count texts turned into token ids, outputs of modules, and the weights trained times the examples they see."""
    work: Counter[str] = Counter()
    encode, outputs, fit, trained = Backbone.encode, ModulePool.outputs, LogisticRegression.fit, torch.optim.LBFGS
    rows = [0]

    def encoded(self: Backbone, examples: Any, *more: Any) -> Any:
        work["texts"] += len(examples)
        return encode(self, examples, *more)

    def computed(self: ModulePool, states: Any, requested: Any) -> Any:
        work["outputs"] += sum(map(len, requested))
        return outputs(self, states, requested)

    def fitted(self: LogisticRegression, features: Any, *more: Any, **named: Any) -> Any:
        rows[0] = len(features)
        found = fit(self, features, *more, **named)
        rows[0] = 0
        return found

    def optimised(parameters: Any, **named: Any) -> Any:
        work["weights"] += rows[0] * parameters[0].numel()
        return trained(parameters, **named)

    with monkeypatch.context() as patched:
        patched.setattr(Backbone, "encode", encoded)
        patched.setattr(ModulePool, "outputs", computed)
        patched.setattr(LogisticRegression, "fit", fitted)
        patched.setattr(torch.optim, "LBFGS", optimised)
        yield work


def test_cached_features_change_no_answer(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2)
    answered = []
    for number in range(2):
        with ConPET.open(shutil.copytree(learner.path, tmp_path / str(number))) as copy:
            copy.learn(stream()[2], evaluate=False)  # the second time, features of held-out examples are in the cache
            answered.append(copy.store.snapshot().shared["held_out"].document("held_out"))
    assert answered[0] == answered[1]


def test_what_is_kept_in_memory_equals_what_is_read_afresh_after_every_kind_of_change(tmp_path: Path) -> None:
    store = make_store(tmp_path / "ws")
    other, idle = Store.open(store.path), Store.open(store.path)
    for step in range(STEPS):
        commit(store if step % 2 else other, history(step))
        afresh = describe_snapshot(Store.open(store.path).snapshot())
        assert afresh == describe_snapshot(store.snapshot()) == describe_snapshot(other.snapshot())
        event = store.events()[-1]
        assert event.bytes_stored == sum(reader.bytes for reader in store.snapshot().readers())
    for again in (learn("b", 5.0), learn("c"), learn("b"), Change("remove", "a", remove=True), learn("a")):
        commit(other, again)
        assert describe_snapshot(store.snapshot()) == describe_snapshot(Store.open(store.path).snapshot())
    assert describe_snapshot(idle.snapshot()) == describe_snapshot(store.snapshot())  # it missed all of them


def test_what_is_kept_in_memory_keeps_nothing_on_the_disk(tmp_path: Path) -> None:
    store = make_store(tmp_path / "ws")
    commit(store, learn("a", shared={"selector": module(1.0)}))
    held = store.snapshot().shared["selector"]
    commit(store, learn("b", shared={"selector": module(2.0)}))
    assert held.document("adapter_config") == {"r": 1.0}
    store.snapshot().close()
    folder = held.folder
    assert folder.exists()
    del held
    commit(store, Change("x"))
    assert not folder.exists()


def test_workspaces_see_each_others_changes_of_every_kind(tmp_path: Path) -> None:
    first = workspace(tmp_path, 2)
    second = ConPET.open(first.path)
    label = first.labels[0]
    texts = ["one", "two"]
    changes = [
        lambda one: one.rename(label, "another name", evaluate=False),
        lambda one: one.rollback(first.tasks[0].name, 1, evaluate=False),
        lambda one: one.merge([task.name for task in one.tasks], bound=100.0, evaluate=False),
        lambda one: one.remove(one.tasks[1].name, evaluate=False),
        lambda one: one.learn(TASKS[0], evaluate=False),
    ]
    for number, change in enumerate(changes):
        change((first, second)[number % 2])
        afresh = ConPET.open(first.path)
        assert ask(first, texts) == ask(second, texts) == ask(afresh, texts)
        assert describe(first) == describe(second) == describe(afresh)


def describe(learner: ConPET) -> list[Any]:
    return [
        (one.id, one.task, one.number, one.active, one.labels, one.description, sorted(one.objects), one.bytes)
        for one in learner.store.snapshot().versions
    ]
