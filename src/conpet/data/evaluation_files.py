"""Labelled files to evaluate on, and files of their answers."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from conpet.data.checks import Located, check_example
from conpet.data.example import Example
from conpet.data.prediction_files import PredictionFormat
from conpet.data.raw import ReadOptions
from conpet.data.readers import parsed_rows
from conpet.data.source import source_name
from conpet.errors import DataError, Problem, plural
from conpet.evaluation.answers import AnsweredExample, UnansweredExample

_COLUMNS = ("row", "id", "text", "label", "answer", "score", "answered_by", "correct")


def read_labelled(
    path: str | Path, options: ReadOptions | None = None, note: Callable[[str], None] | None = None
) -> list[Located]:
    """Read the labelled rows of a file, or of standard input ("-").

    Args:
        path: The file, as in `read_task`; standard input as in `read_inputs`.
        options: How to read it.
        note: Called with each note on how it was read.

    Raises:
        DataError: A row is wrong or has no label, or there are no rows; `problems` lists all of them.
    """
    name = source_name(path)
    rows: list[Located] = []
    problems: list[Problem] = []
    for row in parsed_rows(path, options, labelled=True):
        if isinstance(row, Located):
            rows.append(row)
            problems += [row.problem(reason) for reason in _reasons(row.example)]
        elif isinstance(row, Problem):
            problems.append(row)
        elif note:
            note(str(row))
    if problems:
        hint = "" if any(problem.ends_reading for problem in problems) else ". Correct or remove these rows"
        raise DataError(f"{name}: {plural(len(problems), 'problem')}; nothing was evaluated{hint}", problems)
    if not rows:
        raise DataError(f"{name}: the file has no rows; give a file with labelled rows")
    return rows


def _reasons(example: Example) -> list[str]:
    """List what is wrong with a labelled example."""
    missing = example.label is None or not example.label.strip()
    return [*check_example(example), *(["missing label"] if missing else [])]


def write_evaluated(
    rows: Sequence[Located],
    answers: Mapping[int, AnsweredExample | UnansweredExample],
    stream: TextIO,
    form: PredictionFormat,
) -> None:
    """Write rows with their label, answer and score.

    JSONL has the fields of the input and `row`, `label`, `answer`, `score`, `answered_by` and `correct`. CSV has the
    same with the input as one column, `text` (tokens joined by blanks). A row that needs a damaged module has `error`
    instead of an answer; the CSV has this column only if there is such a row.

    Args:
        rows: The rows.
        answers: The answer to each, by its number among `rows` from 1.
        stream: The file to write to.
        form: The format.
    """
    writer = csv.writer(stream, lineterminator="\n")
    incomplete = any(isinstance(one, UnansweredExample) for one in answers.values())
    columns = (*_COLUMNS, "error") if incomplete else _COLUMNS
    if form is PredictionFormat.CSV:
        writer.writerow(columns)
    for number, located in enumerate(rows, start=1):
        answered = _answer_fields(located, answers[number])
        if form is PredictionFormat.CSV:
            example = located.example
            fields = {"id": example.id, "text": example.content, **answered}
            writer.writerow(["" if (value := fields.get(name)) is None else value for name in columns])
        else:
            content = {key: value for key, value in located.example.to_json().items() if key not in ("kind", "label")}
            stream.write(json.dumps({"row": located.row, **content, **answered}, ensure_ascii=False) + "\n")


def _answer_fields(located: Located, one: AnsweredExample | UnansweredExample) -> dict[str, Any]:
    if isinstance(one, UnansweredExample):
        return {"row": located.row, "label": one.label, "error": one.reason}
    return {
        "row": located.row,
        "label": one.label,
        "answer": one.answer,
        "score": one.score,
        "answered_by": one.answered_by,
        "correct": one.correct,
    }
