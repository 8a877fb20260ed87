"""What a running demo needs beside its tasks: questions that users ask, and the files of the exercise "First day"."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from conpet.api import ConPET
from conpet.data import Example
from conpet.data.stream_writer import write_folder
from conpet.demo.stream import demo_stream, packaged, packaged_rows

NEW_DEPARTMENT = "library.csv"
SLIPPED = "banking-slipped.csv"
_QUESTIONS_PER_REQUEST = 20


def demo_questions() -> tuple[Example, ...]:
    """Return 360 questions that are not among the demo's examples; 60 belong to no intent and have no label."""
    return tuple(Example.of_text(row["text"], row["label"], row["id"]) for row in packaged_rows("questions"))


def answer_questions(workspace: ConPET, questions: Sequence[Example] | None = None) -> int:
    """Record predictions with their inputs, and answer the questions unless the record has entries already.

    Args:
        workspace: The workspace of the demo.
        questions: The questions; by default those of the demo.

    Returns:
        Number of questions that were answered.
    """
    if workspace.settings.log.predictions != "text":
        workspace.set_log("text")
    if workspace.prediction_log.entries(limit=1):
        return 0
    asked = [Example.of_text(question.text) for question in (demo_questions() if questions is None else questions)]
    for first in range(0, len(asked), _QUESTIONS_PER_REQUEST):
        workspace.predict(asked[first : first + _QUESTIONS_PER_REQUEST])
    return len(asked)


def write_exercise(folder: str | Path) -> Path:
    """Write the files of the exercise "First day" and return the folder.

    `library.csv` is a new department with four labels. In `banking-slipped.csv`, the examples of the department banking
    have the labels of others, as if the column of labels had slipped down in a table.

    Raises:
        DataError: The path is not a folder, or contains other data; nothing is written.
    """
    return write_folder(folder, {NEW_DEPARTMENT: packaged(NEW_DEPARTMENT), SLIPPED: _slipped(demo_stream()[0].train)})


def _slipped(examples: Sequence[Example]) -> bytes:
    """Return a CSV file in which each label stands beside the texts of the label before it."""
    labels = [str(example.label) for example in examples]
    slip = labels.count(labels[-1])
    return _csv(zip((example.text for example in examples), [*labels[-slip:], *labels[:-slip]], strict=True))


def _csv(rows: Iterable[tuple[str | None, str]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("text", "label"))
    writer.writerows(rows)
    return text.getvalue().encode()
