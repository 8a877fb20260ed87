"""Evaluate a workspace without changing it."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from conpet.artifact import InMemoryObject
from conpet.commands.base import evaluate_tests
from conpet.context import Progress
from conpet.data import Example, check_example
from conpet.data.example import Kind
from conpet.data.quality.rows import input_identity
from conpet.data.rows import Input, RowError, to_example
from conpet.data.truncation import CutInputs
from conpet.errors import CorruptionError, DamagedModuleError, DataError, Problem, plural
from conpet.evaluation.answers import AnsweredExample, UnansweredExample
from conpet.evaluation.history import SETTINGS_ONLY, learned_by, matrix_of
from conpet.evaluation.metrics import Row
from conpet.replay.memory import StoredExamples, Subset, text_memory
from conpet.replay.memory_writer import examples_without_test_labels, stored_examples
from conpet.state.engine import answer, fitting
from conpet.state.live import Live
from conpet.state.state import TaskState
from conpet.state.statistics import learned_from_validation
from conpet.store import Store
from conpet.types import Evaluation, TrainedOn

EXAMPLES = "examples"
"""Name of the caller's examples in error messages."""


def evaluate_workspace(live: Live, store: Store, progress: Progress) -> Evaluation:
    """Evaluate the live state on the stored test examples; its row replaces the last event's in the matrix."""
    tasks = live.snapshot.tasks
    evaluation = evaluate_tests(
        live.method, live.state, {task.name: stored_examples(task.active) for task in tasks}, progress
    )
    events = [event for event in store.events() if event.id <= live.generation and event.verb not in SETTINGS_ONLY]
    *earlier, last = events
    matrix = matrix_of(earlier).followed_by(Row(learned_by(last), evaluation.tallies))
    return replace(evaluation, matrix=matrix)


def evaluate_examples(live: Live, examples: Iterable[Input], progress: Progress) -> Evaluation:
    """Evaluate the live state on labelled examples of the caller; see `ConPET.evaluate`."""
    owners = {label: task for task in live.state.tasks for label in task.labels}
    numbered = _checked(live, _several(examples), owners)
    known = {number: example for number, example in numbered.items() if example.label in owners}
    if not known:
        labels = ", ".join(repr(label) for label in list(owners)[:20])
        raise DataError(
            f"no example has a label that the workspace has learned ({labels or 'none yet'}): check the spelling of "
            "the labels, or learn the task first"
        )
    rows: dict[str, list[int]] = {}
    for number, example in known.items():
        rows.setdefault(owners[str(example.label)].name, []).append(number)
    tests = {
        task.name: _as_tests(task, [known[number] for number in rows[task.name]])
        for task in live.state.tasks
        if task.name in rows
    }
    evaluation = evaluate_tests(live.method, live.state, tests, progress)
    answers = [replace(one, row=rows[str(one.task)][one.row - 1]) for one in evaluation.answers]
    unanswered = [replace(one, row=rows[str(one.task)][one.row - 1]) for one in evaluation.unanswered]
    unknown = _answer_unknown(live, {number: one for number, one in numbered.items() if number not in known})
    return replace(
        evaluation,
        answers=tuple(sorted(answers, key=lambda one: one.row)),
        unknown=unknown.answers,
        cut=evaluation.cut.plus(unknown.cut),
        unanswered=tuple(sorted([*unanswered, *unknown.unanswered], key=lambda one: one.row)),
        trained_on=_trained_on(live, numbered),
    )


def _several(examples: Iterable[Input]) -> Sequence[Input]:
    if isinstance(examples, str | bytes | Example | Mapping) or not isinstance(examples, Iterable):
        raise DataError(f"evaluate takes labelled examples, not a {type(examples).__name__}: give a list of them")
    given = list(examples)
    if not given:
        raise DataError("there are no examples: give at least one labelled example")
    return given


def _checked(live: Live, given: Sequence[Input], owners: dict[str, TaskState]) -> dict[int, Example]:
    """Return the examples by their numbers from 1.

    Raises:
        DataError: Some cannot be evaluated; `problems` lists all of them.
    """
    kinds = {task.kind for task in live.state.tasks}
    found: list[Example | Problem] = []
    problems = []
    for number, item in enumerate(given, start=1):
        example, reasons = _read(item)
        if example is not None:
            reasons = [*check_example(example), *_label_reasons(example, owners, kinds)]
        wrong = [Problem(EXAMPLES, number, reason) for reason in reasons]
        problems += wrong
        found.append(wrong[0] if example is None or wrong else example)
    problems += [
        Problem(EXAMPLES, one.row, one.reason)
        for one, before in zip(fitting(live, found, 1), found, strict=True)
        if isinstance(one, Problem) and one is not before
    ]
    if problems:
        count = len({problem.row for problem in problems})
        raise DataError(
            f"{count:,} of {plural(len(given), 'example')} cannot be evaluated; correct or remove them",
            sorted(problems, key=lambda problem: problem.row or 0),
        )
    return {number: one for number, one in enumerate(found, start=1) if isinstance(one, Example)}


def _read(item: Input) -> tuple[Example | None, list[str]]:
    """Return an example, or why there is none."""
    if isinstance(item, Problem):
        return None, [item.reason]
    try:
        return to_example(item), []
    except RowError as error:
        return None, [str(error)]


def _label_reasons(example: Example, owners: Mapping[str, TaskState], kinds: Collection[Kind]) -> list[str]:
    owner = owners.get(example.label or "")
    if example.label is None or not example.label.strip():
        return ["missing label"]
    if owner is not None and owner.kind is not example.kind:
        return [
            f"is a {example.kind} example, but its label {example.label!r} belongs to task {owner.name!r} of kind "
            f"{owner.kind}"
        ]
    if example.kind not in kinds:
        return [f"is a {example.kind} example, and no task of that kind was learned"]
    return []


def _as_tests(task: TaskState, examples: Sequence[Example]) -> StoredExamples:
    """Return examples of a task as if they were its stored test examples."""
    memory = text_memory({Subset.TRAIN: (), Subset.VALIDATION: (), Subset.TEST: examples})
    return StoredExamples(task.name, task.template, task.kind, InMemoryObject(memory))


class _Unknown(NamedTuple):
    """Examples whose label was not learned; every answer to them is wrong."""

    answers: tuple[AnsweredExample, ...] = ()
    unanswered: tuple[UnansweredExample, ...] = ()
    cut: CutInputs = CutInputs()


def _answer_unknown(live: Live, examples: dict[int, Example]) -> _Unknown:
    """Answer examples whose label was not learned."""
    try:
        predictions = answer(live, [example.labelled(None) for example in examples.values()], top_n=1)
    except DamagedModuleError as error:
        numbers = list(examples)
        needing = {numbers[at] for at in error.inputs}
        rest = _answer_unknown(live, {number: one for number, one in examples.items() if number not in needing})
        unanswered = (
            UnansweredExample(str(examples[number].label), None, number, str(error)) for number in sorted(needing)
        )
        return rest._replace(unanswered=(*unanswered, *rest.unanswered))
    answered = tuple(
        AnsweredExample(str(example.label), prediction.label, prediction.score, None, prediction.task, number, example)
        for (number, example), prediction in zip(examples.items(), predictions, strict=True)
    )
    return _Unknown(answered, cut=CutInputs.of(prediction.cut_tokens for prediction in predictions))


def _trained_on(live: Live, examples: dict[int, Example]) -> TrainedOn:
    """Compare the examples with the stored examples of all tasks that answers were learned from."""
    asked = {input_identity(example) for example in examples.values()}
    trained: set[object] = set()
    compared = total = 0
    for task in live.snapshot.tasks:
        stored = examples_without_test_labels(task.active)
        refit = live.method.refits and learned_from_validation(task.active.objects)
        for subset in (Subset.TRAIN, Subset.VALIDATION) if refit else (Subset.TRAIN,):
            total += task.active.description["counts"][subset]
            if stored.latent:
                continue
            try:
                trained |= asked.intersection(map(input_identity, stored.examples(subset)))
            except CorruptionError as error:  # not needed for the answers
                warnings.warn(str(error), stacklevel=2)
            else:
                compared += stored.count(subset)
    numbers = tuple(number for number, example in examples.items() if input_identity(example) in trained)
    return TrainedOn(numbers, max(0, total - compared))
