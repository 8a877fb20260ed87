"""The engine: predicts inputs from the live state."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from time import thread_time
from typing import Literal, TypeVar, overload

import torch

from conpet.cost import metered, spending
from conpet.data import Example, Input, Kind, check_example
from conpet.data.rows import RowError, id_of, to_example
from conpet.errors import DamagedModuleError, DataError, Problem, listed, plural
from conpet.heads.base import Answer
from conpet.methods.base import Scores
from conpet.resident import release_unused
from conpet.state.explain import explain as explained_by
from conpet.state.explain import task_scores
from conpet.state.inputs import EncodedInputs, cut_tokens
from conpet.state.live import Live, LiveState
from conpet.state.recorder import Recorder
from conpet.state.refusal import Verdict, judge
from conpet.store.usage import Usage
from conpet.types import Candidate, OnError, Prediction, PredictOptions, Trace

CHUNK = 256
"""Number of inputs per batch of a stream."""
RELEASE_EVERY = 0.5
"""Seconds of computing after which memory is released, so that a release costs little beside it."""

Inputs = TypeVar("Inputs", bound=Iterable[Input])


class Engine:
    """Predicts inputs; one object serves any number of threads.

    Each call takes the live state once, so all its predictions come from the same generation.

    Args:
        live: The live state.
        usage: Counts the answers and their cost, or None.
        recorder: Records predictions, if the settings say so; None to record none.
    """

    def __init__(self, live: LiveState, usage: Usage | None = None, recorder: Recorder | None = None) -> None:
        self._live = live
        self._usage = usage
        self._recorder = recorder
        self._until_release = 0.0

    @overload
    def predict(
        self,
        inputs: Sequence[Input],
        *,
        top_n: int = ...,
        min_score: float = ...,
        on_error: Literal["fail", "skip"] = ...,
        tasks: Collection[str] | None = ...,
        explain: bool = ...,
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
        tasks: Collection[str] | None = ...,
        explain: bool = ...,
        first: int = ...,
    ) -> list[Prediction | Problem]: ...

    def predict(
        self,
        inputs: Sequence[Input],
        *,
        top_n: int = 3,
        min_score: float = 0.0,
        on_error: OnError = "fail",
        tasks: Collection[str] | None = None,
        explain: bool = False,
        first: int = 1,
    ) -> Sequence[Prediction | Problem]:
        """Predict inputs: texts, examples of any kind, mappings with the fields of a row, or problems of reading.

        Args:
            inputs: The inputs.
            top_n: See `PredictOptions`.
            min_score: See `PredictOptions`.
            on_error: See `PredictOptions`.
            tasks: Names of the tasks to answer among; None for all.
            explain: See `PredictOptions`.
            first: Number of the first input, used in error messages.

        Raises:
            ConfigError: An option is out of range, or `tasks` is empty.
            UnknownNameError: One of `tasks` was not learned.
            DataError: An input cannot be predicted and `on_error` is "fail", or there are no tasks.
            DamagedModuleError: Some inputs need a module that is damaged on disk, and `on_error` is "fail".
            ReadOnlyError: Predictions are to be recorded, but nothing can be written.
        """
        options = PredictOptions(top_n, min_score, on_error, explain)
        live = self._live.now()
        if tasks is not None:
            live = live.among(tasks)
        items = _checked(live, require_several(inputs), first)
        recorder = self._recorder
        if recorder is not None and not recorder.begin(live.method.settings.log):
            recorder = None
        started = thread_time()
        try:
            with spending() as spent, metered() as meter:
                results = self._results(live, items, options, first, recorder)
        finally:
            self._answered(thread_time() - started)
        if self._usage is not None:
            backbone = live.method.backbone
            self._usage.answered(one for one in results if isinstance(one, Prediction))
            share = backbone.suffix_share
            self._usage.spent(live.generation, spent(), meter, suffix_share=share, gpu=backbone.on_gpu)
            if self._usage.due:
                self._usage.flush()
        return results

    @staticmethod
    def _results(
        live: Live,
        items: Sequence[Example | Problem],
        options: PredictOptions,
        first: int,
        recorder: Recorder | None,
    ) -> Sequence[Prediction | Problem]:
        # Whether an input fits is seen when it is encoded. To look beforehand would tokenize all inputs twice.
        with suppress(DataError):
            return _results(live, items, options, first, recorder)
        return _results(live, fitting(live, items, first), options, first, recorder)

    def _answered(self, seconds: float) -> None:
        """Release memory after the first inputs, for which classifiers were fitted, and from time to time."""
        self._until_release -= seconds
        if self._until_release < 0:
            self._until_release = RELEASE_EVERY
            release_unused()

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
        items = fitting(live, _checked(live, require_several(inputs), first), first)
        return [item for item in items if isinstance(item, Problem)]


def require_several(inputs: Inputs, what: str = "predict") -> Inputs:
    """Return the inputs of the function named `what`.

    Raises:
        DataError: They are a single text (each character would be an input), a single mapping (each key would be one),
            or another single value.
    """
    if isinstance(inputs, str | bytes | Example | Mapping):
        raise DataError(f"{what} takes a list of inputs but got a single one; put it into a list: {what}([...])")
    if not isinstance(inputs, Iterable):
        raise DataError(f"{what} takes a list of inputs, not {inputs!r:.60}")
    return inputs


def answer(
    live: Live,
    examples: Sequence[Example],
    *,
    top_n: int = 3,
    min_score: float = 0.0,
    explain: bool = False,
    traced: bool = False,
) -> list[Prediction]:
    """Predict examples, each among the tasks of its kind.

    Args:
        live: The live state.
        examples: Valid examples (see `conpet.data.check_example`) of kinds that were learned.
        top_n: See `PredictOptions`.
        min_score: See `PredictOptions`.
        explain: See `PredictOptions`.
        traced: Whether to return how each answer came about (`Prediction.trace`).

    Raises:
        DataError: An example does not fit into the backbone.
        DamagedModuleError: Some of the examples need a module that is damaged on disk; their numbers count from 0.
    """
    answers: dict[int, Prediction] = {}
    damage: dict[int, str] = {}
    for kind in Kind:
        rows = [row for row, example in enumerate(examples) if example.kind is kind]
        if rows:
            groups = [[row] for row in rows] if live.method.backbone.deterministic else [rows]
            for together in groups:
                try:
                    predictions = _predict_kind(
                        live, kind, [examples[row] for row in together], top_n, explain=explain, traced=traced
                    )
                except DamagedModuleError as error:
                    damage |= dict.fromkeys((together[row] for row in error.inputs), str(error))
                else:
                    answers |= dict(zip(together, predictions, strict=True))
    if damage:
        raise DamagedModuleError("; ".join(dict.fromkeys(damage.values())), sorted(damage))
    return [answers[row].with_options(top_n, min_score) for row in range(len(examples))]


def unanswerable(live: Live) -> dict[Kind, str]:
    """Return why inputs cannot be predicted, for each kind of which there is no task, or none that may answer.

    Raises:
        DataError: There are no tasks.
    """
    if not live.state.tasks:
        raise DataError("the workspace has no tasks yet; learn a task first")
    unknown = [kind for kind in Kind if bool(live.state.other_kind[kind].all())]
    learned = ", ".join(sorted(str(kind) for kind in Kind if kind not in unknown))
    tasks = "the tasks" if live.state.only is None else "the given tasks"
    spans = "; give tokens and spans, in a file (`conpet predict -i`) or as `conpet.Example`"
    return {
        kind: f"is of kind {kind}, but {tasks} are of kind {learned}{spans if kind is Kind.TEXT else ''}"
        for kind in unknown
    }


def _checked(live: Live, inputs: Iterable[object], first: int) -> list[Example | Problem]:
    """Return each input as an example, or the reason why it is none or has no task.

    Raises:
        DataError: There are no tasks.
    """
    no_task = unanswerable(live)

    def checked(number: int, item: object) -> Example | Problem:
        if isinstance(item, Problem):
            return item
        try:
            example = to_example(item, labelled=False).labelled(None)
        except RowError as error:
            return Problem("inputs", number, str(error), id_of(item) if isinstance(item, Mapping) else None)
        reasons = check_example(example)
        if example.kind in no_task:
            reasons.append(no_task[example.kind])
        return Problem("inputs", number, "; ".join(reasons), example.id) if reasons else example

    return [checked(number, item) for number, item in enumerate(inputs, start=first)]


def fitting(live: Live, items: Sequence[Example | Problem], first: int) -> list[Example | Problem]:
    """Return the items, with the reason in place of each example that does not fit into the backbone.

    Args:
        live: The live state.
        items: Examples of kinds that were learned, and problems.
        first: Number of the first item.
    """
    fit = list(items)
    for kind in Kind:
        rows = [row for row, item in enumerate(items) if isinstance(item, Example) and item.kind is kind]
        examples = [item for item in items if isinstance(item, Example) and item.kind is kind]
        for template in live.state.templates(kind) if rows else ():
            for at, reason in live.method.backbone.unfit(examples, template).items():
                fit[rows[at]] = Problem("inputs", first + rows[at], reason, examples[at].id)
    return fit


def _results(
    live: Live,
    items: Sequence[Example | Problem],
    options: PredictOptions,
    first: int,
    recorder: Recorder | None,
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
        predictions = answer(
            live,
            examples,
            top_n=options.top_n,
            min_score=options.min_score,
            explain=options.explain,
            traced=recorder is not None,
        )
    except DamagedModuleError as error:
        numbers = [number for number, item in enumerate(items, start=first) if isinstance(item, Example)]
        needing = [numbers[at] for at in error.inputs]
        if options.on_error == "fail":
            raise DamagedModuleError(
                f'{error}. It is needed for {plural(len(needing), "input")} ({listed(needing)}); on_error="skip" or '
                '"report" predicts the others',
                needing,
            ) from None
        others = list(items)
        for number in needing:
            item = items[number - first]
            others[number - first] = Problem("inputs", number, str(error), item.id)
        return _results(live, others, options, first, recorder)
    if recorder is not None and examples:
        predictions = recorder.record(live.method.settings.log, examples, predictions)
    if options.on_error != "report":
        return predictions
    rest = iter(predictions)
    return [item if isinstance(item, Problem) else next(rest) for item in items]


def _predict_kind(
    live: Live, kind: Kind, examples: Sequence[Example], top_n: int, *, explain: bool, traced: bool
) -> list[Prediction]:
    method, state = live.method, live.state.refitted
    inputs = method.encode(state, examples, kind, keep=False)
    all_scores = method.score(state, inputs, kind)
    scores = all_scores.classes
    # Decided by kind, not by score: a fusion may give probability 0 to classes that are possible.
    possible = (~state.impossible(kind)).nonzero().squeeze(1)
    best = scores[:, possible].topk(min(top_n, len(possible)), dim=1)
    columns, values = possible[best.indices].tolist(), best.values.exp().tolist()
    owners, classes = state.owner.tolist(), state.classes
    cut = cut_tokens(inputs)
    verdicts = judge(method, state, inputs, kind, scores)
    head_answers = _head_answers(live, inputs, [owners[row[0]] for row in columns])
    traces = _traces(live, all_scores, verdicts) if traced else [None] * len(columns)

    def candidate(column: int, score: float) -> Candidate:
        task = state.tasks[owners[column]]
        return Candidate(classes[column] if task.labels else None, score, task.name)

    predictions = []
    for row, (row_columns, row_scores) in enumerate(zip(columns, values, strict=True)):
        first, *rest = (candidate(column, score) for column, score in zip(row_columns, row_scores, strict=True))
        head_answer = head_answers.get(row)
        version = state.tasks[owners[row_columns[0]]].version
        value = first.label if head_answer is None else head_answer.value
        verdict = verdicts[row]
        choice = verdict.choice
        predictions.append(
            Prediction(
                first.label,
                first.score,
                first.task,
                version,
                tuple(rest),
                live.generation,
                value,
                cut_tokens=cut[row],
                decision=choice.decision,
                reason=choice.reason,
                in_scope=verdict.in_scope,
                confidence=verdict.confidence,
                candidates=tuple(map(candidate, choice.columns, choice.probabilities)),
                trace=traces[row],
            )
        )
    if not explain:
        return predictions
    explanations = explained_by(live, kind, inputs, all_scores)
    return [replace(one, explanation=why) for one, why in zip(predictions, explanations, strict=True)]


def _traces(live: Live, scores: Scores, verdicts: Sequence[Verdict]) -> Sequence[Trace | None]:
    """Return how the answer to each input came about."""
    by_task = task_scores(live, scores.classes) if scores.tasks is None else scores.tasks
    selector = by_task.amax(dim=1).exp().tolist()
    ran: list[list[tuple[str, int]]] = [[] for _ in verdicts]
    if scores.ran is not None:
        tasks = live.state.tasks
        of_task = torch.zeros((len(scores.ran), len(tasks)), dtype=torch.float32)
        of_task.index_add_(1, live.state.owner, scores.ran.float())
        for row, index in of_task.nonzero().tolist():
            ran[row].append((tasks[index].name, tasks[index].version))
    return [
        Trace(likeliest, verdict.scope, tuple(modules))
        for likeliest, verdict, modules in zip(selector, verdicts, ran, strict=True)
    ]


def _head_answers(live: Live, inputs: EncodedInputs, owners: Sequence[int]) -> dict[int, Answer]:
    """Return the head's answers for the rows that a task without labels answers, by row."""
    answers: dict[int, Answer] = {}
    for index in dict.fromkeys(owners):
        if not live.state.tasks[index].labels:
            rows = [row for row, owner in enumerate(owners) if owner == index]
            answers |= dict(zip(rows, live.method.answers(live.state, inputs, rows, index), strict=True))
    return answers
