"""Only the metrics read test labels: a planted method tries to read them in every change of a workspace."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from conpet import ConPET, Example, Task
from conpet.backbone.states import States
from conpet.commands.tune import examples_of
from conpet.context import TrainContext
from conpet.data import Kind
from conpet.errors import ConpetError, HiddenLabelsError
from conpet.methods import METHODS
from conpet.methods.base import Scores, TaskData
from conpet.methods.closed_form import NcmMethod
from conpet.methods.dynamic import DynamicMethod
from conpet.replay.memory import StoredExamples, Subset, cut_to
from conpet.replay.memory_writer import examples_without_test_labels, stored_examples
from conpet.state.inputs import EncodedInputs
from conpet.state.state import Names, State, TaskState
from conpet.state.update import SharedUpdate, TaskUpdate
from conpet.testing import Trial, live_of, tiny_settings, toy_stream


def wrongly_tested(task: Task) -> Task:
    """Return a task with each test label replaced by the next one, so that only a method that saw them is right."""
    following = dict(zip(task.labels, [*task.labels[1:], task.labels[0]], strict=True))
    return replace(task, test=tuple(one.labelled(following[str(one.label)]) for one in task.test))


STREAM = [wrongly_tested(task) for task in toy_stream(3, 3, 8, 2, 4)]
MORE = toy_stream(1, 3, 9, 2, 4, seed=1)[0]
"""Examples to extend the first task: other words under the same labels."""
LATENT = pytest.mark.parametrize("latent", [False, True], ids=["texts", "latent"])


def label_of(row: Any) -> Any:
    """Return the label in a row of a table, on disk or in memory."""
    return row.label if isinstance(row, Example) else row["label"]


ATTEMPTS: Sequence[Callable[[StoredExamples], list[Any]]] = (
    lambda source: source.labels(Subset.TEST),
    lambda source: [example.label for example in source.examples(Subset.TEST)],
    lambda source: [example.label for example in source.chosen(Subset.TEST, range(source.count(Subset.TEST)))],
    lambda source: source.reader.document("labels")["test"],
    lambda source: [label_of(row) for row in source.reader.rows("test")],
    lambda source: replace(source, task="mine").labels(Subset.TEST),
    lambda source: cut_to(source, [], represented=False).documents["labels"]["test"],
)


class PlantedMethod(NcmMethod):
    """Answers with the nearest class mean, except for test examples whose label it managed to read.

    It tries whatever it is handed, in every call, and keeps all of it for later ones.
    """

    name = "planted"
    found: dict[str, list[tuple[Tensor, str]]]
    failed: list[Exception]
    sources: dict[str, StoredExamples]
    predicted: list[Example]

    def learn_task(self, state: State, task_data: TaskData, context: TrainContext) -> TaskUpdate:
        self.steal(state, task_data.source, *context.memory)
        return super().learn_task(state, task_data, context)

    def update_shared(
        self, state: State, removed: TaskState, added: TaskState | None, context: TrainContext
    ) -> SharedUpdate:
        self.steal(state, *context.memory)
        return super().update_shared(state, removed, added, context)

    def relabel(self, state: State, task: TaskState, names: Names, context: TrainContext) -> TaskUpdate:
        self.steal(state, *context.memory)
        return super().relabel(state, task, names, context)

    def encode_stored(
        self, state: State, drawn: Sequence[tuple[StoredExamples, Sequence[int]]], subset: Subset
    ) -> EncodedInputs:
        self.steal(state, *(source for source, _ in drawn))
        return super().encode_stored(state, drawn, subset)

    def encode(self, state: State, examples: Sequence[Example], kind: Kind, *, keep: bool) -> EncodedInputs:
        self.predicted += examples
        return super().encode(state, examples, kind, keep=keep)

    def score(self, state: State, inputs: EncodedInputs, kind: Kind) -> Scores:
        self.steal(state, *self.sources.values())
        scores = super().score(state, inputs, kind)
        return Scores(self.cheated(state, scores.classes, next(iter(inputs.values())), [*self.found]))

    def within_task(self, state: State, inputs: EncodedInputs, owners: Tensor) -> Tensor:
        self.steal(state, *self.sources.values())
        task = state.tasks[int(owners[0])].name
        scores = super().within_task(state, inputs, owners)
        return self.cheated(state, scores, next(iter(inputs.values())), [task])

    def cheated(self, state: State, scores: Tensor, states: States, tasks: Sequence[str]) -> Tensor:
        """Return scores with those of the test examples seen before put right."""
        scores = scores.clone()
        for features, label in (one for task in tasks for one in self.found.get(task, ())):
            same = torch.cdist(states.features, features.unsqueeze(0)).squeeze(1) < 1e-3
            if label in state.classes:
                scores[same, state.classes.index(label)] = 1.0  # above any log-probability
        return scores

    def steal(self, state: State, *sources: StoredExamples) -> None:
        for source in sources:
            self.sources[source.task] = source
            for attempt in ATTEMPTS:
                self.attempt(source, lambda attempt=attempt, source=source: attempt(source))
            for task in state.tasks:
                for reader in task.objects.values():
                    self.attempt(source, lambda reader=reader: reader.document("labels")["test"])

    def attempt(self, source: StoredExamples, get: Callable[[], list[Any]]) -> None:
        try:
            labels = [label for label in get() if label is not None]
        except (ConpetError, LookupError, OSError) as error:
            self.failed.append(error)
            return
        if labels:
            features = source.states(self.backbone, Subset.TEST).features
            self.found[source.task] = list(zip(features, labels, strict=True))


@pytest.fixture(autouse=True)
def planted(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[PlantedMethod]]:
    """Register the planted method, before it has read any label."""
    METHODS.register("planted", PlantedMethod)
    for name, empty in {"found": {}, "failed": [], "sources": {}, "predicted": []}.items():
        monkeypatch.setattr(PlantedMethod, name, empty, raising=False)
    yield PlantedMethod
    METHODS.unregister("planted")


def taught(folder: Path, method: str, *, latent: bool) -> ConPET:
    """Return a workspace that learned a stream with an evaluation after each task."""
    learner = Trial(folder, tiny_settings(method=method, replay={"latent_only": latent})).workspace(method)
    for task in STREAM:
        learner.learn(task)
    return learner


@LATENT
def test_a_method_that_tries_finds_nothing_and_scores_as_the_honest_one(
    tmp_path: Path, planted: type[PlantedMethod], latent: bool
) -> None:
    learner, honest = (taught(tmp_path, method, latent=latent) for method in ("planted", "ncm"))
    assert learner.evaluate() == honest.evaluate()
    assert set(planted.sources) == {task.name for task in STREAM}
    assert any(isinstance(error, HiddenLabelsError) for error in planted.failed)
    assert planted.found == {}


@LATENT
def test_no_change_of_a_workspace_tells_a_method_test_labels(
    tmp_path: Path, planted: type[PlantedMethod], latent: bool
) -> None:
    learner = taught(tmp_path, "planted", latent=latent)
    first, second, third = STREAM
    learner.learn(replace(first, train=first.train[1:]))
    learner.rollback(first.name, 1)
    learner.rename(second.labels[0], "other")
    learner.retire(second.labels[1])
    learner.remove(third.name)
    if not latent:
        learner.extend(MORE)
    assert planted.found == {}


@LATENT
def test_the_same_method_is_right_about_all_where_it_is_not_kept_from_it(
    tmp_path: Path, planted: type[PlantedMethod], monkeypatch: pytest.MonkeyPatch, latent: bool
) -> None:
    """This shows that the attempts above would succeed if labels were not hidden."""
    monkeypatch.setattr(StoredExamples, "without_test_labels", lambda source: source)
    learner = taught(tmp_path, "planted", latent=latent)
    assert set(planted.found) == {task.name for task in STREAM}
    assert learner.evaluate().whole_accuracy == 1.0
    assert taught(tmp_path, "ncm", latent=latent).evaluate().whole_accuracy < 0.5


def test_a_method_that_is_evaluated_is_not_told_whose_examples_they_are(
    tmp_path: Path, planted: type[PlantedMethod], monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = taught(tmp_path, "planted", latent=False)
    monkeypatch.setattr(planted, "sources", {})
    learner.evaluate()
    assert planted.sources == {}


def test_a_method_is_asked_without_the_labels_of_what_it_is_asked(tmp_path: Path, planted: type[PlantedMethod]) -> None:
    learner = taught(tmp_path, "planted", latent=False)
    inputs = [example for task in STREAM for example in task.test]
    learner.predict(inputs)
    assert [example.text for example in planted.predicted] == [example.text for example in inputs]
    assert {example.label for example in planted.predicted} == {None}
    assert all(example.label for example in inputs)


@LATENT
def test_what_is_kept_of_a_task_has_its_test_labels_and_methods_see_all_but_those(tmp_path: Path, latent: bool) -> None:
    task = STREAM[0]
    named = replace(task, test=tuple(replace(one, id=f"{one.label}-7") for one in task.test))
    learner = Trial(tmp_path, tiny_settings(method="ncm", replay={"latent_only": latent})).taught([named])
    whole, without_test_labels = (
        view(learner.tasks[0].active) for view in (stored_examples, examples_without_test_labels)
    )
    assert whole.labels(Subset.TEST) == [example.label for example in task.test]
    for subset in (Subset.TRAIN, Subset.VALIDATION):
        assert without_test_labels.labels(subset) == whole.labels(subset)
    assert without_test_labels.count(Subset.TEST) == len(task.test)
    read, expected = (view.states(learner.backbone, Subset.TEST) for view in (without_test_labels, whole))
    assert torch.equal(read.features, expected.features)
    with pytest.raises(HiddenLabelsError, match=rf"task {task.name!r}: .* except the metrics"):
        without_test_labels.labels(Subset.TEST)
    if not latent:
        assert whole.examples(Subset.TEST) == list(named.test)
        assert without_test_labels.examples(Subset.TEST) == [one.labelled(None) for one in task.test]
        assert without_test_labels.examples(Subset.VALIDATION) == list(task.validation)


def test_neither_the_search_for_a_design_nor_a_merge_is_told_test_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = Trial(tmp_path, tiny_settings(training={"max_steps": 2})).taught(STREAM[:2])
    searched = [examples_of(learner.store.snapshot(), one, 0)[0] for one in (STREAM[0].name, STREAM[0])]
    merged: list[StoredExamples] = []

    def encode_stored(
        self: DynamicMethod, state: State, drawn: Sequence[tuple[StoredExamples, Sequence[int]]], subset: Subset
    ) -> EncodedInputs:
        merged.extend(source for source, _ in drawn)
        return NcmMethod.encode_stored(self, state, drawn, subset)

    monkeypatch.setattr(DynamicMethod, "encode_stored", encode_stored)
    learner.merge([task.name for task in STREAM[:2]], bound=100.0)
    assert {source.task for source in merged} == {task.name for task in STREAM[:2]}
    for source in (*searched, *merged):
        with pytest.raises(HiddenLabelsError):
            source.labels(Subset.TEST)


def test_a_method_knows_no_examples_of_its_tasks_but_those_it_is_handed(tmp_path: Path) -> None:
    learner = live_of(Trial(tmp_path, tiny_settings(method="ncm")).taught(STREAM))
    assert [set(task.objects) for task in learner.state.tasks] == [{"module"}] * 3
