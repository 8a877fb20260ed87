"""Predict files: any number of inputs in, JSONL or CSV out, in constant memory, all or nothing."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from itertools import tee
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from conpet.data import Example, read_inputs
from conpet.data.files import STDIN
from conpet.errors import ConfigError, DataError
from conpet.types import Prediction

if TYPE_CHECKING:
    from conpet.api import ConPET

Answer = tuple[Example, Prediction]
Write = Callable[[Answer], None]


class PredictionFormat(StrEnum):
    """How predictions are written."""

    JSONL = "jsonl"
    CSV = "csv"

    @classmethod
    def of(cls, path: Path) -> PredictionFormat:
        """Return the format a file's name asks for.

        Raises:
            ConfigError: It asks for none of them.
        """
        for one in cls:
            if path.suffix.lower() == f".{one}":
                return one
        raise ConfigError(
            f"{path}: predictions are written as {' or '.join(f'.{one}' for one in cls)}; name the file so"
        )


def checked_inputs(source: str) -> tuple[Iterator[Example], int | None]:
    """Read a file through, then return its inputs as a stream and how many they are: a wrong row costs no predictions.

    The standard input ("-") can be read only once: it is not checked beforehand, and its length is None.

    Raises:
        DataError: A row is wrong.
    """
    if source == STDIN:
        return read_inputs(source), None
    try:
        total = sum(1 for _ in read_inputs(source))
    except DataError as error:
        raise DataError(f"{error.summary}; nothing was predicted", error.problems) from error
    return read_inputs(source), total


def answered(workspace: ConPET, inputs: Iterable[Example], runners_up: int) -> Iterator[Answer]:
    """Pair each input with its prediction; constant memory, arguments as in `ConPET.predict_stream`.

    Raises:
        DataError: An input is wrong; the message says how many answers were given before.
    """
    mine, asked = tee(inputs)
    given = 0
    try:
        for prediction in workspace.predict_stream(asked, runners_up=runners_up):
            yield next(mine), prediction
            given += 1
    except DataError as error:
        before = f"; {given:,} inputs before it were predicted" if given else ""
        raise DataError(f"{error.summary}{before}", error.problems) from error


def write_answers(
    answers: Iterable[Answer],
    stream: TextIO,
    form: PredictionFormat,
    runners_up: int,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Write predictions with their inputs; return how many.

    JSONL has the input's own fields (`id`, `text` or `tokens` with spans) beside those of `Prediction.to_json`. CSV has
    `id`, `text` (tokens joined by blanks), `label`, `score`, `task`, `version`, and `label_2`, `score_2`, `task_2` and
    so on for the runners-up.

    Args:
        answers: Inputs with their predictions.
        stream: Where to write.
        form: The format.
        runners_up: Number of runners-up asked for (a CSV has columns for so many).
        progress: Called with 1 after each.
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
    """Return an answer as a JSON-ready row: the input's id and content, then the prediction."""
    given = {key: value for key, value in example.to_json().items() if key not in ("kind", "label", "id")}
    named = {"id": example.id} if example.id is not None else {}
    return {**named, **given, **prediction.to_json()}


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
        cells = [cell for one in prediction.runners_up for cell in (one.label or "", one.score, one.task)]
        cells += [""] * (len(others) - len(cells))
        first = (prediction.shown, prediction.score, prediction.task, prediction.version)
        writer.writerow([example.id or "", text, *first, *cells])

    return write
