"""The requests of the client, and how their answers are read; both clients send them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from conpet.client.records import TaskInfo, VersionInfo
from conpet.data import Example, Examples, Task
from conpet.data.files import data_suffix
from conpet.data.labelled import SUBSETS
from conpet.data.rows import RowError, to_example
from conpet.errors import ConfigError, DataError, Problem
from conpet.jobs.records import FILE_FORMATS, Job, JobEvent, JobState
from conpet.types import CandidateRecord, Decision, GateReport, Generation, LogEntry, Prediction, PredictOptions
from conpet.watching.report import WatchReport

Answer = TypeVar("Answer")
Input = str | Example | Mapping[str, Any]
Inputs = Input | Sequence[Input]
KEY_HEADER = "Idempotency-Key"


@dataclass(frozen=True, slots=True)
class Call(Generic[Answer]):
    """A request. All are safe to send twice: they read, say the same again, or carry an idempotency key.

    Attributes:
        method: HTTP method.
        path: Path of the address.
        read: Returns the answer from the response's JSON.
        params: Query.
        content: Body, or None.
        headers: Headers.
        seconds: Most seconds for it, told to the server too, or None for the client's.
    """

    method: str
    path: str
    read: Callable[[Any], Answer]
    params: Mapping[str, Any] = field(default_factory=dict)
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float | None = None


def predict(
    inputs: Inputs,
    top_n: int,
    min_score: float,
    tasks: Collection[str] | None,
    explain: bool,
    min_generation: int | None,
    seconds: float | None,
) -> Call[list[Prediction]]:
    """Return the request of predictions."""
    PredictOptions(top_n, min_score)  # checks them
    body: dict[str, Any] = {"inputs": _inputs(inputs), "top_n": top_n, "explain": explain}
    if min_score:
        body["min_score"] = min_score
    if tasks is not None:
        body["tasks"] = list(tasks)
    if min_generation is not None:
        body["min_generation"] = min_generation
    headers = {} if seconds is None else {"X-Request-Timeout": str(seconds)}
    return Call(
        "POST",
        "/v1/predict",
        lambda answer: [Prediction.from_json(one) for one in answer["predictions"]],
        content=_json(body),
        headers=_JSON | headers,
        seconds=seconds,
    )


def tasks() -> Call[list[TaskInfo]]:
    """Return the request of the tasks."""
    return Call("GET", "/v1/tasks", lambda answer: [TaskInfo.from_json(one) for one in answer["tasks"]])


def labels(task: str | None) -> Call[dict[str, str]]:
    """Return the request of the labels with their tasks."""
    return Call(
        "GET",
        "/v1/labels",
        lambda answer: {one["label"]: one["task"] for one in answer["labels"]},
        params=_given(task=task),
    )


def versions(task: str | None) -> Call[list[VersionInfo]]:
    """Return the request of the versions."""
    return Call(
        "GET",
        "/v1/versions",
        lambda answer: [VersionInfo.from_json(one) for one in answer["versions"]],
        params=_given(task=task),
    )


def cost() -> Call[dict[str, Any]]:
    """Return the request of what the workspace has cost."""
    return Call("GET", "/v1/cost", dict)


def watch() -> Call[WatchReport]:
    """Return the request of what watching has found."""
    return Call("GET", "/v1/watch", WatchReport.from_json)


def predictions(
    decision: Decision | None,
    task: str | None,
    label: str | None,
    since: str | datetime | None,
    before: int | None,
    limit: int,
) -> Call[list[LogEntry]]:
    """Return the request of recorded predictions."""
    moment = since.isoformat() if isinstance(since, datetime) else since
    params = _given(decision=decision, task=task, label=label, since=moment, before=before) | {"limit": limit}
    return Call(
        "GET",
        "/v1/predictions",
        lambda answer: [LogEntry.from_json(one) for one in answer["predictions"]],
        params=params,
    )


def feedback(right: Iterable[tuple[str, str] | tuple[str, int, str]]) -> Call[dict[str, Any]]:
    """Return the request to keep right labels."""
    names = {2: ("text", "label"), 3: ("request_id", "place", "label")}
    body = {"feedback": [dict(zip(names[len(one)], one, strict=True)) for one in right]}
    return Call("POST", "/v1/feedback", dict, content=_json(body), headers=_JSON)


def review(what: str, **params: Any) -> Call[dict[str, Any]]:
    """Return the request of something about the review: "" for its status, "accuracy", "plan"."""
    return Call("GET", f"/v1/review/{what}".rstrip("/"), dict, params=_given(**params))


def review_next(**fields: Any) -> Call[dict[str, Any] | None]:
    """Return the request to take the next item of review."""
    return Call(
        "POST", "/v1/review/next", lambda answer: answer["item"], content=_json(_given(**fields)), headers=_JSON
    )


def review_answer(item: int, **fields: Any) -> Call[dict[str, Any]]:
    """Return the request to say what is right for an item."""
    return Call("POST", f"/v1/review/items/{item}/answer", dict, content=_json(_given(**fields)), headers=_JSON)


def review_draw(**fields: Any) -> Call[dict[str, Any]]:
    """Return the request to draw answers for review."""
    return Call("POST", "/v1/review/draw", dict, content=_json(_given(**fields)), headers=_JSON)


def report(item: Input | None, **fields: Any) -> Call[bool]:
    """Return the request to report an answer as wrong."""
    body = _given(input=None if item is None else _input(item), **fields)
    return Call("POST", "/v1/review/reports", lambda answer: bool(answer["waits"]), content=_json(body), headers=_JSON)


def learn_reviewed(into: str | None, name: str | None, evaluate: bool, gate: bool, key: str | None) -> Call[Job]:
    """Return the request to learn what was reviewed."""
    body = _given(into=into, name=name) | {"evaluate": evaluate, "gate": gate}
    return _change("POST", "/v1/review/learn", key, content=_json(body), headers=_JSON)


def learn(
    tasks: Task | Iterable[Task],
    all_rows: bool,
    seed: int | None,
    batch: int,
    needed_since: date | None,
    evaluate: bool,
    gate: bool,
    key: str | None,
) -> Call[Job]:
    """Return the request to learn tasks."""
    several = [tasks] if isinstance(tasks, Task | str | Path) else list(tasks)
    if not all(isinstance(task, Task) for task in several):
        raise ConfigError("give tasks to learn; send a data file with `learn_file`, or read it with `read_task`")
    body = {"tasks": [_task(task, all_rows) for task in several]}
    params = (
        _given(seed=seed, needed_since=needed_since)
        | {"batch": batch, "all_rows": _flag(all_rows)}
        | _how(evaluate, gate)
    )
    return _change("POST", "/v1/learn", key, params=params, content=_json(body), headers=_JSON)


def extend(
    examples: Examples | Task, needed_since: date | None, evaluate: bool, gate: bool, key: str | None
) -> Call[Job]:
    """Return the request to learn more examples of known labels."""
    params = _given(needed_since=needed_since) | {"extend": "true"} | _how(evaluate, gate)
    content = _json({subset: rows for subset, rows in _rows(examples).items() if rows})
    return _change("POST", "/v1/learn", key, params=params, content=content, headers=_JSON)


def learn_file(
    path: Path,
    name: str | None,
    template: str | None,
    extend: bool,
    seed: int | None,
    all_rows: bool,
    needed_since: date | None,
    evaluate: bool,
    gate: bool,
    key: str | None,
) -> Call[Job]:
    """Return the request to learn from a data file.

    Raises:
        ConfigError: The file has no known suffix, or cannot be read.
    """
    suffix = sendable_suffix(path)
    if suffix is None:
        raise ConfigError(f"{path}: a server takes JSONL, CSV and Parquet files; read others with `conpet.read_task`")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error
    params = _given(template=template, seed=seed, needed_since=needed_since) | {
        "format": suffix.removeprefix("."),
        "extend": _flag(extend),
        "all_rows": _flag(all_rows),
        **_how(evaluate, gate),
    }
    if not extend:
        params["name"] = name or path.name.removesuffix(suffix)
    headers = {"Content-Type": "application/octet-stream"}
    return _change("POST", "/v1/learn", key, params=params, content=content, headers=headers)


def sendable_suffix(path: Path) -> str | None:
    """Return the suffix of a data file if it can be sent as it is, or None."""
    suffix = data_suffix(path)
    return suffix if suffix is not None and suffix.removeprefix(".") in FILE_FORMATS else None


def remove(task: str, evaluate: bool, gate: bool, key: str | None) -> Call[Job]:
    """Return the request to remove a task."""
    return _change("DELETE", f"/v1/tasks/{_quoted(task)}", key, params=_how(evaluate, gate))


def activate(task: str, version: int, evaluate: bool, gate: bool, key: str | None) -> Call[Job]:
    """Return the request to make a version active."""
    content = _json({"version": version, "evaluate": evaluate, "gate": gate})
    return _change("POST", f"/v1/versions/{_quoted(task)}/activate", key, content=content, headers=_JSON)


def restore(number: int, evaluate: bool, gate: bool, key: str | None) -> Call[Job]:
    """Return the request to go back to a kept generation."""
    content = _json({"evaluate": evaluate, "gate": gate})
    return _change("POST", f"/v1/generations/{number}/restore", key, content=content, headers=_JSON)


def generations() -> Call[list[Generation]]:
    """Return the request of the kept generations."""
    return Call("GET", "/v1/generations", lambda answer: [Generation.from_json(one) for one in answer["generations"]])


def rename(label: str, name: str, evaluate: bool, gate: bool, key: str | None) -> Call[Job]:
    """Return the request to rename a label."""
    content = _json({"label": label, "name": name, "evaluate": evaluate, "gate": gate})
    return _change("POST", "/v1/rename", key, content=content, headers=_JSON)


def retire(label: str, evaluate: bool, gate: bool, key: str | None) -> Call[Job]:
    """Return the request to retire a label."""
    content = _json({"label": label, "evaluate": evaluate, "gate": gate})
    return _change("POST", "/v1/retire", key, content=content, headers=_JSON)


def split(
    label: str, examples: Iterable[Example], replace: bool, evaluate: bool, gate: bool, key: str | None
) -> Call[Job]:
    """Return the request to split a label."""
    rows = [_row(example) for example in examples]
    content = _json({"label": label, "rows": rows, "replace": replace, "evaluate": evaluate, "gate": gate})
    return _change("POST", "/v1/split", key, content=content, headers=_JSON)


def consolidate(
    bound: float, layers: str | None, again: bool, evaluate: bool, gate: bool, key: str | None
) -> Call[Job]:
    """Return the request to consolidate."""
    content = _json({"bound": bound, "layers": layers, "again": again, "evaluate": evaluate, "gate": gate})
    return _change("POST", "/v1/consolidate", key, content=content, headers=_JSON)


def forget(
    rows: Iterable[str | Example],
    named: Mapping[str, Iterable[Any]],
    older_than_days: int | None,
    options: Mapping[str, Any],
    key: str | None,
) -> Call[Job]:
    """Return the request to forget rows, labels or tasks."""
    body: dict[str, Any] = {name: list(values) for name, values in named.items()}
    body |= {"rows": [_input(row) for row in rows], "older_than_days": older_than_days, **options}
    return _change("POST", "/v1/forget", key, content=_json(body), headers=_JSON)


def promote(candidate: int, gate: bool, key: str | None) -> Call[Job]:
    """Return the request to make a refused change."""
    return _change("POST", f"/v1/candidates/{candidate}/promote", key, content=_json({"gate": gate}), headers=_JSON)


def candidates() -> Call[list[CandidateRecord]]:
    """Return the request of the refused changes."""
    return Call(
        "GET", "/v1/candidates", lambda answer: [CandidateRecord.from_json(one) for one in answer["candidates"]]
    )


def gate_report(candidate: int) -> Call[GateReport]:
    """Return the request of what a refused change would do."""
    return Call("GET", f"/v1/candidates/{candidate}", GateReport.from_json)


def discard(candidate: int) -> Call[None]:
    """Return the request to discard a refused change."""
    return Call("DELETE", f"/v1/candidates/{candidate}", lambda _: None)


def jobs(state: JobState | str | None, before: str | None, limit: int) -> Call[list[Job]]:
    """Return the request of the jobs."""
    params = _given(state=state, before=before) | {"limit": limit}
    return Call("GET", "/v1/jobs", lambda answer: [Job.from_json(one) for one in answer["jobs"]], params=params)


def job(job_id: str) -> Call[Job]:
    """Return the request of a job."""
    return Call("GET", f"/v1/jobs/{_quoted(job_id)}", Job.from_json)


def log(job_id: str, after: int) -> Call[list[tuple[int, str]]]:
    """Return the request of lines of a job's log, with their ids."""
    return Call(
        "GET",
        f"/v1/jobs/{_quoted(job_id)}/log",
        lambda answer: [(one["id"], one["message"]) for one in answer["lines"]],
        params={"after": after},
    )


def cancel(job_id: str) -> Call[Job]:
    """Return the request to cancel a job."""
    return Call("POST", f"/v1/jobs/{_quoted(job_id)}/cancel", Job.from_json)


def events_path(job_id: str) -> str:
    """Return the path of the events of a job."""
    return f"/v1/jobs/{_quoted(job_id)}/events"


class EventReader:
    """Reads server-sent events line by line."""

    def __init__(self) -> None:
        self._fields: dict[str, str] = {}

    def feed(self, line: str) -> JobEvent | None:
        """Take a line; return an event when it is complete."""
        if line.startswith(":"):
            return None
        if line:
            name, _, value = line.partition(":")
            self._fields[name] = value.removeprefix(" ")
            return None
        fields, self._fields = self._fields, {}
        if "data" not in fields:
            return None
        data = json.loads(fields["data"])
        time = data.pop("time")
        return JobEvent.from_json({"id": int(fields["id"]), "time": time, "kind": fields["event"], "data": data})


_JSON = {"Content-Type": "application/json"}


def _change(
    method: str, path: str, key: str | None, headers: Mapping[str, str] | None = None, **body: Any
) -> Call[Job]:
    """Return the request of a change; with its idempotency key it makes one job, however often it is sent."""
    return Call(method, path, Job.from_json, headers={KEY_HEADER: key or str(uuid.uuid4()), **(headers or {})}, **body)


def _inputs(inputs: Inputs) -> list[Any]:
    """Return inputs as they are sent.

    Raises:
        DataError: Some are no inputs.
    """
    given, problems = [], []
    several = [inputs] if isinstance(inputs, str | Example | Mapping) or not isinstance(inputs, Iterable) else inputs
    for row, one in enumerate(several, start=1):
        try:
            given.append(_input(one))
        except RowError as error:
            problems.append(Problem("inputs", row, str(error)))
    if problems:
        raise DataError("some inputs cannot be answered", problems)
    return given


def _input(one: Any) -> Any:
    if isinstance(one, str):
        return one
    example = to_example(one, labelled=False)
    fields = _row(example)
    return fields if example.tokens else fields | {"text": example.text}


def _task(task: Task, all_rows: bool) -> dict[str, Any]:
    options = {"template": task.template, "settings": dict(task.settings)}
    rows = {subset: rows for subset, rows in _rows(task).items() if rows or all_rows}
    return {"name": task.name, **{name: value for name, value in options.items() if value}, **rows}


def _rows(source: Task | Examples) -> dict[str, list[dict[str, Any]]]:
    return {subset: list(map(_row, examples)) for subset in SUBSETS for examples in (getattr(source, subset),)}


def _row(example: Example) -> dict[str, Any]:
    return {name: value for name, value in example.to_json().items() if name != "kind"}


def _given(**params: Any) -> dict[str, Any]:
    return {name: value for name, value in params.items() if value is not None}


def _how(evaluate: bool, gate: bool) -> dict[str, str]:
    return {"evaluate": _flag(evaluate), "gate": _flag(gate)}


def _flag(value: bool) -> str:
    return "true" if value else "false"


def _quoted(name: str) -> str:
    return quote(name, safe="")


def _json(body: Any) -> bytes:
    return json.dumps(body).encode()
