"""Turn evaluations and costs into rows and objects of the store, and read stored answers; imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from conpet.artifact import TABLE_SUFFIX, Artifact
from conpet.cost import StageCost
from conpet.data import Example
from conpet.evaluation.answers import AnsweredExample
from conpet.state.slots import ANSWERS, HELD_OUT, MEMORY
from conpet.store import Cost, Metric, Reference, Snapshot, VersionRecord
from conpet.types import Evaluation

_TEST = "test"
_NAMES, _TASKS = "names", "tasks"
_LABELS, _ANSWERS, _BY, _SCORES, _ROWS = "labels", "answers", "by", "scores", "rows"
_DECIMALS = 6


@dataclass(frozen=True, slots=True)
class Recorded:
    """The rows of an event for the store."""

    metrics: tuple[Metric, ...]
    references: tuple[Reference, ...]
    costs: tuple[Cost, ...]
    confusion: dict[str, dict[str, int]] | None


def recorded(
    evaluation: Evaluation | None, stages: Iterable[StageCost], *, parameters: int = 0, head_parameters: int = 0
) -> Recorded:
    """Turn an evaluation and its costs into rows; trained parameters go into the row of the stage "module"."""
    rows = tuple(
        Cost(
            stage.stage,
            stage.seconds,
            stage.tokens,
            stage.cached_tokens,
            stage.steps,
            parameters=parameters if stage.stage == "module" else 0,
            head_parameters=head_parameters if stage.stage == "module" else 0,
            peak_bytes=stage.peak_bytes,
        )
        for stage in stages
    )
    if evaluation is None:
        return Recorded((), (), rows, None)
    metrics = tuple(
        Metric(task, name, measurement.value, measurement.n)
        for task, metrics in evaluation.tasks.items()
        for name, measurement in metrics.items()
    )
    references = tuple(
        Reference(name, measurement.value, measurement.n) for name, measurement in evaluation.references.items()
    )
    confusion = {task: dict(row) for task, row in evaluation.selector_confusion.items()}
    return Recorded(metrics, references, rows, confusion or None)


def answers_artifact(answers: Sequence[AnsweredExample]) -> Artifact:
    """Return the object that stores the answers to test examples, without their inputs.

    Its document has all names of labels and tasks, sorted, and for each task a number for each of its test examples:
    the index of its label, of the answer (-1 for a task without labels), of the task that answered, and the score.
    """
    return Artifact(documents={ANSWERS: _document(answers)})


def held_out_artifact(answers: Sequence[AnsweredExample]) -> Artifact:
    """Return the object that stores answers to validation examples: as for test examples, with their numbers."""
    document = _document(answers)
    for one in _in_order(answers):
        document[_TASKS][str(one.task)].setdefault(_ROWS, []).append(one.row)
    return Artifact(documents={HELD_OUT: document})


def stored_answers(snapshot: Snapshot) -> tuple[AnsweredExample, ...]:
    """Return the answers to the test examples after the last change; empty if it was not evaluated."""
    if ANSWERS not in snapshot.shared:
        return ()
    answers: list[AnsweredExample] = []
    document = snapshot.shared[ANSWERS].document(ANSWERS)
    for task in snapshot.tasks:
        answers += with_inputs(task.active, _TEST, _answers_of(document, task.name), lambda one: not one.correct)
    return tuple(answers)


def answers_about(snapshot: Snapshot, name: str) -> tuple[AnsweredExample, ...]:
    """Return the answers of `stored_answers`, with inputs only for the examples of one task."""
    if ANSWERS not in snapshot.shared:
        return ()
    answers: list[AnsweredExample] = []
    document = snapshot.shared[ANSWERS].document(ANSWERS)
    for task in snapshot.tasks:
        own = list(_answers_of(document, task.name))
        answers += with_inputs(task.active, _TEST, own, lambda one: not one.correct) if task.name == name else own
    return tuple(answers)


def stored_held_out(snapshot: Snapshot) -> list[AnsweredExample] | None:
    """Return the answers to held-out examples; None if the last change was made without the gate."""
    if HELD_OUT not in snapshot.shared:
        return None
    document = snapshot.shared[HELD_OUT].document(HELD_OUT)
    return [one for task in document[_TASKS] for one in _answers_of(document, task)]


def with_inputs(
    version: VersionRecord, subset: str, answers: Sequence[AnsweredExample], wanted: Callable[[AnsweredExample], bool]
) -> Iterator[AnsweredExample]:
    """Add the inputs of the wanted answers to stored examples of a version, if the workspace stores texts.

    Args:
        version: The version.
        subset: The subset of its examples: "validation" or "test".
        answers: The answers, in the order of their rows.
        wanted: Whether the input of an answer is needed.
    """
    memory = version.objects[MEMORY]
    rows = {one.row - 1 for one in answers if wanted(one)}
    stores_texts = f"{subset}{TABLE_SUFFIX}" in memory.manifest.files
    inputs = memory.rows(subset, rows) if rows and stores_texts else iter(())
    for one in answers:
        row = next(inputs, None) if one.row - 1 in rows else None
        yield one if row is None else replace(one, example=Example.from_json(dict(row)))


def _document(answers: Sequence[AnsweredExample]) -> dict[str, Any]:
    answered_labels = {one.answer for one in answers if one.answer is not None}
    names = sorted({one.label for one in answers} | answered_labels | {one.answered_by for one in answers})
    index = {name: number for number, name in enumerate(names)}
    tasks: dict[str, dict[str, list[float]]] = {}
    for one in _in_order(answers):
        columns = tasks.setdefault(str(one.task), {_LABELS: [], _ANSWERS: [], _BY: [], _SCORES: []})
        columns[_LABELS].append(index[one.label])
        columns[_ANSWERS].append(-1 if one.answer is None else index[one.answer])
        columns[_BY].append(index[one.answered_by])
        columns[_SCORES].append(round(one.score, _DECIMALS))
    return {_NAMES: names, _TASKS: tasks}


def _in_order(answers: Sequence[AnsweredExample]) -> list[AnsweredExample]:
    return sorted(answers, key=lambda one: (str(one.task), one.row))


def _answers_of(document: Mapping[str, Any], task: str) -> list[AnsweredExample]:
    """Return the stored answers to the examples of a task."""
    names, columns = document[_NAMES], document[_TASKS].get(task)
    if columns is None:
        return []
    numbers = columns.get(_ROWS) or range(1, 1 + len(columns[_LABELS]))
    rows = zip(columns[_LABELS], columns[_ANSWERS], columns[_BY], columns[_SCORES], numbers, strict=True)
    return [
        AnsweredExample(names[label], None if answer < 0 else names[answer], score, task, names[by], row)
        for label, answer, by, score, row in rows
    ]
