"""Shared parts of the benchmark readers: collect wrong rows, and count the rows left out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from conpet.data.checks import check_example
from conpet.data.example import Example
from conpet.data.files import raw_rows
from conpet.data.labelled import Grouping, LabelledData
from conpet.data.raw import Note, RawRow, ReadOptions
from conpet.data.rows import RowError
from conpet.errors import DataError, Problem, plural, reason_of

Row = TypeVar("Row")
_BRACKETS = {"-LRB-": "(", "-RRB-": ")", "-LSB-": "[", "-RSB-": "]", "-LCB-": "{", "-RCB-": "}"}


class Reading:
    """A data set while it is read.

    Attributes:
        name: The data set's name.
        folder: Its folder.
        problems: All problems found so far.
        notes: Notes for the user on how it was read.
        left_out: Number of inputs left out, by reason.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self.problems: list[Problem] = []
        self.notes: list[str] = []
        self.left_out: Counter[str] = Counter()

    def examples(
        self, path: Path, rows: Iterable[tuple[int | None, Row]], parse: Callable[[Row], Iterable[Example]]
    ) -> tuple[Example, ...]:
        """Parse the rows of a file; wrong rows become problems.

        Args:
            path: The file.
            rows: Numbered rows.
            parse: Yields a row's examples, or raises `RowError`.
        """
        return tuple(example for number, row in rows for example in self._parsed(path, number, row, parse))

    def table(
        self, path: Path, options: ReadOptions | None = None, *, labelled: bool = False
    ) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Yield the numbered rows of a file in one of `conpet.data.files.FORMATS`; wrong rows become problems."""
        for row in raw_rows(path, options, labelled=labelled):
            if isinstance(row, RawRow):
                yield row.row, row.fields
            elif isinstance(row, Note):
                self.notes.append(f"{path.name}: {row.text}")
            else:
                self.problems.append(row)

    def data(
        self,
        subsets: Mapping[str, Sequence[Example]],
        groupings: Mapping[str, Grouping] | None = None,
        out_of_scope: Sequence[Example] = (),
    ) -> LabelledData:
        """Return the data, without inputs that a subset repeats with another label.

        Args:
            subsets: Examples of "train" and, if there are any, of "validation" and "test".
            groupings: As in `LabelledData`; labels without a training example are removed.
            out_of_scope: As in `LabelledData`.

        Raises:
            DataError: There are problems.
        """
        if not subsets["train"] and not self.problems:
            self.problems.append(Problem(str(self.folder), None, "no usable training example"))
        if self.problems:
            raise DataError(
                f"{self.name} cannot be read from {self.folder}: {plural(len(self.problems), 'problem')}", self.problems
            )
        kept = {subset: tuple(self._consistent(examples)) for subset, examples in subsets.items()}
        known = {example.label for example in kept["train"] if example.label is not None}
        learnable = {way: self._learnable(way, tasks, known) for way, tasks in (groupings or {}).items()}
        counted = [f"left out: {count:,} {what}" for what, count in sorted(self.left_out.items())]
        return LabelledData(
            self.name,
            **kept,
            groupings=learnable,
            out_of_scope=tuple(out_of_scope),
            notes=(*self.notes, *counted),
        )

    def _parsed(
        self, path: Path, number: int | None, row: Row, parse: Callable[[Row], Iterable[Example]]
    ) -> Iterator[Example]:
        try:
            for example in parse(row):
                reasons = check_example(example)
                self.problems += [Problem(str(path), number, reason) for reason in reasons]
                if not reasons:
                    yield example
        except RowError as error:
            self.problems.append(Problem(str(path), number, str(error)))

    def _learnable(self, way: str, tasks: Grouping, known: Collection[str]) -> Grouping:
        if lacking := {label for labels in tasks.values() for label in labels} - set(known):
            self.notes.append(f"labels of {way} without a training example: {listed(lacking)}")
        kept = {task: tuple(label for label in labels if label in known) for task, labels in tasks.items()}
        return {task: labels for task, labels in kept.items() if labels}

    def _consistent(self, examples: Sequence[Example]) -> Iterator[Example]:
        first: dict[tuple[Any, ...], str | None] = {}
        for example in examples:
            if first.setdefault(example.input_key, example.label) == example.label:
                yield example
            else:
                self.left_out["inputs that occur earlier in the same subset with another label"] += 1


def json_file(path: Path, shape: type, expected: str) -> Any:
    """Read a JSON file.

    Args:
        path: The file.
        shape: Required type of the outermost value: `dict` or `list`.
        expected: The expected content, for the error message.

    Raises:
        DataError: The file is missing, empty, truncated, or has other content.
    """
    text = _text(path)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _wrong(path, f"not valid JSON ({error}); is the file complete? Expected {expected}") from None
    if not isinstance(value, shape):
        raise _wrong(path, f"expected {expected}, found {shown(value)}")
    return value


def text_lines(path: Path) -> list[tuple[int, str]]:
    """Return the numbered lines of a text file, without line ends.

    Raises:
        DataError: The file is missing, empty, or not UTF-8.
    """
    return list(enumerate(_text(path).split("\n"), start=1))


def json_line(line: str) -> dict[str, Any]:
    """Read one line of a file of JSON lines.

    Raises:
        RowError: It is not a JSON object.
    """
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RowError(f"not valid JSON ({error}); is the file complete?") from None
    if not isinstance(value, dict):
        raise RowError(f"expected a JSON object, found {shown(value)}")
    return value


def field(row: Any, name: str, shape: type, expected: str) -> Any:
    """Return a field of a JSON object.

    Raises:
        RowError: It is missing, or not of the type `shape` (named `expected` in the message).
    """
    if not isinstance(row, Mapping):
        raise RowError(f"expected a JSON object, found {shown(row)}")
    if name not in row:
        raise RowError(f"missing field {name!r}; fields: {', '.join(map(str, row)) or 'none'}")
    value = row[name]
    if not isinstance(value, shape) or isinstance(value, bool):
        raise RowError(f"{name} must be {expected}, not {shown(value)}")
    return value


def words(row: Any, name: str) -> tuple[str, ...]:
    """Return a field that is a list of words, with the bracket escapes of the Penn Treebank (`-LRB-`) replaced.

    Raises:
        RowError: It is missing or not a list of words.
    """
    value = field(row, name, list, "a list of words")
    if not all(isinstance(word, str) for word in value):
        raise RowError(f"{name} must be a list of words, not {shown(value)}")
    return unescaped(value)


def unescaped(tokens: Iterable[str]) -> tuple[str, ...]:
    """Replace the bracket escapes of the Penn Treebank (`-LRB-` and so on) by brackets."""
    return tuple(_BRACKETS.get(token, token) for token in tokens)


def shown(value: Any) -> str:
    """Describe a JSON value briefly, for messages."""
    if isinstance(value, dict):
        return f"an object with {listed(map(str, value), 5)}" if value else "an empty object"
    if isinstance(value, list):
        return f"a list of {len(value):,}"
    return f"{value!r:.60}"


def listed(names: Iterable[str], at_most: int = 20) -> str:
    """Join sorted names; beyond `at_most`, give their number."""
    ordered = sorted(names)
    more = f" and {len(ordered) - at_most:,} more" if len(ordered) > at_most else ""
    return ", ".join(ordered[:at_most]) + more


def _text(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise _wrong(path, f"cannot be read: {reason_of(error, path)}") from None
    except UnicodeDecodeError as error:
        raise _wrong(path, f"is not UTF-8 text (byte {error.start + 1})") from None
    if not text.strip():
        raise _wrong(path, "is empty")
    return text


def _wrong(path: Path, reason: str) -> DataError:
    return DataError("a file of the data set cannot be read", [Problem(str(path), None, reason)])
