"""Split a label into finer ones: on a page, or in a table that is downloaded, filled in and sent back."""

from __future__ import annotations

import asyncio
import csv
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Annotated, Any

from fastapi import Query
from starlette.responses import Response

from conpet.commands.checks import owner_of
from conpet.dashboard.navigation import page_router
from conpet.dashboard.pages.changes import SAFE, Name, Operator, examples_of, once, once_key, snapshot_of, started
from conpet.dashboard.templating import link
from conpet.dashboard.visit import Visit
from conpet.data import Example
from conpet.errors import UnknownNameError
from conpet.problem_details import ApiProblem
from conpet.serve.submit import submit_split, uploading

router = page_router()
UPLOADS = ("/ui/tasks/split/file",)

NAMED, DROPPED = "=", "drop"
"""Values of a choice: a finer label after a mark, and that the example is left out."""
_FINER = 10
"""Most finer labels that a label is split into at once on a page."""
_SORTED = 500
"""Most examples that are sorted into finer labels on a page."""
_COLUMNS = ("number", "text", "label")
"""Columns of the table: an example has its number, whatever the rows are sorted by."""
_ENCODINGS = ("utf-8-sig", "utf-16", "cp932", "cp1252")
"""How table programs save text; the one counts with which the texts are those that were sent."""
_SEPARATORS = ",;\t"
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_STAGED = "split.json"
_DIGITS = 10
"""Digits that no number of an example has."""
_LISTED = 50
"""Most finer labels that are listed with their numbers."""


@router.get("/tasks/split")
async def ask_to_split(
    visit: Operator, label: Name, finer: Annotated[list[str] | None, Query(max_length=_FINER)] = None
) -> Response:
    """Ask for the finer labels, then which example gets which."""
    names = _distinct(finer or ())
    problem = visit.gettext("Give two different names or more.") if any(finer or ()) and len(names) < 2 else ""
    return await _split_form(visit, label, names, {}, problem)


@router.post("/tasks/split")
async def split(visit: Operator) -> Response:
    """Split a label into finer ones."""
    form, label = visit.form, visit.form["label"]
    task = owner_of(snapshot_of(visit), label)
    examples = await asyncio.to_thread(examples_of, task, label)
    finer = _distinct(form.all("finer"))
    rest = form.get("rest")
    chosen = {number: form.get(f"row-{number}") for number in range(len(examples))}
    given = {number: (value or rest).removeprefix(NAMED) for number, value in chosen.items() if value or rest}
    known = {number: name for number, name in given.items() if name in finer and (chosen[number] or rest) != DROPPED}
    without = set(finer) - set(known.values())
    if len(finer) < 2 or without:
        problem = visit.gettext("Give at least one example to each of the finer labels.")
        return await _split_form(visit, label, finer, chosen, problem, rest)
    rows = [_row(examples[number], name) for number, name in known.items()]
    options = {"label": label, "replace": False, **SAFE}
    return started(visit, await submit_split(visit.request, visit.caller, rows, options, once_key(visit)))


@router.get("/tasks/split.csv")
async def table(visit: Operator, label: Name) -> Response:
    """Return the stored examples of a label as a table with an empty column for the finer labels."""
    task = owner_of(snapshot_of(visit), label)
    examples = await asyncio.to_thread(examples_of, task, label)
    written = StringIO()
    writer = csv.writer(written)
    writer.writerow(_COLUMNS)
    writer.writerows([number, _cell(one), ""] for number, one in enumerate(examples, start=1))
    headers = {"Content-Disposition": 'attachment; filename="split.csv"'}
    return Response(written.getvalue().encode("utf-8-sig"), media_type="text/csv", headers=headers)


@router.post("/tasks/split/file")
async def take_table(visit: Operator) -> Response:
    """Take the table with the finer labels, and go on to what it will do."""
    context = visit.context
    context.opened()
    async with uploading(context) as (_, received):
        form = await visit.upload(received / "table")
        label = form["label"]
        examples = await asyncio.to_thread(examples_of, owner_of(snapshot_of(visit), label), label)
        problem = "" if form.file_name else visit.gettext("Choose a file.")
        rows: list[dict[str, Any]] = []
        if not problem:
            rows, problem = await asyncio.to_thread(_read, visit, received / "table", examples, label)
        if problem:
            return await _split_form(visit, label, [], {}, problem)
        upload_id, folder = await asyncio.to_thread(context.jobs.stage)
    staged = {"caller": visit.caller.id, "label": label, "rows": rows, "left": len(examples) - len(rows)}
    await asyncio.to_thread((folder / _STAGED).write_text, json.dumps(staged))
    return visit.redirect(link(f"tasks/split/{upload_id}"))


@router.get("/tasks/split/{upload_id}")
async def ask_to_split_by_table(visit: Operator, upload_id: str) -> Response:
    """Say what the split by a table will do."""
    staged = await asyncio.to_thread(_staged, visit, upload_id)
    label, numbers = staged["label"], Counter(row["label"] for row in staged["rows"])
    task = owner_of(snapshot_of(visit), label)
    effects = [
        visit.gettext(
            "The task “%(task)s” is learned again with the finer labels in place of “%(label)s”, as a new version. You "
            "can roll it back.",
            task=task.name,
            label=label,
        ),
        *(
            visit.ngettext(
                "“%(label)s” gets %(num)s example.", "“%(label)s” gets %(num)s examples.", number, label=name
            )
            for name, number in numbers.most_common(_LISTED)
        ),
    ]
    if staged["left"]:
        effects.append(
            visit.ngettext(
                "%(num)s example has no finer label, and is dropped from the new version.",
                "%(num)s examples have no finer label, and are dropped from the new version.",
                staged["left"],
            )
        )
    effects.append(visit.gettext("If earlier answers get clearly worse, the gate stops the change, and you decide."))
    return visit.confirm(
        title=visit.gettext("Split the label “%(label)s”", label=label),
        effects=effects,
        action=link(f"tasks/split/{upload_id}"),
        fields=once(),
        button=visit.gettext("Split the label"),
        back=link("tasks/split", label=label),
    )


@router.post("/tasks/split/{upload_id}")
async def split_by_table(visit: Operator, upload_id: str) -> Response:
    """Split a label as a table says."""
    staged = await asyncio.to_thread(_staged, visit, upload_id)
    options = {"label": staged["label"], "replace": False, **SAFE}
    submitted = await submit_split(visit.request, visit.caller, staged["rows"], options, once_key(visit))
    return started(visit, submitted)


async def _split_form(
    visit: Visit, label: str, finer: Sequence[str], chosen: Mapping[int, str], problem: str, rest: str = ""
) -> Response:
    """Return the form that splits a label: first its finer labels, then its examples."""
    snapshot = snapshot_of(visit)
    task = owner_of(snapshot, label)
    examples = await asyncio.to_thread(examples_of, task, label)
    taken = [name for name in finer if name != label and name in snapshot.owners]
    if taken:
        problem = visit.gettext("There is a label of this name already: %(names)s.", names=", ".join(taken))
    return visit.render(
        "split.html",
        422 if problem else 200,
        label=label,
        task=task.name,
        examples=examples[:_SORTED],
        number=len(examples),
        too_many=len(examples) > _SORTED,
        finer=[] if taken else finer,
        names=finer,
        chosen=chosen,
        rest=rest,
        NAMED=NAMED,
        DROPPED=DROPPED,
        problem=problem,
        once=once(),
        MOST=_FINER,
    )


def _staged(visit: Visit, upload_id: str) -> dict[str, Any]:
    """Return what a table says that the caller has sent."""
    folder = visit.context.jobs.staged(upload_id)
    try:
        staged: dict[str, Any] = json.loads((folder / _STAGED).read_bytes())
    except (OSError, ValueError):
        raise UnknownNameError("there is no such upload") from None
    if staged["caller"] != visit.caller.id:
        raise ApiProblem(404, "no-such-page", "there is no page at this address")
    return staged


def _read(visit: Visit, file: Path, examples: Sequence[Example], label: str) -> tuple[list[dict[str, Any]], str]:
    """Return the examples that a table gives a finer label, or what is wrong with it."""
    table = max(_tables(file.read_bytes()), key=lambda rows: _matching(rows, examples), default=[])
    if not table:
        return [], visit.gettext(
            "This is not the table that was downloaded: it needs the columns “number”, “text” and “label”, and must be "
            "saved as CSV."
        )
    chosen: dict[int, str] = {}
    for row in table:
        place = _place(row, examples)
        if place is None:
            return [], visit.gettext(
                "The row of number “%(number)s” is none of the examples. Download the table again, and change only the "
                "column “label”.",
                number=row["number"],
            )
        if name := " ".join(row["label"].split()):
            chosen[place] = name
    taken = sorted({name for name in chosen.values() if name != label and name in snapshot_of(visit).owners})
    if taken:
        return [], visit.gettext("There is a label of this name already: %(names)s.", names=", ".join(taken))
    if len(set(chosen.values())) < 2:
        return [], visit.gettext("Write two or more finer labels into the column “label”.")
    return [_row(examples[place], name) for place, name in sorted(chosen.items())], ""


def _tables(content: bytes) -> list[list[Mapping[str, str]]]:
    """Return the rows of a table, for each encoding with which it has the columns."""
    found: list[list[Mapping[str, str]]] = []
    for encoding in _ENCODINGS:
        try:
            text = content.decode(encoding)
        except UnicodeError:
            continue
        header = text.partition("\n")[0]
        separator = max(_SEPARATORS, key=header.count)
        reader = csv.DictReader(StringIO(text, newline=""), delimiter=separator, restval="")
        try:
            if set(_COLUMNS) <= set(reader.fieldnames or ()):
                rows = [{name: row[name] or "" for name in _COLUMNS} for row in reader]
                found.append([row for row in rows if any(value.strip() for value in row.values())])
        except csv.Error:
            continue
    return found


def _matching(rows: Sequence[Mapping[str, str]], examples: Sequence[Example]) -> int:
    return sum(_place(row, examples) is not None for row in rows)


def _place(row: Mapping[str, str], examples: Sequence[Example]) -> int | None:
    """Return which example a row is, or None if it is none."""
    number = row["number"].strip()
    place = int(number) - 1 if number.isdecimal() and len(number) < _DIGITS else -1
    if not 0 <= place < len(examples):
        return None
    return place if row["text"].split() == _cell(examples[place]).split() else None


def _cell(example: Example) -> str:
    """Return the text of an example, so that no table program takes it for a formula."""
    text = str(example.content)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _distinct(names: Sequence[str]) -> list[str]:
    """Return names of labels without blanks around them, each once."""
    return list(dict.fromkeys(name.strip() for name in names if name.strip()))


def _row(example: Example, label: str) -> dict[str, Any]:
    fields = {name: value for name, value in example.to_json().items() if name != "kind"}
    return {**fields, "label": label}
