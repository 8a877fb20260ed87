"""From a learner's scores to predictions a user reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from conpet.data import Example, Kind
from conpet.errors import DataError, Problem
from conpet.methods.base import Method
from conpet.types import Candidate, Prediction

Inputs = TypeVar("Inputs", bound=Iterable[str | Example])


def several(inputs: Inputs) -> Inputs:
    """Return the inputs unless they are but one.

    Raises:
        DataError: They are a text (each character would be an input) or an example.
    """
    if isinstance(inputs, str | Example):
        raise DataError("one input was given where a list of inputs is expected; put it into one: predict([...])")
    return inputs


def predictions(learner: Method, examples: Sequence[Example], runners_up: int, first: int = 1) -> list[Prediction]:
    """Predict examples, each among the labels of the tasks of its kind.

    Args:
        learner: The learner.
        examples: Sound examples (see `conpet.data.check_example`).
        runners_up: Number of further labels to give.
        first: Number of the first example, for messages.

    Raises:
        DataError: No task of an example's kind was learned.
    """
    answers: dict[int, Prediction] = {}
    for kind in Kind:
        rows = [row for row, example in enumerate(examples) if example.kind is kind]
        if rows:
            _check_kind(learner, kind, [first + row for row in rows])
            found = _of_kind(learner, kind, [examples[row] for row in rows], runners_up)
            answers |= dict(zip(rows, found, strict=True))
    return [answers[row] for row in range(len(examples))]


def _check_kind(learner: Method, kind: Kind, numbers: Sequence[int]) -> None:
    if not learner.state.tasks:
        raise DataError("nothing was learned yet, so nothing can be predicted; learn a task first")
    if bool(learner.other_kind[kind].all()):
        learned = sorted({str(task.kind) for task in learner.state.tasks})
        problems = [Problem("inputs", number, f"is of kind {kind}") for number in numbers]
        have = f"the tasks learned are of kind {', '.join(learned)}"
        raise DataError(f"no task of kind {kind} was learned: {have}", problems)


def _of_kind(learner: Method, kind: Kind, examples: Sequence[Example], runners_up: int) -> list[Prediction]:
    scores = learner.score(learner.readings(examples, kind, keep=False), kind).labels
    # By kind, not by score: a rule may give labels no probability that could be meant.
    possible = (~learner.other_kind[kind])[learner.owner].nonzero().squeeze(1)
    best = scores[:, possible].topk(min(runners_up + 1, len(possible)), dim=1)
    owners, labels, tasks = learner.owner.tolist(), learner.labels, learner.state.tasks
    answers = []
    for columns, values in zip(possible[best.indices].tolist(), best.values.exp().tolist(), strict=True):
        first, *others = (
            Candidate(labels[column], value, tasks[owners[column]].name)
            for column, value in zip(columns, values, strict=True)
        )
        version = tasks[owners[columns[0]]].version
        answers.append(Prediction(first.label, first.score, first.task, version, tuple(others)))
    return answers
