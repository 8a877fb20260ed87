"""Review: one answer at a time, how good all answers are, and learning what was reviewed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, NamedTuple
from zipfile import BadZipFile, ZipFile

from fastapi import Query
from starlette.responses import Response

from conpet.dashboard.file_reading import ENCODINGS, ENDINGS, error_of, reading_of, why_unreadable
from conpet.dashboard.forms import Form
from conpet.dashboard.listing import PAGE, Listing, PageNumber, SearchText
from conpet.dashboard.messages import marked
from conpet.dashboard.names import VERDICTS, caller_name
from conpet.dashboard.navigation import Entry, page_router
from conpet.dashboard.templating import link
from conpet.dashboard.visit import Visit, visits
from conpet.data import Example, Kind
from conpet.data.files import data_suffix
from conpet.data.raw import ReadOptions
from conpet.data.source import COMPRESSED, READ_ERRORS, Source
from conpet.errors import ConfigError, DataError, ReviewConflictError, UnknownNameError
from conpet.problem_details import ApiProblem
from conpet.review.files import read_annotated, read_rows
from conpet.review.records import HeldBecause, Imported, ItemKind, ItemState, ReviewItem, ReviewPlan, VerdictKind
from conpet.review.review import NO_TEXTS, Review, kind_of, state_of
from conpet.serve.keys import KeyStore, Role
from conpet.serve.review_schemas import LearnReviewedRequest
from conpet.serve.routes.review import candidates_of, learning, reviewer_of
from conpet.serve.submit import submit_change

router = page_router()
ENTRY = Entry(40, "/ui/review", marked("Review"), Role.LEARN)
UPLOADS = ("/ui/review/import",)
Reviewer = Annotated[Visit, visits(Role.LEARN)]
Asker = Annotated[Visit, visits(Role.PREDICT)]
KINDS: dict[ItemKind, str] = {
    ItemKind.REPORTED: marked("reported as wrong"),
    ItemKind.RANDOM: marked("drawn at random"),
    ItemKind.UNCERTAIN: marked("in doubt"),
    ItemKind.DECLINED: marked("declined"),
    ItemKind.IMPORTED: marked("from a file"),
}
"""Why an input is in review."""
STATES: dict[ItemState, tuple[str, str]] = {
    ItemState.OPEN: (marked("waiting"), "plain"),
    ItemState.DISPUTED: (marked("reviewers disagree"), "warn"),
    ItemState.SKIPPED: (marked("skipped"), "plain"),
    ItemState.DONE: (marked("reviewed"), "good"),
}
"""Where an item is, with the tone of its badge."""
HELD: dict[HeldBecause, str] = {
    HeldBecause.NOT_LEARNED: marked("The label is not learned any more. Answer the item again."),
    HeldBecause.NO_TASK: marked("The label is new. Choose a task for it above."),
    HeldBecause.CONTRADICTS: marked(
        "The same input is stored with another label. Change the verdict, or forget the stored example."
    ),
}
"""Why an item cannot be learned."""
STRATA = {"sure": marked("all other answers"), "uncertain": marked("in doubt"), "declined": marked("declined")}
"""Parts of the answers that are sampled apart."""
CANDIDATES = 5
"""Labels to choose from by one key."""
_LABELS = 2000
"""Most labels that the field to search them knows at once."""
_HELD = 20
"""Most items that are listed that cannot be learned."""
_CHUNK = 1 << 20
_TYPED = "typed"
"""The verdict of a form that was sent by Enter in one of its fields."""


class Segment(NamedTuple):
    """A part of an input: its text, and the name of the span that it is, or ""."""

    text: str
    span: str = ""


@router.get("/review")
async def overview(visit: Reviewer) -> Response:
    """Show how far the review is, and how good all answers are."""
    return await _overview(visit)


@router.get("/review/next")
async def take_next(visit: Reviewer, kind: Annotated[str, Query(max_length=20)] = "") -> Response:
    """Show the next item, which nobody else gets meanwhile."""
    review, name = visit.context.review(), reviewer_of(visit.caller)
    item = await asyncio.to_thread(review.next, name, kind=kind_of(kind).value if kind else None)
    if item is None:
        return visit.redirect(link("review"), flash=visit.gettext("Nothing waits for you at the moment."))
    return await _shown(visit, review, item, kind)


@router.get("/review/item")
async def one_item(visit: Reviewer, number: Annotated[int, Query(ge=1, le=2**53)]) -> Response:
    """Show an item, for example one that reviewers disagree on."""
    review = visit.context.review()
    return await _shown(visit, review, await asyncio.to_thread(review.queue.get, number), "")


@router.get("/review/items")
async def items(
    visit: Reviewer,
    number: PageNumber = 1,
    text: SearchText = "",
    state: Annotated[str, Query(max_length=20)] = "",
) -> Response:
    """List items."""
    queue = visit.context.review().queue
    states = [state_of(state)] if state else []
    search = partial(queue.search, text, states=states, limit=PAGE)
    rows, total = await asyncio.to_thread(search, skip=(number - 1) * PAGE)
    pages = max(1, -(-total // PAGE))
    return visit.render(
        "review_items.html",
        listing=Listing(rows, min(number, pages), pages, total),
        text=text,
        state=state,
        kinds=KINDS,
        states=STATES,
        segments=segments,
        names=partial(reviewer_name, visit.context.keys),
    )


@router.get("/review/labels")
async def labels(visit: Reviewer, text: Annotated[str, Query(alias="label", max_length=200)] = "") -> Response:
    """Return the labels that have these letters, for the field to search them."""
    known = await asyncio.to_thread(visit.context.review().known_labels)
    found = [label for label in sorted(known) if text.casefold() in label.casefold()]
    return visit.render("review_labels.html", labels=found[:50])


@router.post("/review/answer")
async def answer(visit: Reviewer) -> Response:
    """Keep what is right for an item, and go on to the next."""
    review, form = visit.context.review(), visit.form
    number = form.number("item", 1, 2**53)
    if number is None:
        raise ApiProblem(422, "incomplete-form", "the form names no item")
    verdict, label = _said(visit)
    said = partial(review.answer, number, verdict, label, note=form.get("note"), reviewer=reviewer_of(visit.caller))
    try:
        done = await asyncio.to_thread(said)
    except ReviewConflictError:
        told = visit.gettext(
            "Somebody else has this item, or it was answered or learned meanwhile. Here is the next one."
        )
        return visit.redirect(link("review/next", kind=form.get("kind") or None), flash=told)
    except (UnknownNameError, ConfigError) as error:
        item = await asyncio.to_thread(review.queue.get, number)
        return await _shown(visit, review, item, form.get("kind"), problem=str(error), status=422)
    return visit.redirect(link("review/next", kind=form.get("kind") or None), flash=_told(visit, done))


@router.post("/review/undo")
async def undo(visit: Reviewer) -> Response:
    """Take the last verdict back, and show its item again."""
    item = await asyncio.to_thread(visit.context.review().undo, reviewer_of(visit.caller))
    return visit.redirect(link("review/item", number=item.id), flash=visit.gettext("Your verdict was taken back."))


@router.post("/review/leave")
async def leave(visit: Reviewer) -> Response:
    """Give back what the reviewer has."""
    await asyncio.to_thread(visit.context.review().queue.release, reviewer_of(visit.caller))
    return visit.redirect(link("review"))


@router.post("/review/draw")
async def draw(visit: Reviewer) -> Response:
    """Draw recorded answers."""
    form = visit.form
    random, uncertain, declined = (form.number(name, 0, 10_000) or 0 for name in ("random", "uncertain", "declined"))
    double = (form.number("double", 0, 100) or 0) / 100
    draws = partial(
        visit.context.review().draw,
        random=random,
        uncertain=uncertain,
        declined=declined,
        double=double,
        by=visit.caller.actor,
    )
    drawn = await asyncio.to_thread(draws)
    if drawn.batch is None:
        told = visit.gettext("No answers were recorded since the last draw.")
    else:
        told = visit.ngettext(
            "%(num)s new item is in review, from %(population)s answers.",
            "%(num)s new items are in review, from %(population)s answers.",
            drawn.added,
            population=visit.formats.number(drawn.population),
        )
    return visit.redirect(link("review"), flash=told)


@router.post("/review/report")
async def report(visit: Asker) -> Response:
    """Put an answer that somebody says is wrong into review: by the request, or by the input as a row in JSON."""
    form = visit.form
    request, row = form.get("request_id") or None, form.get("input")
    if request is None and not row:
        raise ApiProblem(422, "incomplete-form", "the form names neither a request nor an input")
    told = partial(
        visit.context.review().report,
        _example(row) if row else None,
        request_id=request,
        place=form.number("place", 1) or 1,
        label=form.get("label") or None,
        note=form.get("note"),
        reporter=reviewer_of(visit.caller),
    )
    _, waits = await asyncio.to_thread(told)
    thanks = visit.gettext("Thank you. Somebody will look at this answer.")
    known = visit.gettext("Thank you. This answer was reviewed already, and will be corrected with the next version.")
    return visit.redirect(link("try"), flash=thanks if waits else known)


@router.get("/review/learn")
async def ask_to_learn(
    visit: Reviewer,
    into: Annotated[str, Query(max_length=200)] = "",
    name: Annotated[str, Query(max_length=200)] = "",
) -> Response:
    """Say what learning the reviewed items would do."""
    workspace, problem = visit.context.opened(), ""
    plan = partial(workspace.plan_reviewed, into=into or None, name=name.strip() or None)
    try:
        found = await asyncio.to_thread(plan)
    except (DataError, ConfigError, UnknownNameError) as error:
        found, problem = ReviewPlan(), str(error)
    status = await asyncio.to_thread(visit.context.review().status)
    return visit.render(
        "review_learn.html",
        422 if problem else 200,
        plan=found,
        held=found.held[:_HELD],
        reasons=HELD,
        problem=problem,
        tasks=[task.name for task in workspace.tasks],
        into=into,
        name=name.strip(),
        new_labels=status.new_labels,
        first_deleted=status.first_deleted,
    )


@router.post("/review/learn")
async def learn(visit: Reviewer) -> Response:
    """Learn what was reviewed."""
    into, name = visit.form.get("into") or None, visit.form.get("name") or None
    wanted = LearnReviewedRequest(into=into, name=name)
    submitted = await submit_change(visit.request, visit.caller, learning(visit.caller, wanted))
    return visit.redirect(link(f"jobs/{submitted.job.id}"))


@router.post("/review/import")
async def import_file(visit: Reviewer) -> Response:
    """Put the inputs of a file into review, or take over annotations from Label Studio."""
    with TemporaryDirectory(prefix="conpet-import-") as folder:
        received = Path(folder) / "received"
        form = await visit.upload(received)
        if not form.file_name:
            return await _overview(visit, form, problem=visit.gettext("Choose a file."))
        if received.stat().st_size > (most := visit.context.settings.body_bytes):
            raise ApiProblem(413, "too-large", f"files of up to {most:,} bytes are imported here; divide the file")
        if problem := why_unreadable(visit, received, form.file_name):
            return await _overview(visit, form, problem=problem)
        file = received.rename(Path(folder) / f"file{data_suffix(Path(form.file_name))}")
        review, name, notes = visit.context.review(), reviewer_of(visit.caller), list[str]()
        room = visit.context.settings.upload_bytes
        try:
            done = await asyncio.to_thread(_imported, review, name, file, reading_of(form), room, notes)
        except (DataError, ConfigError) as error:
            return await _overview(visit, form, error=_named(error, file, form.file_name))
    told = visit.ngettext(
        "%(num)s new item. Verdicts taken over: %(verdicts)s.",
        "%(num)s new items. Verdicts taken over: %(verdicts)s.",
        done.items,
        verdicts=visit.formats.number(done.verdicts),
    )
    return visit.redirect(link("review"), flash=" ".join([told, *(str(visit.sentence(one)) for one in notes)]))


@router.get("/review/export.json")
async def export(visit: Reviewer, state: Annotated[str, Query(max_length=20)] = "") -> Response:
    """Send items as tasks for Label Studio."""
    found = await asyncio.to_thread(visit.context.review().export, [state] if state else [], by=visit.caller.actor)
    return _file(json.dumps(found, ensure_ascii=False, indent=1), "review.json", "application/json")


@router.get("/review/label-studio.xml")
async def config(visit: Reviewer) -> Response:
    """Send Label Studio's labelling configuration."""
    return _file(
        await asyncio.to_thread(visit.context.review().label_studio_config), "label-studio.xml", "application/xml"
    )


def segments(example: Example) -> list[Segment]:
    """Return the parts of an input, in order, with the marked spans."""
    if example.kind is Kind.TEXT:
        return [Segment(example.text)]
    spans = {"head": example.head, "tail": example.tail, "mention": example.mention}
    parts, at = [], 0
    for name, span in sorted(((name, span) for name, span in spans.items() if span), key=lambda one: one[1]):
        before, marked_words = example.tokens[at : span.start], example.tokens[span.start : span.end]
        parts += [Segment(" ".join(before)), Segment(" ".join(marked_words), name)]
        at = span.end
    parts.append(Segment(" ".join(example.tokens[at:])))
    return [part for part in parts if part.text]


def reviewer_name(keys: KeyStore, reviewer: str) -> str:
    """Return the name of a reviewer for people: of a key, or as it is."""
    return caller_name(keys, reviewer.removeprefix("key "))


async def _shown(
    visit: Visit, review: Review, item: ReviewItem, kind: str, *, problem: str = "", status: int = 200
) -> Response:
    """Return the page of an item, with the labels to choose from."""
    candidates = await candidates_of(visit.request, item, CANDIDATES)
    known, progress = await asyncio.to_thread(lambda: (review.known_labels(), review.status()))
    own = [label for label, found in known.items() if found.kind == str(item.example.kind)]
    confirmable = item.answered and (item.answer is None or item.answer in known)
    others = [one for one in candidates if one.label is not None and not (confirmable and one.label == item.answer)]
    said = "" if problem else item.suggested or ""
    return visit.render(
        "review_item.html",
        status,
        item=item,
        segments=segments(item.example),
        choices=others,
        confirmable=confirmable,
        labels=sorted(own) if len(own) <= _LABELS else [],
        many=len(own) > _LABELS,
        new_labels=sorted(progress.new_labels),
        kind=kind,
        kinds=KINDS,
        verdicts=VERDICTS,
        states=STATES,
        problem=problem,
        typed=visit.form.get("label") or said,
        typed_new=visit.form.get("new"),
        typed_note=visit.form.get("note"),
        held_by=item.claimed_by if item.claimed_by not in (None, reviewer_of(visit.caller)) else None,
        mine=_own(progress.reviewers, reviewer_of(visit.caller)),
        waiting=sum(progress.waiting.values()),
        done=progress.states[ItemState.DONE],
        names=partial(reviewer_name, visit.context.keys),
    )


def _own(reviewers: Sequence[Any], name: str) -> int:
    return next((one.verdicts for one in reviewers if one.reviewer == name), 0)


def _said(visit: Visit) -> tuple[str, str | None]:
    """Return the verdict and the label that a form has sent."""
    form = visit.form
    if candidate := form.get("candidate"):
        return str(VerdictKind.CORRECT), candidate
    verdict, label, new = form.get("verdict"), form.get("label"), form.get("new")
    if verdict == _TYPED:
        verdict = str(VerdictKind.NEW if new else VerdictKind.CORRECT)
    if verdict == VerdictKind.CORRECT:
        return verdict, label or None
    return verdict, (new or None) if verdict == VerdictKind.NEW else None


def _told(visit: Visit, done: ReviewItem) -> str:
    """Return what became of an item, in words."""
    if done.state is ItemState.DONE:
        if done.right is None:
            return visit.gettext("Item %(number)s: nothing learned fits.", number=done.id)
        return visit.gettext("Item %(number)s: %(label)s.", number=done.id, label=done.right)
    if done.state is ItemState.DISPUTED:
        return visit.gettext("Item %(number)s: reviewers disagree, so another one decides.", number=done.id)
    if done.state is ItemState.SKIPPED:
        return visit.gettext("Item %(number)s: skipped. Others may answer it.", number=done.id)
    return visit.gettext("Item %(number)s: a second reviewer looks at it, too.", number=done.id)


def _missing(visit: Visit, reason: str | None) -> str:
    """Return why nothing can be drawn, in the language of the page, or ""."""
    if reason is None:
        return ""
    if reason == NO_TEXTS:
        return visit.gettext("This workspace stores no texts (latent_only), so that nothing can be reviewed.")
    return visit.gettext(
        "Nothing can be drawn: the texts of answers are not recorded. To record them, start the server with "
        "--log-predictions text. Until then, you can import a file."
    )


def _example(row: str) -> Example:
    from conpet.data.rows import RowError, parse_row

    try:
        return parse_row(json.loads(row), labelled=False)
    except (ValueError, AttributeError, RowError) as error:
        raise ApiProblem(422, "invalid-form", "the input is no row in JSON") from error


async def _overview(
    visit: Visit, given: Form | None = None, *, problem: str = "", error: DataError | ConfigError | None = None
) -> Response:
    """Return the first page of the review, with what was wrong with a file, if one was sent."""
    review = visit.context.review()
    status, accuracy = await asyncio.to_thread(lambda: (review.status(), review.accuracy()))
    waiting = {KINDS[ItemKind(kind)]: number for kind, number in status.waiting.items()}
    return visit.render(
        "review.html",
        422 if problem or error else 200,
        found=status,
        accuracy=accuracy,
        waiting=waiting,
        names=partial(reviewer_name, visit.context.keys),
        strata=STRATA,
        kinds=KINDS,
        missing=_missing(visit, status.text_missing),
        endings=",".join(ENDINGS),
        limit=visit.context.settings.body_bytes,
        problem=problem,
        error=error_of(error),
        reading=reading_of(given or Form()),
        encodings=ENCODINGS,
    )


def _imported(review: Review, reviewer: str, file: Path, reading: ReadOptions, room: int, notes: list[str]) -> Imported:
    """Import a file; what is to be known of how it was read is added to the notes.

    Raises:
        DataError: It cannot be read, or is larger than `room` bytes when decompressed.
    """
    _check_size(file, room)
    if (tasks := read_annotated(file)) is not None:
        return review.add_annotated(tasks, by=reviewer)
    return review.add(read_rows(file, reading, lambda note: notes.append(note.partition(": ")[2])), reviewer=reviewer)


def _check_size(file: Path, room: int) -> None:
    """Check the size that a compressed file has when it is decompressed."""
    size = 0
    if file.suffix in (".xlsx", ".xlsm"):
        with suppress(BadZipFile), ZipFile(file) as stored:
            size = sum(part.file_size for part in stored.infolist())
    elif file.suffix in COMPRESSED:
        with suppress(*READ_ERRORS), Source(file, ReadOptions()).binary() as stream:
            while size <= room and (chunk := stream.read(_CHUNK)):
                size += len(chunk)
    if size > room:
        raise DataError(f"{file}: more than {room:,} bytes when decompressed; divide the file")


def _named(error: DataError | ConfigError, file: Path, name: str) -> DataError | ConfigError:
    """Return an error that calls a file as its sender does."""
    if isinstance(error, ConfigError):
        return ConfigError(str(error).replace(str(file), name))
    return DataError(error.summary.replace(str(file), name), [replace(one, file=name) for one in error.problems])


def _file(content: str, name: str, media_type: str) -> Response:
    headers: Mapping[str, str] = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(content, media_type=media_type, headers=dict(headers))
