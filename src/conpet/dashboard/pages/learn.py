"""Learn from a file: upload it, look at what the check finds, choose what to leave out, start the job."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from fastapi import Query
from starlette.responses import Response

from conpet.dashboard.findings import FINDINGS, Words
from conpet.dashboard.navigation import page_router
from conpet.dashboard.templating import link
from conpet.dashboard.visit import Visit, visits
from conpet.data.labelled import SUBSETS
from conpet.errors import ConfigError, DataError, UnknownNameError
from conpet.jobs.data import DATA, SAMPLE
from conpet.jobs.intake import NAME_CHARACTERS
from conpet.jobs.records import JobKind, JobRequest
from conpet.jobs.uploads import RAW, REPORT, ROWS, ExamineOptions, UploadOptions
from conpet.problem_details import ApiProblem, of_a_request
from conpet.report.data_check import DataCheckReport, FindingKind, FoundRow, Severity
from conpet.serve.keys import Role
from conpet.serve.submit import checked_upload, digest_of, examined_upload, submit, uploading

router = page_router()
UPLOADS = ("/ui/tasks/learn",)
Learner = Annotated[Visit, visits(Role.LEARN)]
Name = Annotated[str, Query(max_length=1000)]

ENDINGS = (".csv", ".tsv", ".xlsx", ".jsonl", ".json", ".parquet", ".txt", ".conll", ".yml", ".yaml", ".md")
"""Endings of the files that are offered; the check says it if another cannot be read."""
_ABOUT = "about.json"
_SHOWN = 50
"""Most findings of a kind that are listed."""
_TONES = {Severity.ERROR: "bad", Severity.WARNING: "warn", Severity.NOTE: "plain"}


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that was uploaded and is not learned yet.

    Attributes:
        id: Its id, which its job will have.
        caller: Who uploaded it.
        file_name: Its name.
        name: Name of the task; None for more examples of known labels.
    """

    id: str
    caller: str
    file_name: str
    name: str | None


@dataclass(frozen=True, slots=True)
class Found:
    """A finding on the page; `key` names its row in the form, or is None if it cannot be left out by itself."""

    finding: FoundRow
    key: str | None
    leave_out: bool


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of finding with what is shown of it."""

    kind: FindingKind
    words: Words
    tone: str
    number: int
    found: Sequence[Found]


@router.get("/tasks/learn")
async def form_to_learn(visit: Learner, name: Name = "", more: str = "") -> Response:
    """Ask for a file."""
    visit.context.ready()
    return _form(visit, name=name, more=bool(more))


@router.post("/tasks/learn")
async def upload(visit: Learner) -> Response:
    """Take a file and check it."""
    context = visit.context
    context.opened()
    async with uploading(context) as (_, received):
        form = await visit.upload(received / RAW)
        more, name = form.get("kind") == "more", form.get("name")
        if not form.file_name:
            return _form(visit, name=name, more=more, problem=visit.gettext("Choose a file."))
        name = name or _stem(form.file_name)
        if not more and (len(name) > NAME_CHARACTERS or not name.isprintable()):
            return _form(visit, name=name, more=more, problem=visit.gettext("This name is too long or cannot be read."))
        job_id, folder = await asyncio.to_thread(context.jobs.stage)
        file = f"given{_suffix(form.file_name)}"
        (received / RAW).rename(folder / file)
    about = Upload(job_id, visit.caller.id, form.file_name, None if more else name)
    (folder / _ABOUT).write_text(json.dumps({"caller": about.caller, "file": about.file_name, "name": about.name}))
    options = ExamineOptions(
        file,
        about.file_name,
        str(context.settings.workspace.resolve()),
        about.name,
        context.settings.backbone,
        context.settings.upload_bytes,
    )
    try:
        await examined_upload(context, folder, options)
    except (DataError, ConfigError) as error:
        await asyncio.to_thread(context.jobs.discard, job_id)
        return _form(visit, name=name, more=more, error=error)
    return visit.redirect(link(f"tasks/learn/{job_id}"))


@router.get("/tasks/learn/{upload_id}")
async def findings(visit: Learner, upload_id: str) -> Response:
    """Show what the check has found."""
    about, folder = await asyncio.to_thread(_staged, visit, upload_id)
    report = DataCheckReport.model_validate_json(await asyncio.to_thread((folder / REPORT).read_bytes))
    return _report(visit, about, report)


@router.post("/tasks/learn/{upload_id}")
async def start(visit: Learner, upload_id: str) -> Response:
    """Learn the rows that are left."""
    context, form = visit.context, visit.form
    context.opened()
    about, folder = await asyncio.to_thread(_staged, visit, upload_id)
    rows = json.loads(await asyncio.to_thread((folder / ROWS).read_bytes))
    shown, dropped = set(form.all("shown")), set(form.all("drop"))
    kept = [one for row in rows if (one := _kept(row, shown, dropped, correct=form.checked("correct"))) is not None]
    body = _body(about, kept)
    if not kept:
        raise ApiProblem(422, "no-rows", "no row is left to learn; go back, and leave fewer rows out")
    await asyncio.to_thread(_write_body, folder, body)
    try:
        options = UploadOptions(
            "json",
            extend=about.name is None,
            seed=context.opened().settings.seed,
            limit=max(context.settings.upload_bytes, (folder / f"{RAW}.json").stat().st_size),
        )
        tasks = await checked_upload(context, folder, options)
    except (DataError, ConfigError) as error:
        report = DataCheckReport.model_validate_json(await asyncio.to_thread((folder / REPORT).read_bytes))
        return _report(visit, about, report, error=error)
    kind = JobKind.EXTEND if about.name is None else JobKind.LEARN
    wanted = JobRequest(kind, {"evaluate": True, "gate": True} | ({} if about.name is None else {"batch": 1}), tasks)
    submitted = await submit(visit.request, visit.caller, wanted, None, digest_of([kind, body]), upload_id)
    return visit.redirect(link(f"jobs/{submitted.job.id}"))


@router.post("/tasks/learn/{upload_id}/discard")
async def discard(visit: Learner, upload_id: str) -> Response:
    """Delete an upload."""
    await asyncio.to_thread(_staged, visit, upload_id)
    await asyncio.to_thread(visit.context.jobs.discard, upload_id)
    return visit.redirect(link("tasks"), flash=visit.gettext("The file was discarded. Nothing was learned."))


def _form(
    visit: Visit,
    *,
    name: str,
    more: bool,
    problem: str = "",
    error: DataError | ConfigError | None = None,
) -> Response:
    """Return the form that asks for a file."""
    known = [task.name for task in visit.context.serving.live.snapshot.tasks]
    return visit.render(
        "learn.html",
        422 if problem or error else 200,
        name=name,
        more=more,
        problem=problem,
        error=_error(error),
        known=known,
        again=name in known,
        endings=",".join((*ENDINGS, ".gz")),
        limit=visit.context.settings.upload_bytes,
    )


def _error(error: DataError | ConfigError | None) -> Mapping[str, Any] | None:
    """Return what an error says, as someone needs it who has sent a form."""
    if error is None:
        return None
    problems = error.in_order()[:_SHOWN] if isinstance(error, DataError) else ()
    summary = error.summary if isinstance(error, DataError) else str(error)
    return {
        "summary": of_a_request(summary),
        "problems": [(one.row, of_a_request(one.reason)) for one in problems],
    }


def _staged(visit: Visit, upload_id: str) -> tuple[Upload, Path]:
    """Return an upload of the caller, and its folder."""
    folder = visit.context.jobs.staged(upload_id)
    try:
        about = json.loads((folder / _ABOUT).read_bytes())
    except (OSError, ValueError):
        raise UnknownNameError("there is no such upload") from None
    if about["caller"] != visit.caller.id:
        raise ApiProblem(404, "no-such-page", "there is no page at this address")
    return Upload(upload_id, about["caller"], about["file"], about["name"]), folder


def _report(
    visit: Visit, about: Upload, report: DataCheckReport, *, error: DataError | ConfigError | None = None
) -> Response:
    """Return the page with what the check has found."""
    left_out = {(row.file, row.row) for row in report.left_out if row.action == "left out"}
    kinds = [
        Kind(
            kind,
            FINDINGS.get(kind.code, Words(kind.title, kind.meaning)),
            _TONES[kind.severity],
            report.counts[kind.code],
            [_found(finding, left_out) for finding in report.of(kind.code)[:_SHOWN]],
        )
        for kind in report.kinds
    ]
    subsets = {subset: sum(counts.get(subset, 0) for counts in report.rows.values()) for subset in SUBSETS}
    return visit.render(
        "findings.html",
        422 if error else 200,
        about=about,
        report=report,
        kinds=kinds,
        subsets=subsets,
        error=_error(error),
        corrected=sum(row.action == "changed" for row in report.left_out),
        left_out=len(left_out),
        SHOWN=_SHOWN,
    )


def _found(finding: FoundRow, left_out: set[tuple[str, int]]) -> Found:
    place = finding.place
    key = _key(place.subset, place.row) if place.row is not None and place.subset is not None else None
    return Found(finding, key, key is not None and (place.file, place.row or 0) in left_out)


def _key(subset: str | None, row: int | None) -> str:
    return f"{subset}:{row}"


def _kept(row: Mapping[str, Any], shown: set[str], dropped: set[str], *, correct: bool) -> Mapping[str, Any] | None:
    """Return a row as it is learned, with its subset; None if it is left out.

    Of rows that were shown, whoever looked at them decides; the others are left out if the correction would do so.
    """
    key = _key(row["subset"], row["number"])
    fixed = row["fixed"]
    if key in dropped or (key not in shown and correct and fixed is None):
        return None
    return {"subset": row["subset"], "row": fixed if correct and fixed is not None else row["row"]}


def _write_body(folder: Path, body: Mapping[str, Any]) -> None:
    """Write the rows to learn where they are checked, in place of what an earlier attempt has left."""
    for former in (DATA, SAMPLE):
        (folder / former).unlink(missing_ok=True)
    (folder / f"{RAW}.json").write_text(json.dumps(body), encoding="utf-8")


def _body(about: Upload, kept: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the upload as the API takes it."""
    subsets = {subset: [one["row"] for one in kept if one["subset"] == subset] for subset in SUBSETS}
    named: dict[str, Any] = {} if about.name is None else {"name": about.name}
    if not subsets["validation"] and not subsets["test"]:
        return {**named, "rows": subsets["train"]}
    return {**named, **{subset: rows for subset, rows in subsets.items() if rows or subset == "train"}}


def _stem(file_name: str) -> str:
    return re.sub(r"(\.[A-Za-z0-9]{1,7}){1,2}$", "", file_name)[:NAME_CHARACTERS] or file_name


def _suffix(file_name: str) -> str:
    """Return the ending of a file name, which says its format."""
    found = re.search(r"(\.[A-Za-z0-9]{1,7}){1,2}$", file_name)
    return found[0].lower() if found else ""
