"""Learn from a file: upload it, look at what the check finds, choose what to leave out, start the job."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Annotated, Any

from fastapi import Query
from starlette.responses import Response

from conpet.dashboard.file_reading import ENCODINGS, ENDINGS, error_of, reading_of, why_unreadable
from conpet.dashboard.findings import FINDINGS, Words
from conpet.dashboard.forms import Form
from conpet.dashboard.navigation import page_router
from conpet.dashboard.templating import link
from conpet.dashboard.visit import Visit, visits
from conpet.data.labelled import SUBSETS
from conpet.data.quality.rows import Mode
from conpet.data.raw import ReadOptions
from conpet.errors import ConfigError, DataError, UnknownNameError, listed
from conpet.jobs.data import DATA, SAMPLE
from conpet.jobs.intake import NAME_CHARACTERS
from conpet.jobs.records import JobKind, JobRequest
from conpet.jobs.uploads import RAW, REPORT, ROWS, ExamineOptions, UploadOptions
from conpet.problem_details import ApiProblem
from conpet.report.data_check import DataCheckReport, FindingKind, FoundRow, Severity
from conpet.serve.context import ServerContext
from conpet.serve.keys import Role
from conpet.serve.submit import NewLabels, checked_upload, digest_of, examined_upload, submit, uploading

router = page_router()
UPLOADS = ("/ui/tasks/learn",)
Learner = Annotated[Visit, visits(Role.LEARN)]
Name = Annotated[str, Query(max_length=1000)]

_ABOUT = "about.json"
_SHOWN = 50
"""Most findings of a kind that are listed."""
_KNOWN = "known-labels"
"""Code of the finding that some labels are known."""
_NEW_TASK, _INTO, _LEAVE_OUT = "task", "into", "leave"
"""Where new labels go."""
_LABELS = 2
"""Fewest labels of a task."""
_TONES = {Severity.ERROR: "bad", Severity.WARNING: "warn", Severity.NOTE: "plain"}


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that was uploaded and is not learned yet.

    Attributes:
        id: Its id, which its job will have.
        caller: Who uploaded it.
        file_name: Its name.
        name: Name of the task that new labels become.
        reading: How it is read.
        mode: How its labels can be learned.
    """

    id: str
    caller: str
    file_name: str
    name: str
    reading: ReadOptions = field(default_factory=ReadOptions)
    mode: Mode = Mode.NEW

    @property
    def stored(self) -> str:
        """The name that it is stored under, with the ending that says its format."""
        return f"given{_suffix(self.file_name)}"


@dataclass(frozen=True, slots=True)
class Labels:
    """The labels of a file, with their numbers of rows.

    Attributes:
        known: Of labels that are known, by their tasks.
        new: Of those that are not, the most frequent first.
    """

    known: Mapping[str, int]
    new: Mapping[str, int]

    @property
    def rows(self) -> int:
        """Number of rows of new labels."""
        return sum(self.new.values())

    @property
    def named(self) -> str:
        """The names of new labels, as many as are read at once."""
        return listed(list(self.new))


@dataclass(frozen=True, slots=True)
class Found:
    """A finding on the page.

    Attributes:
        finding: The finding.
        key: Names its row in the form; None if it cannot be left out by itself.
        leave_out: Whether its row is left out if nobody decides otherwise.
        rows: The numbers of the rows that it is said of, if there are several.
    """

    finding: FoundRow
    key: str | None
    leave_out: bool
    rows: Sequence[int] = ()

    @property
    def has_texts(self) -> bool:
        """Whether there is more to show than the message."""
        return self.key is not None or self.finding.place.text is not None or self.finding.other is not None


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of finding with what is shown of it."""

    kind: FindingKind
    words: Words
    tone: str
    number: int
    found: Sequence[Found]

    @property
    def has_texts(self) -> bool:
        """Whether there is more to show than messages."""
        return any(one.has_texts for one in self.found)


@router.get("/tasks/learn")
async def form_to_learn(visit: Learner, name: Name = "", more: str = "") -> Response:
    """Ask for a file."""
    visit.context.ready()
    return _form(visit, Form([("name", name), ("kind", "more" if more else "")]))


@router.post("/tasks/learn")
async def upload(visit: Learner) -> Response:
    """Take a file and check it."""
    context = visit.context
    context.opened()
    async with uploading(context) as (_, received):
        form = await visit.upload(received / RAW)
        more, name = form.get("kind") == "more", form.get("name")
        if not form.file_name:
            return _form(visit, form, problem=visit.gettext("Choose a file."))
        if problem := await asyncio.to_thread(why_unreadable, visit, received / RAW, form.file_name):
            return _form(visit, form, problem=problem)
        name = name or _free(visit, _stem(form.file_name), more=more)
        if len(name) > NAME_CHARACTERS or not name.isprintable():
            return _form(visit, form, problem=visit.gettext("This name is too long or cannot be read."))
        job_id, folder = await asyncio.to_thread(context.jobs.stage)
        about = Upload(job_id, visit.caller.id, form.file_name, name, reading_of(form))
        (received / RAW).rename(folder / about.stored)
    try:
        await _examined(context, about, folder)
    except (DataError, ConfigError) as error:
        await asyncio.to_thread(context.jobs.discard, job_id)
        return _form(visit, form, error=error)
    return visit.redirect(link(f"tasks/learn/{job_id}"))


@router.get("/tasks/learn/{upload_id}")
async def findings(visit: Learner, upload_id: str) -> Response:
    """Show what the check has found, or the job that the upload has become."""
    if await asyncio.to_thread(_is_job, visit, upload_id):
        return visit.redirect(link(f"jobs/{upload_id}"))
    about, folder = await asyncio.to_thread(_staged, visit, upload_id)
    return await asyncio.to_thread(_report, visit, about, folder)


@router.post("/tasks/learn/{upload_id}/read")
async def read_again(visit: Learner, upload_id: str) -> Response:
    """Check the file again, read in another way."""
    about, folder = await asyncio.to_thread(_staged, visit, upload_id)
    about = replace(about, reading=reading_of(visit.form))
    try:
        await _examined(visit.context, about, folder)
    except (DataError, ConfigError) as error:
        return await asyncio.to_thread(_report, visit, about, folder, error=error)
    return visit.redirect(link(f"tasks/learn/{upload_id}"))


@router.post("/tasks/learn/{upload_id}")
async def start(visit: Learner, upload_id: str) -> Response:
    """Learn the rows that are left."""
    context, form = visit.context, visit.form
    context.opened()
    if await asyncio.to_thread(_is_job, visit, upload_id):  # the form was sent again
        return visit.redirect(link(f"jobs/{upload_id}"))
    about, folder = await asyncio.to_thread(_staged, visit, upload_id)
    rows = json.loads(await asyncio.to_thread((folder / ROWS).read_bytes))
    shown, dropped = set(form.all("shown")), set(form.all("drop"))
    kept = [one for row in rows if (one := _kept(row, shown, dropped, correct=form.checked("correct"))) is not None]
    labels = _labels(visit, [one["row"] for one in kept])
    new, problem = _placed(visit, about, labels)
    if problem:
        return await asyncio.to_thread(_report, visit, about, folder, problem=problem)
    if about.mode is not Mode.NEW and new is None:
        kept = [one for one in kept if one["row"].get("label") not in labels.new]
    if not kept:
        none = visit.gettext("No row is left to learn. Leave fewer rows out.")
        return await asyncio.to_thread(_report, visit, about, folder, problem=none)
    body = _body(about, kept)
    await asyncio.to_thread(_write_body, folder, body)
    try:
        options = UploadOptions(
            "json",
            extend=about.mode is not Mode.NEW,
            seed=context.opened().settings.seed,
            limit=max(context.settings.upload_bytes, (folder / f"{RAW}.json").stat().st_size),
        )
        tasks = await checked_upload(context, folder, options, new)
    except (DataError, ConfigError) as error:
        return await asyncio.to_thread(_report, visit, about, folder, error=error)
    kind = JobKind.LEARN if about.mode is Mode.NEW else JobKind.EXTEND
    how: Mapping[str, Any] = {"batch": 1} if about.mode is Mode.NEW else {} if new is None else new._asdict()
    wanted = JobRequest(kind, {"evaluate": True, "gate": True, **how}, tasks)
    submitted = await submit(visit.request, visit.caller, wanted, None, digest_of([kind, how, body]), upload_id)
    return visit.redirect(link(f"jobs/{submitted.job.id}"))


@router.post("/tasks/learn/{upload_id}/discard")
async def discard(visit: Learner, upload_id: str) -> Response:
    """Delete an upload."""
    await asyncio.to_thread(_staged, visit, upload_id)
    await asyncio.to_thread(visit.context.jobs.discard, upload_id)
    if visit.form.checked("again"):
        return visit.redirect(link("tasks/learn"))
    return visit.redirect(link("tasks"), flash=visit.gettext("The file was discarded. Nothing was learned."))


async def _examined(context: ServerContext, about: Upload, folder: Path) -> None:
    """Check an uploaded file, and keep what it is about beside it."""
    options = ExamineOptions(
        about.stored,
        about.file_name,
        str(context.settings.workspace.resolve()),
        about.name,
        context.settings.backbone,
        context.settings.upload_bytes,
        about.reading.columns,
        about.reading.encoding,
        about.reading.sheet,
    )
    mode = await examined_upload(context, folder, options)
    document = json.dumps({**asdict(about), "mode": str(mode)})
    await asyncio.to_thread((folder / _ABOUT).write_text, document)


def _form(visit: Visit, given: Form, *, problem: str = "", error: DataError | ConfigError | None = None) -> Response:
    """Return the form that asks for a file."""
    known = [task.name for task in visit.context.serving.live.snapshot.tasks]
    return visit.render(
        "learn.html",
        422 if problem or error else 200,
        name=given.get("name"),
        more=given.get("kind") == "more",
        problem=problem,
        error=error_of(error),
        known=known,
        endings=",".join(ENDINGS),
        limit=visit.context.settings.upload_bytes,
        reading=reading_of(given),
        encodings=ENCODINGS,
    )


def _is_job(visit: Visit, upload_id: str) -> bool:
    """Return whether an upload was sent to be learned."""
    with suppress(UnknownNameError):
        return visit.context.jobs.get(upload_id).id == upload_id
    return False


def _staged(visit: Visit, upload_id: str) -> tuple[Upload, Path]:
    """Return an upload of the caller, and its folder."""
    folder = visit.context.jobs.staged(upload_id)
    try:
        about = json.loads((folder / _ABOUT).read_bytes())
    except (OSError, ValueError):
        raise UnknownNameError("there is no such upload") from None
    if about["caller"] != visit.caller.id:
        raise ApiProblem(404, "no-such-page", "there is no page at this address")
    return Upload(**{**about, "mode": Mode(about["mode"]), "reading": ReadOptions(**about["reading"])}), folder


def _report(
    visit: Visit, about: Upload, folder: Path, *, problem: str = "", error: DataError | ConfigError | None = None
) -> Response:
    """Return the page with what the check has found."""
    report = DataCheckReport.model_validate_json((folder / REPORT).read_bytes())
    rows = json.loads((folder / ROWS).read_bytes())
    labels = _labels(visit, [row["row"] if row["fixed"] is None else row["fixed"] for row in rows])
    left_out = {(row.file, row.row) for row in report.left_out if row.action == "left out"}
    fixed = bool(report.left_out)
    kinds = [
        Kind(
            kind,
            FINDINGS.get(kind.code, Words(kind.title, kind.meaning)),
            _TONES[kind.severity],
            report.counts[kind.code],
            _joined(_found(finding, left_out) for finding in report.of(kind.code))[:_SHOWN],
        )
        for kind in report.kinds
        if kind.code != _KNOWN  # the page says what becomes of them
    ]
    errors = [one for kind in kinds if kind.kind.severity is Severity.ERROR for one in kind.found]
    shown = {one.key for kind in kinds for one in kind.found if one.key}
    dropped = {one.key for kind in kinds for one in kind.found if one.key and one.leave_out}
    subsets = {subset: sum(counts.get(subset, 0) for counts in report.rows.values()) for subset in SUBSETS}
    return visit.render(
        "findings.html",
        422 if error or problem else 200,
        about=about,
        labels=labels,
        tasks=[task.name for task in visit.context.serving.live.snapshot.tasks],
        chosen=_chosen(visit, about, labels),
        removable=any(one.key for one in errors),
        some_left=any(_kept(row, shown, dropped, correct=fixed) for row in rows),
        reading=about.reading,
        encodings=ENCODINGS,
        problem=problem,
        report=report,
        kinds=kinds,
        subsets=subsets,
        error=error_of(error),
        corrected=sum(row.action == "changed" for row in report.left_out),
        left_out=len(left_out),
        SHOWN=_SHOWN,
    )


def _labels(visit: Visit, rows: Sequence[Mapping[str, Any]]) -> Labels:
    """Return the labels of rows."""
    owners = visit.context.serving.live.snapshot.owners
    numbers = Counter(row["label"] for row in rows if row.get("label"))
    known: Counter[str] = Counter()
    for label, number in numbers.items():
        if label in owners:
            known[owners[label]] += number
    return Labels(dict(known.most_common()), {la: n for la, n in numbers.most_common() if la not in owners})


def _chosen(visit: Visit, about: Upload, labels: Labels) -> Mapping[str, str]:
    """Return where new labels go: as was chosen, else into the task that was named, or the nearest for a single one."""
    form, named = visit.form, about.name in visit.context.serving.live.snapshot.owners.values()
    default = _NEW_TASK if len(labels.new) >= _LABELS and not named else _INTO
    return {
        "where": form.get("where") or default,
        "name": form.get("name") or about.name,
        "into": form.get("into") or (about.name if named else next(iter(labels.known), "")),
    }


def _placed(visit: Visit, about: Upload, labels: Labels) -> tuple[NewLabels | None, str]:
    """Return where new labels go, None if nowhere; and what is wrong with that, or ""."""
    if about.mode is Mode.NEW or not labels.new:
        return None, ""
    chosen = _chosen(visit, about, labels)
    known = {task.name for task in visit.context.serving.live.snapshot.tasks}
    where, name, into = chosen["where"], chosen["name"].strip(), chosen["into"]
    if where == _LEAVE_OUT:
        return None, ""
    if where == _INTO:
        wrong = "" if into in known else visit.gettext("Choose the task that gets the new labels.")
        return NewLabels(name, into), wrong
    if len(labels.new) < _LABELS:
        return None, visit.gettext(
            "A task needs two labels or more, and there is only one new label. Add it to a known task, or leave it out."
        )
    if not name or len(name) > NAME_CHARACTERS or not name.isprintable():
        return None, visit.gettext("This name is too long or cannot be read.")
    taken = visit.gettext("There is a task of this name already. Choose another name, or add the labels to that task.")
    return NewLabels(name, None), taken if name in known else ""


def _free(visit: Visit, name: str, *, more: bool) -> str:
    """Return a name for the task of a file's new labels; with `more`, one that no task has yet."""
    known = {task.name for task in visit.context.serving.live.snapshot.tasks} if more else set()
    return next(one for number in count(1) if (one := name if number == 1 else f"{name} {number}") not in known)


def _found(finding: FoundRow, left_out: set[tuple[str, int]]) -> Found:
    place = finding.place
    key = _key(place.subset, place.row) if place.row is not None and place.subset is not None else None
    return Found(finding, key, key is not None and (place.file, place.row or 0) in left_out)


def _joined(found: Iterable[Found]) -> list[Found]:
    """Return findings with those joined that say the same of rows of which nothing else is shown."""
    joined: dict[object, Found] = {}
    for one in found:
        place = one.finding.place
        alone = one.has_texts or place.row is None
        key: object = id(one) if alone else (place.file, one.finding.message)
        former = joined.get(key)
        joined[key] = one if former is None else replace(former, rows=[*former.rows, place.row or 0])
        if former is None and not alone:
            joined[key] = replace(one, rows=[place.row or 0])
    return list(joined.values())


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
    named: dict[str, Any] = {"name": about.name} if about.mode is Mode.NEW else {}
    if not subsets["validation"] and not subsets["test"]:
        return {**named, "rows": subsets["train"]}
    return {**named, **{subset: rows for subset, rows in subsets.items() if rows or subset == "train"}}


def _stem(file_name: str) -> str:
    return re.sub(r"(\.[A-Za-z0-9]{1,7}){1,2}$", "", file_name)[:NAME_CHARACTERS] or file_name


def _suffix(file_name: str) -> str:
    """Return the ending of a file name, which says its format."""
    found = re.search(r"(\.[A-Za-z0-9]{1,7}){1,2}$", file_name)
    return found[0].lower() if found else ""
