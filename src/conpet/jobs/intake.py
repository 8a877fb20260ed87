"""The process that reads an upload: it parses what a stranger sent, within limits, and writes the checked data."""

from __future__ import annotations

import gzip
import json
import re
import resource
import shutil
import sys
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from conpet.config.base import worded
from conpet.data import Task, read_examples, read_stream, read_task
from conpet.errors import ConfigError, DataError, Problem, is_out_of_memory
from conpet.jobs.data import DATA, SAMPLE, sample_of, write_examples, write_tasks
from conpet.jobs.uploads import RAW, UploadOptions
from conpet.problem_details import of_a_request

_BASE_BYTES, _BYTES_PER_BYTE = 1 << 30, 24
"""Most memory of the process: a fixed part, and a part for each byte of the limit on uploads."""
NAME_CHARACTERS, TEMPLATE_CHARACTERS = 200, 10_000
_CHUNK = 1 << 20
_PROBLEMS = 1000
"""Most problems reported."""
_SHOWN = "the upload"
Rows = list[dict[str, JsonValue]]


class TaskUpload(BaseModel):
    """A task in JSON: `rows`, from which test sets are split off, or `train` with other sets."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Annotated[str | None, Field(max_length=NAME_CHARACTERS, description="Name of the task.")] = None
    template: Annotated[
        str | None, Field(max_length=TEMPLATE_CHARACTERS, description="Template instead of the default of its kind.")
    ] = None
    settings: Annotated[dict[str, JsonValue], Field(description="Task-level settings.")] = {}
    rows: Annotated[Rows | None, Field(description="Rows as in a data file; test sets are split off.")] = None
    train: Annotated[Rows | None, Field(description="Training rows, instead of `rows`.")] = None
    validation: Annotated[Rows | None, Field(description="Validation rows, beside `train`.")] = None
    test: Annotated[Rows | None, Field(description="Test rows, beside `train`.")] = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.rows is None) == (self.train is None):
            raise ValueError("give either `rows`, or `train` with `validation` and `test`")
        if self.rows is not None and (self.validation is not None or self.test is not None):
            raise ValueError("`validation` and `test` belong to `train`: rename `rows`")
        return self

    @property
    def subsets(self) -> dict[str, Rows]:
        """The rows by subset."""
        given = {"train": self.rows if self.train is None else self.train}
        given |= {"validation": self.validation, "test": self.test}
        return {subset: rows for subset, rows in given.items() if rows is not None}


class StreamUpload(BaseModel):
    """Tasks in JSON, learned one after another."""

    model_config = ConfigDict(extra="forbid", strict=True)

    tasks: Annotated[list[TaskUpload], Field(min_length=1, max_length=10_000)]


def main() -> None:
    """Read a request from standard input, and answer on standard output."""
    request = json.load(sys.stdin)
    limit_memory(_BASE_BYTES + _BYTES_PER_BYTE * request["limit"])
    folder = Path(request.pop("folder"))

    def read() -> dict[str, Any]:
        tasks, labels = read_upload(folder, UploadOptions(**request))
        return {"tasks": tasks, "labels": labels}

    json.dump(outcome_of(read), sys.stdout)


def limit_memory(size: int) -> None:
    """Let this process have so many bytes of memory, and write no core."""
    resource.setrlimit(resource.RLIMIT_DATA, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def outcome_of(read: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what reading an upload has given, or why it cannot be read."""
    try:
        return {"outcome": "accepted", **read()}
    except DataError as error:
        return {
            "outcome": "data",
            "message": error.summary,
            "problems": [[problem.file, problem.row, problem.reason] for problem in error.problems],
        }
    except ConfigError as error:
        return {"outcome": "settings", "message": str(error)}
    except Exception as error:
        if not is_out_of_memory(error):
            raise  # a bug: the server logs what this process says
        return {"outcome": "memory"}


def read_upload(folder: Path, options: UploadOptions) -> tuple[list[str], list[str]]:
    """Read the upload in a folder, write its checked data beside it, and return names of tasks or labels of examples.

    Raises:
        DataError: It has errors; no path of this machine is named.
        ConfigError: An option is wrong.
    """
    raw = folder / f"{RAW}.{options.form}"
    work = folder / "work"
    work.mkdir()
    names: dict[str, str] = {}
    settings: dict[str, dict[str, JsonValue]] = {}
    try:
        source = _prepared(raw, work, options, names, settings)
        if options.extend:
            examples = read_examples(source, encoding=options.encoding)
            write_examples(folder / DATA, examples)
            return [], sorted({str(one.label) for one in examples.train})
        # Settings are checked with the workspace, whose components they concern; here they would load torch.
        tasks = [_with_settings(task, settings.get(task.name, {})) for task in _tasks(source, options)]
        write_tasks(folder / DATA, tasks)
        write_tasks(folder / SAMPLE, map(sample_of, tasks))
        return [task.name for task in tasks], []
    except DataError as error:
        raise _without_paths(error, names, folder) from None
    except ConfigError as error:
        raise ConfigError(str(error).replace(str(work), "").replace(str(folder), "")) from None
    finally:
        shutil.rmtree(work, ignore_errors=True)
        raw.unlink(missing_ok=True)


def _with_settings(task: Task, settings: Mapping[str, JsonValue]) -> Task:
    return replace(task, settings=settings, notes=tuple(map(of_a_request, task.notes)))


def _tasks(source: Path, options: UploadOptions) -> list[Task]:
    how: dict[str, Any] = {"seed": options.seed, "owned": options.owned, "all_rows": options.all_rows}
    if options.form == "json":
        return list(read_stream(source, **how))
    if options.name is None:
        raise ConfigError("the task needs a name: add `?name=...` to the address")
    _check_name(options.name)
    return [read_task(source, name=options.name, template=options.template, encoding=options.encoding, **how)]


def _prepared(
    raw: Path,
    work: Path,
    options: UploadOptions,
    names: dict[str, str],
    settings: dict[str, dict[str, JsonValue]],
) -> Path:
    """Return a file or folder for the readers.

    Args:
        raw: The file received.
        work: An empty folder.
        options: How to read it.
        names: Gets what files are called in messages.
        settings: Gets the settings of tasks by name.
    """
    if options.form == "json":
        tasks = _parsed(raw)
        if not options.extend:
            _write_stream(work, tasks, names)
            settings |= {task.name or "": task.settings for task in tasks}
            return work
        if len(tasks) != 1 or tasks[0].name or tasks[0].template or tasks[0].settings:
            raise _wrong("examples of known labels: give `rows` or `train`, without names, templates and settings")
        _write_rows(work, tasks[0].subsets, names, "")
        return work
    form = options.form.removesuffix(".gz")
    if form == options.form:
        if form == "parquet":
            _check_parquet(raw, options.limit)
        names[str(raw)] = _SHOWN
        return raw
    source = work / f"{RAW}.{form}"
    _decompress(raw, source, options.limit)
    names[str(source)] = _SHOWN
    return source


def _parsed(raw: Path) -> list[TaskUpload]:
    """Return the tasks of a JSON upload."""
    try:
        document = json.loads(raw.read_bytes())
    except (ValueError, RecursionError) as error:
        raise _wrong(f"is not JSON: {error}") from None
    several = isinstance(document, dict) and "tasks" in document
    try:
        if several:
            return StreamUpload.model_validate(document).tasks
        return [TaskUpload.model_validate(document)]
    except ValidationError as error:
        problems = [
            Problem(
                _SHOWN, None, f"/{'/'.join(map(str, item['loc']))}{worded(item['msg'].removeprefix('Value error, '))}"
            )
            for item in error.errors(include_url=False, include_input=False)
        ]
        raise DataError("the upload does not have the form of a task or a list of tasks", problems) from None


def _write_stream(work: Path, tasks: Iterable[TaskUpload], names: dict[str, str]) -> None:
    """Write tasks as a stream folder whose names are numbers."""
    entries = []
    for number, task in enumerate(tasks):
        if task.name is None:
            raise _wrong(f"task {number + 1} needs a `name`")
        _check_name(task.name)
        folder = work / str(number)
        folder.mkdir()
        _write_rows(folder, task.subsets, names, f"task {task.name!r} ")
        names[str(folder)] = f"task {task.name!r}"
        entry = {"path": str(number), "name": task.name, "template": task.template}
        entries.append({key: value for key, value in entry.items() if value})
    content = yaml.safe_dump({"tasks": entries}, allow_unicode=True)
    (work / "stream.yaml").write_text(content, encoding="utf-8")


def _write_rows(folder: Path, subsets: Mapping[str, Rows], names: dict[str, str], of: str) -> None:
    for subset, rows in subsets.items():
        file = folder / f"{subset}.jsonl"
        file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
        names[str(file)] = f"{of}({subset})"


def _check_name(name: str) -> None:
    if not name.strip() or len(name) > NAME_CHARACTERS or not name.isprintable():
        raise ConfigError(f"the name of a task has 1 to {NAME_CHARACTERS} printable characters")


def _decompress(raw: Path, target: Path, limit: int) -> None:
    """Decompress a gzip file up to a limit."""
    room = limit
    try:
        with gzip.open(raw) as stream, target.open("wb") as plain:
            while chunk := stream.read(_CHUNK):
                room -= len(chunk)
                if room < 0:
                    raise _too_large(limit)
                plain.write(chunk)
    except (OSError, EOFError, zlib.error) as error:
        raise _wrong(f"is not a complete gzip file ({type(error).__name__})") from None


def _check_parquet(raw: Path, limit: int) -> None:
    """Check the size that a Parquet file states for itself; the limit on memory holds whatever it states."""
    try:
        import pyarrow
        import pyarrow.parquet as pq
    except ImportError:
        raise ConfigError("this server cannot read Parquet (pyarrow is not installed); send JSONL or CSV") from None
    try:
        metadata = pq.ParquetFile(raw).metadata
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        size = sum(group.total_byte_size for group in groups)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise _wrong(f"is not a readable Parquet file ({type(error).__name__})") from None
    if size > limit or metadata.num_rows > limit:
        raise _too_large(limit)


def _without_paths(error: DataError, names: Mapping[str, str], folder: Path) -> DataError:
    """Return an error that calls files by what the sender knows, with as many problems as are reported."""
    paths = re.compile(re.escape(str(folder)) + r"(?:/[\w-]+(?:\.[\w-]+)*)*")

    def name_of(path: re.Match[str]) -> str:
        known, rest = path[0], ""
        while known not in names and "/" in known[len(str(folder)) :]:
            known, _, last = known.rpartition("/")
            rest = f"/{last}{rest}"
        return names[known] + rest if known in names else _SHOWN

    def shown(text: str) -> str:
        return paths.sub(name_of, text)

    problems = [Problem(shown(problem.file), problem.row, shown(problem.reason)) for problem in error.problems]
    return DataError(shown(error.summary), problems[:_PROBLEMS])


def _too_large(limit: int) -> DataError:
    return DataError(f"the upload has more than {limit:,} bytes when decompressed; send it in smaller parts")


def _wrong(reason: str) -> DataError:
    return DataError("the upload cannot be read; nothing was learned", [Problem(_SHOWN, None, reason)])


if __name__ == "__main__":
    main()
