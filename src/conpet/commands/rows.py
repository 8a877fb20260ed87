"""Turn evaluations and costs into rows and objects of the store, and read stored answers; imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from conpet.artifact import TABLE_SUFFIX, Artifact
from conpet.cost import StageCost
from conpet.data import Example
from conpet.evaluation.answers import AnsweredExample
from conpet.state.slots import ANSWERS, MEMORY
from conpet.store import Cost, Metric, Reference, Snapshot, VersionRecord
from conpet.types import Evaluation

_TEST = "test"
_NAMES, _TASKS = "names", "tasks"
_LABELS, _ANSWERS, _BY, _SCORES = "labels", "answers", "by", "scores"
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
    answered_labels = {one.answer for one in answers if one.answer is not None}
    names = sorted({one.label for one in answers} | answered_labels | {one.answered_by for one in answers})
    index = {name: number for number, name in enumerate(names)}
    tasks: dict[str, dict[str, list[float]]] = {}
    for one in sorted(answers, key=lambda one: (str(one.task), one.row)):
        columns = tasks.setdefault(str(one.task), {_LABELS: [], _ANSWERS: [], _BY: [], _SCORES: []})
        columns[_LABELS].append(index[one.label])
        columns[_ANSWERS].append(-1 if one.answer is None else index[one.answer])
        columns[_BY].append(index[one.answered_by])
        columns[_SCORES].append(round(one.score, _DECIMALS))
    return Artifact(documents={ANSWERS: {_NAMES: names, _TASKS: tasks}})


def stored_answers(snapshot: Snapshot) -> tuple[AnsweredExample, ...]:
    """Return the answers to the test examples after the last change; empty if it was not evaluated."""
    if ANSWERS not in snapshot.shared:
        return ()
    document = snapshot.shared[ANSWERS].document(ANSWERS)
    names = document[_NAMES]
    answers: list[AnsweredExample] = []
    for task in snapshot.tasks:
        columns = document[_TASKS].get(task.name)
        if columns is None:
            continue
        rows = zip(columns[_LABELS], columns[_ANSWERS], columns[_BY], columns[_SCORES], strict=True)
        answered = (
            AnsweredExample(names[label], None if answer < 0 else names[answer], score, task.name, names[by], row)
            for row, (label, answer, by, score) in enumerate(rows, start=1)
        )
        answers += _with_inputs(task.active, list(answered))
    return tuple(answers)


def _with_inputs(version: VersionRecord, answers: Sequence[AnsweredExample]) -> Iterator[AnsweredExample]:
    """Add the inputs of wrong answers, if the workspace stores texts."""
    memory = version.objects[MEMORY]
    wrong = {one.row - 1 for one in answers if not one.correct}
    stores_texts = f"{_TEST}{TABLE_SUFFIX}" in memory.manifest.files
    inputs = memory.rows(_TEST, wrong) if wrong and stores_texts else iter(())
    for one in answers:
        row = None if one.correct else next(inputs, None)
        yield one if row is None else replace(one, example=Example.from_json(dict(row)))
