"""Predictions for files of any size, written as JSONL or CSV in constant memory."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Protocol, TextIO

from conpet.data import Example, Located, count_inputs, read_input_rows
from conpet.data.example import Id
from conpet.data.raw import ReadOptions
from conpet.data.source import STDIN
from conpet.data.truncation import CutInputs
from conpet.errors import ConfigError, DataError, Problem, plural
from conpet.types import OnError, Prediction, PredictOptions

Row = Located | Problem
Answer = tuple[Example, Prediction]
Write = Callable[[Answer | Problem], None]

CHUNK = 256
"""Number of rows predicted at a time."""


class Predictor(Protocol):
    """What predicts rows: a workspace (`ConPET`), or a server."""

    def predict(
        self, inputs: Sequence[str | Example], *, top_n: int, min_score: float, on_error: OnError
    ) -> list[Prediction | Problem]:
        """Predict inputs; see `ConPET.predict`."""

    def check_inputs(self, inputs: Sequence[Example]) -> list[Problem]:
        """Return a problem for each input that cannot be predicted; see `ConPET.check_inputs`."""

    def cut_note(self, cut: CutInputs, what: str) -> str | None:
        """Return a sentence on inputs that were cut, or None; see `ConPET.cut_note`."""


class PredictionFormat(StrEnum):
    """File format of predictions."""

    JSONL = "jsonl"
    CSV = "csv"

    @classmethod
    def of(cls, path: Path) -> PredictionFormat:
        """Return the format for the suffix of a file name.

        Raises:
            ConfigError: The suffix matches no format.
        """
        for form in cls:
            if path.suffix.lower() == f".{form}":
                return form
        raise ConfigError(
            f"{path}: unknown output format; use a file name ending in {' or '.join(f'.{form}' for form in cls)}"
        )


@contextmanager
def opened_rows(
    predictor: Predictor,
    source: str,
    on_error: OnError,
    options: ReadOptions | None = None,
    note: Callable[[str], None] | None = None,
) -> Iterator[tuple[Iterable[Row], int | None]]:
    """Yield a stream of the rows of a file, and their number if it is known; constant memory.

    With `on_error="fail"`, all rows are checked first. Standard input can be read only once, so its rows are kept in a
    temporary file until they are predicted.

    Args:
        predictor: What is to predict them.
        source: A file, or "-" for standard input.
        on_error: What to do with wrong rows.
        options: How to read it.
        note: Called with each note on how it was read.

    Raises:
        DataError: Rows are wrong, and `on_error` is "fail"; the message names all of them.
    """
    if on_error != "fail":
        yield read_input_rows(source, options, note), count_inputs(source, options)
    elif source != STDIN:
        total = _check_rows(predictor, source, read_input_rows(source, options, note))
        yield read_input_rows(source, options), total
    else:
        with TemporaryFile("w+", encoding="utf-8") as kept:
            total = _check_rows(predictor, "standard input", _keeping(read_input_rows(source, options, note), kept))
            kept.seek(0)
            yield _kept_rows(kept), total


def text_rows(predictor: Predictor, texts: Iterable[str], on_error: OnError) -> list[Row]:
    """Return texts as rows.

    Raises:
        DataError: Texts cannot be predicted, and `on_error` is "fail"; the message names all of them.
    """
    rows: list[Row] = [Located("inputs", number, Example.of_text(text)) for number, text in enumerate(texts, start=1)]
    if on_error == "fail":
        _check_rows(predictor, "inputs", rows)
    return rows


def _check_rows(predictor: Predictor, name: str, rows: Iterable[Row]) -> int:
    """Check all rows and return their number."""
    problems: list[Problem] = []
    total = 0
    for chunk in _chunks(rows):
        problems += [row for row in chunk if isinstance(row, Problem)]
        located = [row for row in chunk if isinstance(row, Located)]
        found = predictor.check_inputs([row.example for row in located])
        problems += [located[(problem.row or 1) - 1].problem(problem.reason) for problem in found]
        total += len(chunk)
    if not problems:
        return total
    summary = f"{name}: {plural(len(problems), 'problem')}; nothing was predicted"
    if not any(problem.ends_reading for problem in problems):
        summary += ". Correct these rows, or use `--on-error skip` (leave them out) or `report` (write their errors)"
    raise DataError(summary, problems)


def _keeping(rows: Iterable[Row], kept: TextIO) -> Iterator[Row]:
    """Yield rows, and write those that can be predicted to a file."""
    for row in rows:
        if isinstance(row, Located):
            kept.write(json.dumps([row.file, row.row, row.example.to_json()]) + "\n")
        yield row


def _kept_rows(kept: TextIO) -> Iterator[Row]:
    for file, row, example in map(json.loads, kept):
        yield Located(file, row, Example.from_json(example))


def _chunks(rows: Iterable[Row]) -> Iterator[list[Row]]:
    rest = iter(rows)
    while chunk := list(islice(rest, CHUNK)):
        yield chunk


def answered(predictor: Predictor, rows: Iterable[Row], options: PredictOptions) -> Iterator[Answer | Problem]:
    """Pair each row with its prediction, and yield the problem of each that cannot be predicted; constant memory.

    Args:
        predictor: What predicts them.
        rows: The rows.
        options: The options of the predictions.

    Raises:
        DataError: A row cannot be predicted and `options.on_error` is "fail", or the rest of the rows cannot be read;
            the message gives the number of rows before it.
    """
    done = 0
    for chunk in _chunks(rows):
        examples = [row.example for row in chunk if isinstance(row, Located)]
        predictions = iter(
            predictor.predict(examples, top_n=options.top_n, min_score=options.min_score, on_error="report")
        )
        for row in chunk:
            found = row if isinstance(row, Problem) else next(predictions)
            if isinstance(row, Located) and isinstance(found, Problem):
                found = row.problem(found.reason)
            if isinstance(found, Problem) and (options.on_error == "fail" or found.ends_reading):
                before = f"; {plural(done, 'row')} before it had been read" if done else ""
                what = f"{found.file} cannot be read" if found.ends_reading else "a row cannot be predicted"
                raise DataError(f"{what}{before}", [found])
            done += 1
            if isinstance(row, Located) and isinstance(found, Prediction):
                yield row.example, found
            elif isinstance(found, Problem):
                yield found


@dataclass(slots=True)
class Written:
    """What was written.

    Attributes:
        predictions: Number of predictions.
        rejected: Number of these whose answer was rejected.
        asked: Number of these that ask which of several candidates is right.
        declined: Number of these that belong to nothing learned.
        problems: Number of rows that could not be predicted.
        first_problems: The first of them.
        cut: How many of the inputs are longer than `backbone.max_tokens`.
    """

    SHOWN = 5

    predictions: int = 0
    rejected: int = 0
    asked: int = 0
    declined: int = 0
    problems: int = 0
    first_problems: list[Problem] = field(default_factory=list)
    cut: CutInputs = field(default_factory=CutInputs)

    def count(self, answer: Answer | Problem) -> None:
        """Count an answer."""
        if not isinstance(answer, Problem):
            self.predictions += 1
            self.rejected += answer[1].rejected is not None
            self.asked += answer[1].decision == "ask"
            self.declined += answer[1].decision == "decline"
            self.cut = self.cut.plus(CutInputs.of([answer[1].cut_tokens]))
            return
        self.problems += 1
        if len(self.first_problems) < self.SHOWN:
            self.first_problems.append(answer)


def write_answers(
    answers: Iterable[Answer | Problem],
    stream: TextIO,
    form: PredictionFormat,
    options: PredictOptions,
    progress: Callable[[int], None] | None = None,
) -> Written:
    """Write predictions with their inputs; with `options.on_error="report"`, also the problems of other rows.

    JSONL has the fields of the input (`id`, `text` or `tokens` with spans) and of `Prediction.to_json`; of a problem,
    `id`, `row` and `error`. CSV has `id`, `text` (tokens joined by blanks), `label`, `score`, `task`, `version`, and
    `label_2`, `score_2`, `task_2` and so on for the runners-up, `decision`, `reason`, `in_scope`, `confidence`, and
    `candidates` (a JSON list of labels) with `candidates_score`; `rejected` only with `min_score`, `row` and `error`
    (of problems) only with `on_error="report"`.

    Args:
        answers: Inputs with their predictions, and problems.
        stream: The file to write to.
        form: The format.
        options: The options of the predictions; they determine the columns of a CSV.
        progress: Called with 1 after each row.
    """
    write = _jsonl(stream) if form is PredictionFormat.JSONL else _csv(stream, options)
    written = Written()
    for answer in answers:
        if not isinstance(answer, Problem) or options.on_error == "report":
            write(answer)
        written.count(answer)
        if progress:
            progress(1)
    return written


def answer_row(answer: Answer | Problem) -> dict[str, Any]:
    """Return a JSON-ready row: id and content of the input, then the prediction; or id, row and error."""
    if isinstance(answer, Problem):
        return {**_identifier(answer.id), "row": answer.row, "error": answer.reason}
    example, prediction = answer
    content = {key: value for key, value in example.to_json().items() if key not in ("kind", "label", "id")}
    return {**_identifier(example.id), **content, **prediction.to_json()}


def _identifier(value: Any) -> dict[str, Any]:
    return {} if value is None else {"id": value}


def _jsonl(stream: TextIO) -> Write:
    def write(answer: Answer | Problem) -> None:
        stream.write(json.dumps(answer_row(answer), ensure_ascii=False) + "\n")

    return write


def _csv(stream: TextIO, options: PredictOptions) -> Write:
    ranks = range(2, options.top_n + 1)
    columns = ["id", "text", "label", "score", "task", "version"]
    columns += [f"{name}_{rank}" for rank in ranks for name in ("label", "score", "task")]
    columns += ["decision", "reason", "in_scope", "confidence", "candidates", "candidates_score"]
    columns += ["rejected"] if options.min_score else []
    columns += ["row", "error"] if options.on_error == "report" else []
    writer = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
    writer.writeheader()

    def write(answer: Answer | Problem) -> None:
        if isinstance(answer, Problem):
            writer.writerow({"id": _id_cell(answer.id), "row": answer.row, "error": answer.reason})
        else:
            writer.writerow(_csv_row(*answer))

    return write


def _csv_row(example: Example, prediction: Prediction) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": _id_cell(example.id),
        "text": example.content,
        "label": prediction.shown,
        "score": prediction.score,
        "task": prediction.task,
        "version": prediction.version,
    }
    for rank, other in enumerate(prediction.runners_up, start=2):
        row |= {f"label_{rank}": other.label or "", f"score_{rank}": other.score, f"task_{rank}": other.task}
    row |= {name: getattr(prediction, name) for name in ("decision", "reason", "in_scope", "confidence")}
    if prediction.candidates:
        listed = [candidate.shown for candidate in prediction.candidates]
        row |= {"candidates": json.dumps(listed, ensure_ascii=False), "candidates_score": prediction.candidates_score}
    return row if prediction.rejected is None else {**row, "rejected": prediction.rejected}


def _id_cell(identifier: Id | None) -> str:
    """Return an id as a cell: text as it is, any other value as JSON."""
    if identifier is None or isinstance(identifier, str):
        return identifier or ""
    return json.dumps(identifier, ensure_ascii=False)
