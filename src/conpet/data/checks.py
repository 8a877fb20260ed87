"""Checks of examples, tasks and streams, used for files and for Python callers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from conpet.data.example import Example, Kind, Span
from conpet.data.templates import check_template
from conpet.errors import Problem


class Located(NamedTuple):
    """An example with its file and row, and what else the row says of it.

    Attributes:
        file: The file.
        row: The row, as the user counts it.
        example: The example.
        subset: The subset that the row names, if it names one.
        time: When it came, if the row says so.
    """

    file: str
    row: int
    example: Example
    subset: str | None = None
    time: datetime | None = None

    def problem(self, reason: str) -> Problem:
        """Return a problem of this example."""
        return Problem(self.file, self.row, reason, self.example.id)


Subsets = Mapping[str, Sequence[Located]]
"""Maps `train`, `validation` and `test` to their rows."""


def locate(file: str, examples: Iterable[Example]) -> list[Located]:
    """Number examples from 1."""
    return [Located(file, row, example) for row, example in enumerate(examples, start=1)]


def check_example(example: Example) -> list[str]:
    """List the errors of an example, apart from its label."""
    reasons = [f"{name} is not valid Unicode (half a surrogate pair)" for name in _broken_strings(example)]
    if example.kind is Kind.TEXT:
        return reasons if example.text.strip() else [*reasons, "empty text"]
    if not any(token.strip() for token in example.tokens):
        return [*reasons, "empty tokens"]
    names = ("head", "tail") if example.kind is Kind.RELATION else ("mention",)
    return reasons + [reason for name in names if (reason := _check_span(name, getattr(example, name), example.tokens))]


def check_rows(source: str, subsets: Subsets, *, whole: bool = True, labels: bool = True) -> list[Problem]:
    """List the errors in the examples of a task, or in further examples for known tasks.

    Args:
        source: Named as the place of problems of the whole training set.
        subsets: The rows. Only the training set is required.
        whole: Whether these are all examples of a task: then two labels are required, each with a training example.
        labels: Whether the targets are labels; otherwise the head of the task checks them.
    """
    problems = check_each(source, subsets, whole=whole, labels=labels)
    if not subsets["train"]:
        return problems
    files = list(dict.fromkeys(row.file for rows in subsets.values() for row in rows))
    order = {file: number for number, file in enumerate(files)}
    return sorted([*problems, *_check_copies(subsets)], key=lambda problem: order.get(problem.file, len(order)))


def check_each(source: str, subsets: Subsets, *, whole: bool = True, labels: bool = True) -> list[Problem]:
    """List the errors in single examples and in the labels; arguments as in `check_rows`."""
    train = subsets["train"]
    if not train:
        return [Problem(source, None, "no training example: there are no rows, or none that can be used")]
    known = {row.example.label for row in train if not _no_label(row.example)}
    problems = []
    for subset, rows in subsets.items():
        problems += [row.problem(reason) for row in rows for reason in check_example(row.example)]
        problems += [row.problem("missing label") for row in rows if _no_label(row.example)]
        problems += _check_kinds(rows, train[0].example.kind)
        if subset != "train" and whole and labels:
            problems += _check_labels_known(rows, known)
    if whole and labels and len(known) == 1:
        problems.append(Problem(source, None, f"only one label ({min(map(str, known))!r}): a task needs two or more"))
    return problems


def _check_copies(subsets: Subsets) -> Iterator[Problem]:
    """Yield the rows whose input is also a training example, or has another label in the same subset."""
    sound = {subset: [row for row in rows if not check_example(row.example)] for subset, rows in subsets.items()}
    trained = {row.example.input_key: row.row for row in reversed(sound["train"])}
    for subset, rows in sound.items():
        yield from _check_contradictions(rows)
        for row in rows if subset != "train" else ():
            if (at := trained.get(row.example.input_key)) is not None:
                yield row.problem(f"the same input is also a training example (row {at})")


def check_task_template(source: str, template: str | None, kind: Kind) -> list[Problem]:
    """List the errors of a task's own template."""
    reason = check_template(template, kind) if template is not None else None
    return [Problem(source, None, reason)] if reason else []


def check_stream(tasks: Iterable[tuple[str, Sequence[Located]]], owned: Mapping[str, str]) -> list[Problem]:
    """List tasks with the name of an earlier task, and training rows with a label of an earlier task.

    Args:
        tasks: Each task's name and training rows, in order.
        owned: Maps the labels of tasks learned before the stream to the names of their tasks.
    """
    problems = []
    owner = dict(owned)
    names: set[str] = set()
    for name, train in tasks:
        if name in names:
            problems.append(Problem(f"task {name!r}", None, "an earlier task of the stream has the same name"))
        names.add(name)
        for row in train:
            label = row.example.label
            if label is not None and owner.setdefault(label, name) != name:
                problems.append(row.problem(f"label {label!r} belongs to the earlier task {owner[label]!r}"))
    return problems


def check_new_labels(
    source: str, new: Subsets, name: str, owners: Mapping[str, str], into: str | None
) -> list[Problem]:
    """List the errors in the new labels of examples that also have known ones.

    Args:
        source: Named as the place of problems of all rows.
        new: The rows with new labels.
        name: Name of the task that they become.
        owners: Maps known labels to the names of their tasks.
        into: The known task that the new labels are added to, instead of a new task.
    """
    if not any(new.values()):
        return []
    trained = {row.example.label for row in new.get("train", ())}
    problems = [
        problem for subset, rows in new.items() if subset != "train" for problem in _check_labels_known(rows, trained)
    ]
    tasks = set(owners.values())
    if into is None and len(trained) == 1:
        problems.append(
            Problem(
                source,
                None,
                f"only one new label ({min(map(str, trained))!r}): a task needs two or more. Add examples of another "
                "new label, or add it to a known task (`--into TASK`)",
            )
        )
    if into is None and name in tasks:
        problems.append(
            Problem(
                source,
                None,
                f"the new labels cannot become task {name!r}, which exists already: give their task another name "
                f"(`--name`), or add them to this one (`--into {name}`)",
            )
        )
    return problems


NEW_LABELS = (
    ". `--mixed` instead of `--extend` learns new labels as a new task, and adds the other examples to their tasks (in "
    "Python, `learn_mixed`)"
)


def unknown_label(label: str) -> str:
    """Return the problem of a label to which examples are to be added, although no task has it."""
    return f"no task has a label {label!r}"


def next_step(labels: Iterable[str | None], owners: Mapping[str, str]) -> str:
    """Return how to learn labels of which some are known, as the end of a message; empty if none is.

    Args:
        labels: The labels to learn.
        owners: Maps known labels to the names of their tasks.
    """
    given = {label for label in labels if label is not None}
    tasks = sorted({owners[label] for label in given if label in owners})
    if not tasks:
        return ""
    more = "" if len(tasks) == 1 else f" and {len(tasks) - 1:,} more"
    if given <= owners.keys():
        replaced = f"; `--name {tasks[0]}` learns this task again from these examples only" if len(tasks) == 1 else ""
        return f". All labels are known: `--extend` adds the examples to task {tasks[0]!r}{more}{replaced}"
    return (
        f". Some labels are known: `--mixed` adds their examples to task {tasks[0]!r}{more}, and learns the new labels "
        "as a new task"
    )


def _no_label(example: Example) -> bool:
    return example.label is None or not example.label.strip()


def _broken_strings(example: Example) -> Iterator[str]:
    for name, value in (("text", example.text), ("label", example.label or ""), ("tokens", "".join(example.tokens))):
        if not is_unicode(value):
            yield name
    identifier = json.dumps(example.id, ensure_ascii=False) if isinstance(example.id, (list, dict)) else example.id
    if isinstance(identifier, str) and not is_unicode(identifier):
        yield "id"


def is_unicode(text: str) -> bool:
    """Return whether a text has no half of a surrogate pair."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_span(name: str, span: Span | None, tokens: Sequence[str]) -> str | None:
    if span is None:
        return f"missing {name} span"
    if span.start >= span.end:
        return f"{name} span {span.start}:{span.end} is empty (its end is exclusive)"
    if span.start < 0 or span.end > len(tokens):
        return f"{name} span {span.start}:{span.end} is outside the {len(tokens)} tokens"
    if not any(token.strip() for token in tokens[span.start : span.end]):
        return f"{name} span {span.start}:{span.end} contains only blanks"
    return None


def _check_kinds(rows: Sequence[Located], kind: Kind) -> Iterator[Problem]:
    for row in rows:
        if row.example.kind is not kind:
            yield row.problem(f"is a {row.example.kind} example; the first training row is a {kind} example")


def _check_contradictions(rows: Sequence[Located]) -> Iterator[Problem]:
    first: dict[tuple[Any, ...], Located] = {}
    for row in rows:
        if _no_label(row.example):
            continue
        other = first.setdefault(row.example.input_key, row)
        if other.example.label != row.example.label:
            yield row.problem(
                f"label {row.example.label!r} contradicts row {other.row}: the same input has {other.example.label!r}"
            )


def _check_labels_known(rows: Sequence[Located], labels: set[str | None]) -> Iterator[Problem]:
    for row in rows:
        if not _no_label(row.example) and row.example.label not in labels:
            yield row.problem(f"label {row.example.label!r} has no training example")
