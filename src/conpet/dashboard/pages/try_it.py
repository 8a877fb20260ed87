"""Try it: type an input, see the answer and how it came about."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from starlette.responses import Response

from conpet.dashboard.forms import Form
from conpet.dashboard.messages import marked
from conpet.dashboard.navigation import Entry, page_router
from conpet.dashboard.visit import Visit, visits
from conpet.data import Example, Kind, Span
from conpet.problem_details import ApiProblem
from conpet.serve.keys import Role
from conpet.serve.problems import SERVER_ERROR
from conpet.serve.routes.predict import answer
from conpet.types import Candidate, Prediction

router = page_router()
ENTRY = Entry(20, "/ui/try", marked("Try it"))
Anybody = Annotated[Visit, visits(Role.PREDICT)]

KINDS: dict[Kind, tuple[str, Mapping[str, str]]] = {
    Kind.TEXT: (marked("A text"), {}),
    Kind.RELATION: (
        marked("A relation between two marked words or names"),
        {"head": marked("First (head)"), "tail": marked("Second (tail)")},
    ),
    Kind.TYPING: (marked("The type of a marked word or name"), {"mention": marked("Marked words")}),
}
"""Kinds of inputs, with the spans that are marked in them."""
_CANDIDATES = 5
_LABELS = 2_000
"""Most labels that are offered as the right one."""


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer on the page.

    Attributes:
        prediction: The answer.
        candidates: The likeliest labels with their scores, the best first.
        seconds: How long it took.
        row: The input as a row in JSON, for a report.
    """

    prediction: Prediction
    candidates: Sequence[Candidate]
    seconds: float
    row: str


@router.get("/try")
async def form_to_try(visit: Anybody) -> Response:
    """Ask for an input."""
    visit.context.ready()
    return _page(visit, Form())


@router.post("/try")
async def tried(visit: Anybody) -> Response:
    """Answer an input."""
    context, form = visit.context, visit.form
    context.ready()
    started = time.monotonic()
    deadline = started + context.settings.timeout_seconds
    try:
        example = _example(visit, form)
        found = await answer(visit.request, [example], deadline, top_n=_CANDIDATES, explain=True)
    except ApiProblem as problem:
        if problem.status >= SERVER_ERROR:
            raise
        return _page(visit, form, problem=problem)
    if found is None:
        return Response(status_code=499)
    (prediction,) = found
    label = prediction.label if prediction.rejected is None else str(prediction.rejected)
    best = Candidate(label, prediction.score, prediction.task)
    fields = {name: value for name, value in example.to_json().items() if name != "kind"}
    return _page(
        visit,
        form,
        answered=Answered(
            prediction,
            [best, *prediction.runners_up],
            time.monotonic() - started,
            json.dumps(fields, ensure_ascii=False),
        ),
    )


def _page(visit: Visit, form: Form, *, answered: Answered | None = None, problem: ApiProblem | None = None) -> Response:
    state = visit.context.serving.live.state
    kinds = [kind for kind in KINDS if any(task.kind is kind for task in state.tasks)] or [Kind.TEXT]
    given = form.get("kind")
    kind = Kind(given) if given in kinds else kinds[0]
    labels = [label for task in state.tasks for label in task.labels]
    return visit.render(
        "try_it.html",
        problem.status if problem else 200,
        form=form,
        kinds={one: KINDS[one] for one in kinds},
        kind=kind,
        words=form.get("text").split() if kind is not Kind.TEXT else [],
        answered=answered,
        problem=problem,
        details=[str(one.get("detail", "")) for one in (problem.extra.get("errors") or ())] if problem else [],
        labels=labels[:_LABELS],
        learned=bool(state.tasks),
        Kind=Kind,
    )


def _example(visit: Visit, form: Form) -> Example:
    """Return the input of a form.

    Raises:
        ApiProblem: It is empty, or a span is not marked.
    """
    text, kind = form.get("text"), Kind(given) if (given := form.get("kind")) in list(Kind) else Kind.TEXT
    if not text:
        raise ApiProblem(422, "empty-input", visit.gettext("Type something first."))
    if kind is Kind.TEXT:
        return Example.of_text(text)
    tokens = text.split()
    spans: dict[str, Any] = {name: _span(visit, form, name, len(tokens)) for name in KINDS[kind][1]}
    if kind is Kind.RELATION:
        return Example.of_relation(tokens, **spans)
    return Example.of_mention(tokens, **spans)


def _span(visit: Visit, form: Form, name: str, words: int) -> Span:
    """Return a marked span, which people count from 1 to its last word."""
    first, last = (form.number(f"{name}_{end}", 1, words) for end in ("from", "to"))
    if first is None:
        raise ApiProblem(422, "no-span", visit.gettext("Mark the words first, with the mouse or by their numbers."))
    if last is None or last < first:
        last = first
    return Span(first - 1, last)
