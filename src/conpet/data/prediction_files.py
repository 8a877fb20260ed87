"""Predictions for files of any size, written as JSONL or CSV in constant memory."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from enum import StrEnum
from itertools import tee
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from conpet.data import Example, read_inputs
from conpet.data.example import Id
from conpet.data.raw import ReadOptions
from conpet.data.source import STDIN
from conpet.errors import ConfigError, DataError
from conpet.types import Prediction

if TYPE_CHECKING:
    from conpet.api import ConPET

Answer = tuple[Example, Prediction]
Write = Callable[[Answer], None]


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


def checked_inputs(
    source: str, options: ReadOptions | None = None, note: Callable[[str], None] | None = None
) -> tuple[Iterator[Example], int | None]:
    """Check all rows of a file, then return a stream of its inputs and their number.

    A wrong row is therefore found before the first prediction. Standard input ("-") can be read only once: it is not
    checked first, and its number of inputs is None.

    Args:
        source: The file.
        options: How to read it.
        note: Called with each note on how it was read.

    Raises:
        DataError: A row is wrong.
    """
    given = asdict(options or ReadOptions())
    if source == STDIN:
        return read_inputs(source, note=note, **given), None
    try:
        total = sum(1 for _ in read_inputs(source, note=note, **given))
    except DataError as error:
        raise DataError(f"{error.summary}; nothing was predicted", error.problems) from error
    return read_inputs(source, **given), total


def answered(workspace: ConPET, inputs: Iterable[Example], runners_up: int) -> Iterator[Answer]:
    """Pair each input with its prediction; constant memory, arguments as in `ConPET.predict_stream`.

    Raises:
        DataError: An input is wrong; the message gives the number of inputs predicted before it.
    """
    kept, to_predict = tee(inputs)
    answered_so_far = 0
    try:
        for prediction in workspace.predict_stream(to_predict, runners_up=runners_up):
            yield next(kept), prediction
            answered_so_far += 1
    except DataError as error:
        before = f"; {answered_so_far:,} inputs before it were predicted" if answered_so_far else ""
        raise DataError(f"{error.summary}{before}", error.problems) from error


def write_answers(
    answers: Iterable[Answer],
    stream: TextIO,
    form: PredictionFormat,
    runners_up: int,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Write predictions with their inputs and return their number.

    JSONL has the fields of the input (`id`, `text` or `tokens` with spans) and of `Prediction.to_json`. CSV has
    `id`, `text` (tokens joined by blanks), `label`, `score`, `task`, `version`, and `label_2`, `score_2`, `task_2` and
    so on for the runners-up.

    Args:
        answers: Inputs with their predictions.
        stream: The file to write to.
        form: The format.
        runners_up: Number of runners-up; determines the columns of a CSV.
        progress: Called with 1 after each prediction.
    """
    write = _jsonl(stream) if form is PredictionFormat.JSONL else _csv(stream, runners_up)
    written = 0
    for answer in answers:
        write(answer)
        written += 1
        if progress:
            progress(1)
    return written


def answer_row(example: Example, prediction: Prediction) -> dict[str, Any]:
    """Return a prediction as a JSON-ready row: the id and content of the input, then the prediction."""
    content = {key: value for key, value in example.to_json().items() if key not in ("kind", "label", "id")}
    identifier = {"id": example.id} if example.id is not None else {}
    return {**identifier, **content, **prediction.to_json()}


def _jsonl(stream: TextIO) -> Write:
    def write(answer: Answer) -> None:
        stream.write(json.dumps(answer_row(*answer), ensure_ascii=False) + "\n")

    return write


def _csv(stream: TextIO, runners_up: int) -> Write:
    writer = csv.writer(stream, lineterminator="\n")
    ranks = range(2, runners_up + 2)
    others = [f"{name}_{rank}" for rank in ranks for name in ("label", "score", "task")]
    writer.writerow(["id", "text", "label", "score", "task", "version", *others])

    def write(answer: Answer) -> None:
        example, prediction = answer
        text = example.text or " ".join(example.tokens)
        cells = [cell for other in prediction.runners_up for cell in (other.label or "", other.score, other.task)]
        cells += [""] * (len(others) - len(cells))
        first = (prediction.shown, prediction.score, prediction.task, prediction.version)
        writer.writerow([_id_cell(example.id), text, *first, *cells])

    return write


def _id_cell(identifier: Id | None) -> str:
    """Return an id as a cell: text as it is, any other value as JSON."""
    if identifier is None or isinstance(identifier, str):
        return identifier or ""
    return json.dumps(identifier, ensure_ascii=False)
