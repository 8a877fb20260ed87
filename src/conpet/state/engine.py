"""The engine: predicts inputs from the live state."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from conpet.data import Example, Kind, check_example
from conpet.errors import ConfigError, DataError, Problem
from conpet.heads.base import Answer
from conpet.state.inputs import EncodedInputs
from conpet.state.live import Live, LiveState
from conpet.types import Candidate, Prediction

CHUNK = 256
"""Number of inputs per batch of a stream."""

Inputs = TypeVar("Inputs", bound=Iterable[str | Example])


class Engine:
    """Predicts inputs; one object serves any number of threads.

    Each call takes the live state once, so all its predictions come from the same generation.

    Args:
        live: The live state.
    """

    def __init__(self, live: LiveState) -> None:
        self._live = live

    def predict(self, inputs: Sequence[str | Example], *, runners_up: int = 2, first: int = 1) -> list[Prediction]:
        """Predict inputs: texts, or examples of any kind.

        Args:
            inputs: The inputs.
            runners_up: Number of further candidates to return with each answer, 0 or more.
            first: Number of the first input, used in error messages.

        Raises:
            ConfigError: `runners_up` is negative.
            DataError: An input is empty or malformed, or no task of its kind was learned.
        """
        if runners_up < 0:
            raise ConfigError(f"runners_up={runners_up}: give 0 or more")
        examples = [_example(number, item) for number, item in enumerate(require_several(inputs), start=first)]
        problems = [
            Problem("inputs", number, reason)
            for number, example in enumerate(examples, start=first)
            for reason in check_example(example)
        ]
        if problems:
            raise DataError(f"{len(problems)} of {len(examples)} inputs cannot be predicted", problems)
        return answer(self._live.now(), examples, runners_up, first)

    def predict_stream(self, inputs: Iterable[str | Example], *, runners_up: int = 2) -> Iterator[Prediction]:
        """Predict any number of inputs in constant memory; arguments and errors as in `predict`."""
        rest = iter(require_several(inputs))
        first = 1
        while chunk := list(islice(rest, CHUNK)):
            yield from self.predict(chunk, runners_up=runners_up, first=first)
            first += len(chunk)


def require_several(inputs: Inputs) -> Inputs:
    """Return the inputs.

    Raises:
        DataError: They are a single text (each character would be an input) or a single example.
    """
    if isinstance(inputs, str | Example):
        raise DataError("predict takes a list of inputs but got a single one; put it into a list: predict([...])")
    return inputs


def _example(number: int, item: object) -> Example:
    if isinstance(item, str):
        return Example.of_text(item)
    if not isinstance(item, Example):
        raise DataError(f"input {number} is a {type(item).__name__}; give texts or conpet.Example objects")
    return item.labelled(None)


def answer(live: Live, examples: Sequence[Example], runners_up: int, first: int = 1) -> list[Prediction]:
    """Predict examples, each among the tasks of its kind.

    Args:
        live: The live state.
        examples: Valid examples (see `conpet.data.check_example`).
        runners_up: Number of further candidates to return.
        first: Number of the first example, used in error messages.

    Raises:
        DataError: No task of an example's kind was learned.
    """
    answers: dict[int, Prediction] = {}
    for kind in Kind:
        rows = [row for row, example in enumerate(examples) if example.kind is kind]
        if rows:
            _check_kind(live, kind, [first + row for row in rows])
            groups = [[row] for row in rows] if live.method.backbone.deterministic else [rows]
            for together in groups:
                predictions = _predict_kind(live, kind, [examples[row] for row in together], runners_up)
                answers |= dict(zip(together, predictions, strict=True))
    return [answers[row] for row in range(len(examples))]


def _check_kind(live: Live, kind: Kind, numbers: Sequence[int]) -> None:
    tasks = live.state.tasks
    if not tasks:
        raise DataError("the workspace has no tasks yet; learn a task first")
    if bool(live.state.other_kind[kind].all()):
        learned = sorted({str(task.kind) for task in tasks})
        problems = [Problem("inputs", number, f"is of kind {kind}") for number in numbers]
        raise DataError(f"no task of kind {kind} was learned; the tasks are of kind {', '.join(learned)}", problems)


def _predict_kind(live: Live, kind: Kind, examples: Sequence[Example], runners_up: int) -> list[Prediction]:
    method, state = live.method, live.state
    inputs = method.encode(state, examples, kind, keep=False)
    scores = method.score(state, inputs, kind).classes
    # Decided by kind, not by score: a fusion may give probability 0 to classes that are possible.
    possible = (~state.impossible(kind)).nonzero().squeeze(1)
    best = scores[:, possible].topk(min(runners_up + 1, len(possible)), dim=1)
    columns, values = possible[best.indices].tolist(), best.values.exp().tolist()
    owners, classes = state.owner.tolist(), state.classes
    head_answers = _head_answers(live, inputs, [owners[row[0]] for row in columns])

    def candidate(column: int, score: float) -> Candidate:
        task = state.tasks[owners[column]]
        return Candidate(classes[column] if task.labels else None, score, task.name)

    predictions = []
    for row, (row_columns, row_scores) in enumerate(zip(columns, values, strict=True)):
        first, *rest = (candidate(column, score) for column, score in zip(row_columns, row_scores, strict=True))
        head_answer = head_answers.get(row)
        version = state.tasks[owners[row_columns[0]]].version
        value = first.label if head_answer is None else head_answer.value
        predictions.append(
            Prediction(first.label, first.score, first.task, version, tuple(rest), live.generation, value)
        )
    return predictions


def _head_answers(live: Live, inputs: EncodedInputs, owners: Sequence[int]) -> dict[int, Answer]:
    """Return the head's answers for the rows that a task without labels answers, by row."""
    answers: dict[int, Answer] = {}
    for index in dict.fromkeys(owners):
        if not live.state.tasks[index].labels:
            rows = [row for row, owner in enumerate(owners) if owner == index]
            answers |= dict(zip(rows, live.method.answers(live.state, inputs, rows, index), strict=True))
    return answers
