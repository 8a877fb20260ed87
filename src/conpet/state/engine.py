"""The engine: predicts inputs from the live state."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import Literal, TypeVar, overload

from conpet.data import Example, Input, Kind, check_example
from conpet.data.rows import RowError, to_example
from conpet.errors import DamagedModuleError, DataError, Problem, listed, plural
from conpet.heads.base import Answer
from conpet.state.inputs import EncodedInputs, cut_tokens
from conpet.state.live import Live, LiveState
from conpet.types import Candidate, OnError, Prediction, PredictOptions

CHUNK = 256
"""Number of inputs per batch of a stream."""

Inputs = TypeVar("Inputs", bound=Iterable[Input])


class Engine:
    """Predicts inputs; one object serves any number of threads.

    Each call takes the live state once, so all its predictions come from the same generation.

    Args:
        live: The live state.
    """

    def __init__(self, live: LiveState) -> None:
        self._live = live

    @overload
    def predict(
        self,
        inputs: Sequence[Input],
        *,
        top_n: int = ...,
        min_score: float = ...,
        on_error: Literal["fail", "skip"] = ...,
        first: int = ...,
    ) -> list[Prediction]: ...

    @overload
    def predict(
        self,
        inputs: Sequence[Input],
        *,
        top_n: int = ...,
        min_score: float = ...,
        on_error: OnError,
        first: int = ...,
    ) -> list[Prediction | Problem]: ...

    def predict(
        self,
        inputs: Sequence[Input],
        *,
        top_n: int = 3,
        min_score: float = 0.0,
        on_error: OnError = "fail",
        first: int = 1,
    ) -> Sequence[Prediction | Problem]:
        """Predict inputs: texts, examples of any kind, mappings with the fields of a row, or problems of reading.

        Args:
            inputs: The inputs.
            top_n: See `PredictOptions`.
            min_score: See `PredictOptions`.
            on_error: See `PredictOptions`.
            first: Number of the first input, used in error messages.

        Raises:
            ConfigError: An option is out of range.
            DataError: An input cannot be predicted and `on_error` is "fail", or there are no tasks.
            DamagedModuleError: Some inputs need a module that is damaged on disk, and `on_error` is "fail".
        """
        options = PredictOptions(top_n, min_score, on_error)
        live = self._live.now()
        items = _checked(live, require_several(inputs), first)
        # Whether an input fits is seen when it is encoded. To look beforehand would tokenize all inputs twice.
        with suppress(DataError):
            return _results(live, items, options, first)
        return _results(live, _fitting(live, items, first), options, first)

    @overload
    def predict_stream(
        self,
        inputs: Iterable[Input],
        *,
        top_n: int = ...,
        min_score: float = ...,
        on_error: Literal["fail", "skip"] = ...,
    ) -> Iterator[Prediction]: ...

    @overload
    def predict_stream(
        self, inputs: Iterable[Input], *, top_n: int = ..., min_score: float = ..., on_error: OnError
    ) -> Iterator[Prediction | Problem]: ...

    def predict_stream(
        self,
        inputs: Iterable[Input],
        *,
        top_n: int = 3,
        min_score: float = 0.0,
        on_error: OnError = "fail",
    ) -> Iterator[Prediction | Problem]:
        """Predict any number of inputs in constant memory; arguments and errors as in `predict`."""
        rest = iter(require_several(inputs))
        first = 1
        while chunk := list(islice(rest, CHUNK)):
            yield from self.predict(chunk, top_n=top_n, min_score=min_score, on_error=on_error, first=first)
            first += len(chunk)

    def check_inputs(self, inputs: Sequence[Input], *, first: int = 1) -> list[Problem]:
        """Return a problem for each input that `predict` cannot predict.

        Args:
            inputs: The inputs.
            first: Number of the first input.

        Raises:
            DataError: There are no tasks.
        """
        live = self._live.now()
        items = _fitting(live, _checked(live, require_several(inputs), first), first)
        return [item for item in items if isinstance(item, Problem)]


def require_several(inputs: Inputs) -> Inputs:
    """Return the inputs.

    Raises:
        DataError: They are a single text (each character would be an input), a single mapping (each key would be one),
            or another single value.
    """
    if isinstance(inputs, str | bytes | Example | Mapping):
        raise DataError("predict takes a list of inputs but got a single one; put it into a list: predict([...])")
    if not isinstance(inputs, Iterable):
        raise DataError(f"predict takes a list of inputs, not {inputs!r:.60}")
    return inputs


def answer(live: Live, examples: Sequence[Example], *, top_n: int = 3, min_score: float = 0.0) -> list[Prediction]:
    """Predict examples, each among the tasks of its kind.

    Args:
        live: The live state.
        examples: Valid examples (see `conpet.data.check_example`) of kinds that were learned.
        top_n: See `PredictOptions`.
        min_score: See `PredictOptions`.

    Raises:
        DataError: An example does not fit into the backbone.
        DamagedModuleError: Some of the examples need a module that is damaged on disk; their numbers count from 0.
    """
    answers: dict[int, Prediction] = {}
    for kind in Kind:
        rows = [row for row, example in enumerate(examples) if example.kind is kind]
        if rows:
            groups = [[row] for row in rows] if live.method.backbone.deterministic else [rows]
            for together in groups:
                try:
                    predictions = _predict_kind(live, kind, [examples[row] for row in together], top_n, min_score)
                except DamagedModuleError as error:
                    raise DamagedModuleError(str(error), [together[row] for row in error.inputs]) from None
                answers |= dict(zip(together, predictions, strict=True))
    return [answers[row] for row in range(len(examples))]


def _checked(live: Live, inputs: Iterable[object], first: int) -> list[Example | Problem]:
    """Return each input as an example, or the reason why it is none or has no task.

    Raises:
        DataError: There are no tasks.
    """
    tasks = live.state.tasks
    if not tasks:
        raise DataError("the workspace has no tasks yet; learn a task first")
    learned = ", ".join(sorted({str(task.kind) for task in tasks}))
    unknown = {kind for kind in Kind if bool(live.state.other_kind[kind].all())}
    spans = "; give tokens and spans, in a file (`conpet predict -i`) or as `conpet.Example`"

    def checked(number: int, item: object) -> Example | Problem:
        if isinstance(item, Problem):
            return item
        try:
            example = to_example(item, labelled=False).labelled(None)
        except RowError as error:
            return Problem("inputs", number, str(error), item.get("id") if isinstance(item, Mapping) else None)
        reasons = check_example(example)
        if example.kind in unknown:
            hint = spans if example.kind is Kind.TEXT else ""
            reasons.append(f"is of kind {example.kind}, but the tasks are of kind {learned}{hint}")
        return Problem("inputs", number, "; ".join(reasons), example.id) if reasons else example

    return [checked(number, item) for number, item in enumerate(inputs, start=first)]


def _fitting(live: Live, items: Sequence[Example | Problem], first: int) -> list[Example | Problem]:
    """Return the items with the reason in place of each example that does not fit into the backbone."""
    fitting = list(items)
    for kind in Kind:
        rows = [row for row, item in enumerate(items) if isinstance(item, Example) and item.kind is kind]
        examples = [item for item in items if isinstance(item, Example) and item.kind is kind]
        for template in live.state.templates(kind) if rows else ():
            for at, reason in live.method.backbone.unfit(examples, template).items():
                fitting[rows[at]] = Problem("inputs", first + rows[at], reason, examples[at].id)
    return fitting


def _results(
    live: Live, items: Sequence[Example | Problem], options: PredictOptions, first: int
) -> Sequence[Prediction | Problem]:
    """Return the predictions of examples, and problems as `options.on_error` says.

    Raises:
        DataError: There are problems and they are to fail, or an example does not fit into the backbone.
        DamagedModuleError: Examples need a damaged module, and problems are to fail.
    """
    problems = [item for item in items if isinstance(item, Problem)]
    if problems and options.on_error == "fail":
        raise DataError(
            f"{len(problems):,} of {len(items):,} inputs cannot be predicted; correct or remove them", problems
        )
    examples = [item for item in items if isinstance(item, Example)]
    try:
        predictions = answer(live, examples, top_n=options.top_n, min_score=options.min_score)
    except DamagedModuleError as error:
        numbers = [number for number, item in enumerate(items, start=first) if isinstance(item, Example)]
        needing = [numbers[at] for at in error.inputs]
        if options.on_error == "fail":
            raise DamagedModuleError(
                f"{error}. It is needed for {plural(len(needing), 'input')} ({listed(needing)}); the others can be "
                "predicted without them",
                needing,
            ) from None
        others = list(items)
        for number in needing:
            item = items[number - first]
            others[number - first] = Problem("inputs", number, str(error), item.id)
        return _results(live, others, options, first)
    if options.on_error != "report":
        return predictions
    rest = iter(predictions)
    return [item if isinstance(item, Problem) else next(rest) for item in items]


def _predict_kind(
    live: Live, kind: Kind, examples: Sequence[Example], top_n: int, min_score: float
) -> list[Prediction]:
    method, state = live.method, live.state
    inputs = method.encode(state, examples, kind, keep=False)
    scores = method.score(state, inputs, kind).classes
    # Decided by kind, not by score: a fusion may give probability 0 to classes that are possible.
    possible = (~state.impossible(kind)).nonzero().squeeze(1)
    best = scores[:, possible].topk(min(top_n, len(possible)), dim=1)
    columns, values = possible[best.indices].tolist(), best.values.exp().tolist()
    owners, classes = state.owner.tolist(), state.classes
    cut = cut_tokens(inputs)
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
        prediction = Prediction(
            first.label, first.score, first.task, version, tuple(rest), live.generation, value, cut_tokens=cut[row]
        )
        rejected = first.score < min_score
        predictions.append(replace(prediction, label=None, answer=None, rejected=value) if rejected else prediction)
    return predictions


def _head_answers(live: Live, inputs: EncodedInputs, owners: Sequence[int]) -> dict[int, Answer]:
    """Return the head's answers for the rows that a task without labels answers, by row."""
    answers: dict[int, Answer] = {}
    for index in dict.fromkeys(owners):
        if not live.state.tasks[index].labels:
            rows = [row for row, owner in enumerate(owners) if owner == index]
            answers |= dict(zip(rows, live.method.answers(live.state, inputs, rows, index), strict=True))
    return answers
