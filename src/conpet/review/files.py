"""Files that are put into review: texts, with or without labels, and exports of Label Studio."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from conpet.data import Example, Located
from conpet.data.raw import Note, ReadOptions
from conpet.data.readers import parsed_rows
from conpet.data.source import is_stdin
from conpet.errors import DataError, Problem, plural
from conpet.review.label_studio import AnnotatedInput, is_export, read_tasks


def read_annotated(path: str | Path) -> list[AnnotatedInput] | None:
    """Return the tasks of an export of Label Studio (`.json`); None if a file is none.

    Raises:
        DataError: A task is malformed.
    """
    if is_stdin(path) or not str(path).lower().endswith(".json"):
        return None
    try:
        document = json.loads(Path(path).read_bytes())
    except (OSError, ValueError):
        return None  # the reader of data files says what is wrong
    return read_tasks(document, str(path)) if is_export(document) else None


def read_rows(
    path: str | Path, options: ReadOptions | None = None, note: Callable[[str], None] | None = None
) -> Sequence[Example]:
    """Read the inputs of a file in any format that can be predicted, with labels where it has some.

    Args:
        path: The file; "-" for standard input.
        options: How to read it.
        note: Called with each note on how the file was read.

    Raises:
        DataError: A row or a label is wrong, or there are no rows; `problems` lists all of them.
    """
    rows, problems = [], []
    for row in parsed_rows(path, options, labelled=True, optional=True):
        if isinstance(row, Problem):
            problems.append(row)
        elif isinstance(row, Located):
            rows.append(row.example)
        elif isinstance(row, Note) and note is not None:
            note(str(row))
    if problems:
        raise DataError(f"{path}: {plural(len(problems), 'problem')}; nothing was imported", problems)
    if not rows:
        raise DataError(f"{path}: the file has no rows; nothing was imported")
    return rows
