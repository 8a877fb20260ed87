"""Read tasks, streams and inputs from files. Any wrong row is an error, and all wrong rows are reported."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, overload

from conpet.data.checks import (
    Located,
    check_example,
    check_new_labels,
    check_rows,
    check_stream,
    check_task_template,
    next_step,
)
from conpet.data.example import Example
from conpet.data.files import NO_SUCH_PATH, count_rows, raw_rows
from conpet.data.held_out import with_held_out
from conpet.data.labelled import by_named_subset
from conpet.data.raw import Note, RawRow, ReadOptions, named_subset
from conpet.data.rows import RowError, id_of, parse_row
from conpet.data.source import Source, source_name
from conpet.data.stream_layout import TaskSource, find_stream, find_task
from conpet.data.task import Examples, MixedExamples, Task, TaskStream
from conpet.errors import DataError, Problem, listed, plural

_MILLISECONDS = 1e11
"""A number from here on is a time in milliseconds: in seconds, it would be more than 3,000 years away."""


def read_task(
    path: str | Path,
    *,
    name: str | None = None,
    seed: int = 0,
    template: str | None = None,
    settings: Mapping[str, object] | None = None,
    owned: Mapping[str, str] | None = None,
    all_rows: bool = False,
    columns: Mapping[str, str] | None = None,
    encoding: str | None = None,
    format: str | None = None,  # noqa: A002
    inclusive_ends: bool = False,
    sheet: str | int | None = None,
) -> Task:
    """Read a task.

    Args:
        path: A file in any format (`conpet.data.files.FORMATS`; text formats also compressed), a folder with a train
            file and, if there are any, validation (dev, valid) and test files, a folder saved by the library
            `datasets`, or "-" for standard input, as in `read_inputs`. See `conpet.data.rows.parse_row` for the fields.
        name: The task's name; by default the name of the file or folder, or "stdin".
        seed: Seed for splitting missing validation and test sets off the training set (see `Task.notes`).
        template: A template instead of the default of the kind (see `conpet.data.templates.render`).
        settings: Overrides of the workspace's task-level settings.
        owned: Maps known labels to the names of their tasks; the labels of this task must be new.
        all_rows: Whether to learn from every row: nothing is split off, and missing sets stay empty.
        columns: The columns of fields that have other names: {"text": "utterance"}; positions, counted from 1, for
            a file without a header.
        encoding: Encoding of text that is not Unicode ("cp1252").
        format: Name of the file format ("conll"), if it does not follow from the file's name.
        inclusive_ends: Whether the end of a span is its last token or character, not the position after it.
        sheet: The sheet of an Excel workbook: its name, or its number, counted from 1.

    Raises:
        DataError: The data has errors; `problems` lists all of them.
        ConfigError: An argument is wrong, or a package that reads the format is not installed.
    """
    options = ReadOptions(columns or {}, encoding, format, inclusive_ends, sheet)
    source = find_task(Path(path), name, template, settings, options)
    return _build([source], [], path, None if all_rows else seed, owned or {})[0]


def read_stream(
    path: str | Path,
    *,
    seed: int = 0,
    owned: Mapping[str, str] | None = None,
    all_rows: bool = False,
    columns: Mapping[str, str] | None = None,
    encoding: str | None = None,
    format: str | None = None,  # noqa: A002
    inclusive_ends: bool = False,
    sheet: str | int | None = None,
) -> TaskStream:
    """Read a folder of tasks, or one task as a stream of one.

    The tasks are the files and subfolders in natural order ("task-2" before "task-10"), or those in `stream.yaml`:
    `tasks: [{path: ..., name: ..., template: ..., settings: {...}}]`. Paths are relative to the folder; only `path` is
    required. An entry may also have `columns`, `encoding`, `format`, `inclusive_ends` and `sheet`, instead of these
    arguments.

    Args:
        path: The folder or file.
        seed: As in `read_task`.
        owned: As in `read_task`.
        all_rows: As in `read_task`.
        columns: As in `read_task`.
        encoding: As in `read_task`.
        format: As in `read_task`.
        inclusive_ends: As in `read_task`.
        sheet: As in `read_task`.

    Raises:
        DataError: The data has errors; `problems` lists all of them, over all tasks.
        ConfigError: As in `read_task`.
    """
    sources, problems = find_stream(Path(path), ReadOptions(columns or {}, encoding, format, inclusive_ends, sheet))
    return TaskStream(_build(sources, problems, path, None if all_rows else seed, owned or {}))


def read_examples(
    path: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    encoding: str | None = None,
    format: str | None = None,  # noqa: A002
    inclusive_ends: bool = False,
    sheet: str | int | None = None,
    note: Callable[[str], None] | None = None,
) -> Examples:
    """Read further examples for known tasks; files as in `read_task`, but nothing is split off.

    Args:
        path: A file of training examples, or a folder with a train file and, if there are any, other sets.
        columns: As in `read_task`.
        encoding: As in `read_task`.
        format: As in `read_task`.
        inclusive_ends: As in `read_task`.
        sheet: As in `read_task`.
        note: Called with each note on how the files were read.

    Raises:
        DataError: The data has errors; `problems` lists all of them.
        ConfigError: As in `read_task`.
    """
    options = ReadOptions(columns or {}, encoding, format, inclusive_ends, sheet)
    loaded = _load(find_task(Path(path), options=options), whole=False)
    if loaded.problems:
        raise DataError(_summary(path, loaded.problems), loaded.problems)
    _tell(note, loaded.notes)
    return Examples.of_rows(loaded.subsets)


def read_mixed(
    path: str | Path,
    *,
    name: str | None = None,
    template: str | None = None,
    owned: Mapping[str, str] | None = None,
    into: str | None = None,
    columns: Mapping[str, str] | None = None,
    encoding: str | None = None,
    format: str | None = None,  # noqa: A002
    inclusive_ends: bool = False,
    sheet: str | int | None = None,
    note: Callable[[str], None] | None = None,
) -> list[MixedExamples]:
    """Read examples of known and new labels, for `ConPET.learn_mixed`; files as in `read_stream`.

    Args:
        path: A file, a folder with a train file and, if there are any, other sets, or a stream of these.
        name: Name of the task for the new labels; by default that of the file or folder. Only for a single task.
        template: Template of that task; only for a single task.
        owned: Maps known labels to the names of their tasks, for the checks (`ConPET.owners`).
        into: The known task that the new labels will be added to, instead of a new task.
        columns: As in `read_task`.
        encoding: As in `read_task`.
        format: As in `read_task`.
        inclusive_ends: As in `read_task`.
        sheet: As in `read_task`.
        note: Called with each note on how the files were read.

    Raises:
        DataError: The data has errors; `problems` lists all of them.
        ConfigError: As in `read_task`.
    """
    options = ReadOptions(columns or {}, encoding, format, inclusive_ends, sheet)
    if name is None and template is None:
        sources, problems = find_stream(Path(path), options)
    else:
        sources, problems = [find_task(Path(path), name, template, options=options)], []
    loaded = [_load(source, whole=False) for source in sources]
    owners = dict(owned or {})
    for task in loaded:
        source = task.source
        new = {
            subset: [row for row in rows if row.example.label is not None and row.example.label not in owners]
            for subset, rows in task.subsets.items()
        }
        problems += task.problems
        train = source_name(source.files.get("train", source.path))
        problems += check_new_labels(train, new, source.name, owners, into)
        owners |= {str(row.example.label): into or source.name for rows in new.values() for row in rows}
    if problems:
        raise DataError(_summary(path, problems), problems)
    _tell(note, [text for task in loaded for text in task.notes])
    return [
        MixedExamples(
            task.source.name,
            Examples.of_rows(task.subsets),
            task.source.template,
            task.source.settings,
        )
        for task in loaded
    ]


@overload
def read_inputs(
    path: str | Path,
    *,
    columns: Mapping[str, str] | None = ...,
    encoding: str | None = ...,
    format: str | None = ...,
    inclusive_ends: bool = ...,
    sheet: str | int | None = ...,
    note: Callable[[str], None] | None = ...,
    on_error: Literal["fail"] = ...,
) -> Iterator[Example]: ...


@overload
def read_inputs(
    path: str | Path,
    *,
    columns: Mapping[str, str] | None = ...,
    encoding: str | None = ...,
    format: str | None = ...,
    inclusive_ends: bool = ...,
    sheet: str | int | None = ...,
    note: Callable[[str], None] | None = ...,
    on_error: Literal["fail", "report"],
) -> Iterator[Example | Problem]: ...


def read_inputs(
    path: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    encoding: str | None = None,
    format: str | None = None,  # noqa: A002
    inclusive_ends: bool = False,
    sheet: str | int | None = None,
    note: Callable[[str], None] | None = None,
    on_error: Literal["fail", "report"] = "fail",
) -> Iterator[Example | Problem]:
    """Stream inputs to predict; labels are optional, and a wrong one is ignored.

    Memory is constant, except for YAML, Markdown, brat and JSON files that are not a list, which are read whole.

    Args:
        path: A file as in `read_task`, plain lines (`.txt`), or "-" for standard input: JSON lines, or text in
            the format that `format` names (read through a temporary file), not compressed.
        columns: As in `read_task`.
        encoding: As in `read_task`.
        format: As in `read_task`.
        inclusive_ends: As in `read_task`.
        sheet: As in `read_task`.
        note: Called with each note on how the file was read.
        on_error: "report" yields a `conpet.errors.Problem` in place of each wrong row. `ConPET.predict_stream` takes it
            as an input that cannot be predicted.

    Raises:
        DataError: A row is wrong and `on_error` is "fail", or the rest of the file cannot be read; raised when the row
            is reached.
        ConfigError: As in `read_task`.
    """
    for row in read_input_rows(path, ReadOptions(columns or {}, encoding, format, inclusive_ends, sheet), note):
        if isinstance(row, Located):
            yield row.example
        elif on_error == "fail" or row.ends_reading:
            missing = row.reason == NO_SUCH_PATH
            wrong = f"{source_name(path)}: an input cannot be read; correct or remove it"
            raise DataError(str(row) if missing else wrong, [row])
        else:
            yield row


def read_input_rows(
    path: str | Path, options: ReadOptions | None = None, note: Callable[[str], None] | None = None
) -> Iterator[Located | Problem]:
    """Stream the rows of a file as `read_inputs` does, with a `Problem` in place of each wrong row."""
    for row in parsed_rows(path, options):
        if isinstance(row, Note):
            _tell(note, [str(row)])
        elif isinstance(row, Located) and (reasons := check_example(row.example)):
            yield row.problem("; ".join(reasons))
        else:
            yield row


def count_inputs(path: str | Path, options: ReadOptions | None = None) -> int | None:
    """Count the rows that `read_inputs` will read, or return None if that is not known beforehand."""
    return count_rows(path, options)


@dataclass(frozen=True, slots=True)
class LoadedTask:
    """The data of a task; `subsets` holds the rows that could be parsed."""

    source: TaskSource
    subsets: dict[str, list[Located]]
    problems: list[Problem]
    notes: list[str] = field(default_factory=list)


def parsed_rows(
    path: str | Path, options: ReadOptions | None = None, *, labelled: bool = False, optional: bool = False
) -> Iterator[Located | Problem | Note]:
    """Yield the rows of a file as examples.

    Args:
        path: The file.
        options: How to read it.
        labelled: Whether labels are needed; otherwise a wrong one is ignored.
        optional: With `labelled`: whether rows and files without labels are read, too.
    """
    options = options or ReadOptions()
    name = Source(Path(path), options).file
    changed = lists = 0
    unknown: dict[str, int] = {}
    for raw in raw_rows(path, options, labelled=labelled, optional=optional):
        if not isinstance(raw, RawRow):
            yield raw
            continue
        file = raw.file or name
        try:
            example = _example(raw.fields, options, labelled)
        except RowError as error:
            yield Problem(file, raw.row, str(error), id_of(raw.fields))
        else:
            given = raw.fields.get("label")
            lists += isinstance(given, (list, tuple))
            changed += isinstance(given, str) and bool(given.strip()) and given != example.label
            subset = named_subset(raw.fields)
            yield Located(file, raw.row, example, subset, _time(raw.fields))
            if subset is None and isinstance(named := raw.fields.get("split"), str) and named.strip():
                unknown[named.strip()] = unknown.get(named.strip(), 0) + 1
    if unknown and labelled:
        shown, count = listed([repr(named) for named in unknown], 5), sum(unknown.values())
        yield Note(
            name,
            f"the column split is not used: {plural(count, 'row')} {'names' if count == 1 else 'name'} {shown} "
            "instead of train, validation or test",
        )
    if changed and labelled:
        rows = plural(changed, "row")
        yield Note(name, f"labels of {rows} were cleaned: blanks around them removed, Unicode form NFC")
    if lists and labelled:
        yield Note(name, f"the label is a list of one in {plural(lists, 'row')}; that label was taken")


def _example(fields: Mapping[str, object], options: ReadOptions, labelled: bool) -> Example:
    try:
        return parse_row(fields, inclusive_ends=options.inclusive_ends)
    except RowError:
        if labelled:
            raise
        return parse_row(fields, inclusive_ends=options.inclusive_ends, labelled=False)


def _time(fields: Mapping[str, object]) -> datetime | None:
    """Return the time that a row names by `time` or `timestamp`: in ISO 8601, else UTC, or in seconds since 1970."""
    value = fields.get("time", fields.get("timestamp"))
    try:
        if isinstance(value, str):
            value = float(value) if _is_number(value) else datetime.fromisoformat(value.strip())
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return datetime.fromtimestamp(value / 1000 if abs(value) >= _MILLISECONDS else value, UTC)
    except (ValueError, OverflowError, OSError):
        return None
    if not isinstance(value, datetime):
        return None
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def _is_number(value: str) -> bool:
    return value.strip().replace(".", "", 1).isdecimal()


def load_rows(source: TaskSource) -> LoadedTask:
    """Read the rows of a task; only what cannot be read is a problem."""
    subsets: dict[str, list[Located]] = {}
    problems = list(source.problems)
    notes = list(source.notes)
    for subset, path in source.files.items():
        rows = list(parsed_rows(path, source.options, labelled=True))
        subsets[subset] = [row for row in rows if isinstance(row, Located)]
        problems += [row for row in rows if isinstance(row, Problem)]
        of_file = f"{path.name}: " if path != source.path else ""
        notes += [f"{of_file}{row.text}" for row in rows if isinstance(row, Note)]
    if subsets.keys() == {"train"}:
        divided, note = by_named_subset(subsets["train"], [row.subset for row in subsets["train"]])
        subsets, notes = (divided, [*notes, note]) if divided else (subsets, notes)
    return LoadedTask(source, subsets, problems, notes)


def _load(source: TaskSource, *, whole: bool = True) -> LoadedTask:
    loaded = load_rows(source)
    if "train" in loaded.subsets:
        loaded.problems.extend(list(_checked(source, loaded.subsets, loaded.problems, whole)))
    return loaded


def _checked(
    source: TaskSource, subsets: dict[str, list[Located]], found: list[Problem], whole: bool
) -> Iterator[Problem]:
    """Check the rows; files of which nothing could be read are not also said to be empty."""
    train = source_name(source.files["train"])
    if not subsets["train"] and any(problem.file == train for problem in found):
        return
    yield from check_rows(train, subsets, whole=whole)
    if subsets["train"]:
        yield from check_task_template(source_name(source.path), source.template, subsets["train"][0].example.kind)


def _tell(note: Callable[[str], None] | None, texts: Iterable[str]) -> None:
    for text in texts if note else ():
        note(text)  # type: ignore[misc]


def _summary(path: str | Path, problems: list[Problem]) -> str:
    if len(problems) == 1 and problems[0].reason == NO_SUCH_PATH:
        return f"{problems[0]}; nothing was learned"
    files = len({problem.file for problem in problems})
    return f"{source_name(path)}: {plural(len(problems), 'problem')} in {plural(files, 'file')}; nothing was learned"


def _build(
    sources: list[TaskSource],
    source_problems: list[Problem],
    path: str | Path,
    seed: int | None,
    owned: Mapping[str, str],
) -> tuple[Task, ...]:
    """Check all sources and build their tasks; without a seed, nothing is split off."""
    loaded = [_load(source) for source in sources]
    problems = source_problems + [problem for task in loaded for problem in task.problems]
    problems += check_stream(((task.source.name, task.subsets.get("train", ())) for task in loaded), owned)
    if problems:
        raise DataError(f"{_summary(path, problems)}{next_step_of(loaded, owned)}", problems)
    return tuple(build_task(task, seed) for task in loaded)


def next_step_of(loaded: Iterable[LoadedTask], owned: Mapping[str, str]) -> str:
    """Return how to learn tasks of which some have labels of others, as the end of a message."""
    labels: set[str | None] = set()
    for task in loaded:
        own = {row.example.label for row in task.subsets.get("train", ())}
        if any(owned.get(label, task.source.name) != task.source.name for label in own if label is not None):
            labels |= own
    return next_step(labels, owned)


def build_task(loaded: LoadedTask, seed: int | None) -> Task:
    """Build a task of rows without errors; without a seed, nothing is split off.

    Raises:
        DataError: The rows have errors.
    """
    source = loaded.source
    subsets, notes = with_held_out(
        {subset: [row.example for row in rows] for subset, rows in loaded.subsets.items()}, seed
    )
    return Task(
        source.name,
        subsets["train"],
        subsets["validation"],
        subsets["test"],
        template=source.template,
        settings=source.settings,
        notes=(*loaded.notes, *notes),
    )
