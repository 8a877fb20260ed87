"""`POST /v1/predict`: answer inputs."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute

from conpet.data import Example, check_example
from conpet.errors import DamagedModuleError, DataError, UnknownNameError
from conpet.problem_details import SHOWN, ApiProblem, too_busy
from conpet.serve.auth import SECURED, admit
from conpet.serve.batching import Batcher, ClosedError, DeadlineError, QueueFullError, Ticket
from conpet.serve.bodies import body_of, read_body
from conpet.serve.context import ServerContext, context_of
from conpet.serve.keys import Role
from conpet.serve.problems import documented
from conpet.serve.schemas import PredictRequest, PredictResponse
from conpet.serve.settings import ServeSettings
from conpet.types import Candidate, Prediction

TIMEOUT = "X-Request-Timeout"
"""Header with the most seconds that a client waits."""
_CANDIDATES = 100_000
"""Most candidates in a response: some megabytes."""
_CLIENT_GONE = 499
_WAIT_SECONDS = 0.01
"""Seconds between looks for a generation that a request waits for."""


class _DirectRoute(APIRoute):
    """A route whose endpoint takes the request and does everything itself.

    For the others, FastAPI resolves dependencies first, which costs time that counts in a request with one text.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what handles a request."""
        handler: Callable[[Request], Coroutine[Any, Any, Response]] = self.endpoint
        return handler


router = APIRouter(prefix="/v1", tags=["predict"], route_class=_DirectRoute)


@router.post(
    "/predict",
    summary="Answer inputs",
    response_model=PredictResponse,
    response_model_exclude_none=True,
    responses=documented(401, 403, 409, 422, 429, 504),
    openapi_extra=SECURED
    | {
        "parameters": [
            {
                "name": TIMEOUT,
                "in": "header",
                "description": "Seconds after which the server gives up with 504, if less than its own limit.",
                "schema": {"type": "number", "exclusiveMinimum": 0},
            }
        ]
    }
    | body_of(
        PredictRequest,
        text={"inputs": "my card was swallowed by the machine"},
        texts={"inputs": ["my card was swallowed", {"text": "what is my balance", "id": "2"}], "top_n": 5},
        among_tasks={"inputs": ["my card was swallowed"], "tasks": ["cards"], "explain": True},
        relation={
            "inputs": [
                {
                    "tokens": ["Ada", "was", "born", "in", "London"],
                    "head": {"start": 0, "end": 1},
                    "tail": {"start": 4, "end": 5},
                }
            ]
        },
    ),
)
async def predict(request: Request) -> Response:
    """Answer inputs: texts, or words with marked spans. All answers of a response come from one generation.

    The header `X-Request-Timeout` (seconds) shortens the time after which the server gives up with 504.
    """
    caller = await admit(request, Role.PREDICT)  # first: nobody else's body is read
    body = await read_body(request, PredictRequest)
    context = context_of(request)
    deadline = time.monotonic() + _timeout(request, context.settings)
    examples = body.examples()
    tasks = None if body.tasks is None else frozenset(body.tasks)
    with _pointing_at(body):
        predictions = await answer(
            request,
            examples,
            deadline,
            top_n=body.top_n,
            min_score=body.min_score,
            tasks=tasks,
            explain=body.explain,
            min_generation=body.min_generation,
        )
    if predictions is None:
        return Response(status_code=_CLIENT_GONE)
    return _response(predictions, examples, show_examples=caller.role.allows(Role.LEARN))


async def answer(
    request: Request,
    examples: Sequence[Example],
    deadline: float,
    *,
    top_n: int = 3,
    min_score: float = 0.0,
    tasks: frozenset[str] | None = None,
    explain: bool = False,
    min_generation: int | None = None,
) -> list[Prediction] | None:
    """Answer inputs of an admitted caller, and record the answers; return None if the client is gone.

    Args:
        request: The request.
        examples: The inputs.
        deadline: When to give up, on the monotonic clock.
        top_n: As in `PredictRequest`, as the others.
        min_score: The lowest score of an answer.
        tasks: The tasks to answer among.
        explain: Whether to return why.
        min_generation: The oldest generation that may answer.

    Raises:
        ApiProblem: They cannot be answered, or not in time.
    """
    context = context_of(request)
    _check(examples, top_n, context.settings)
    request.state.logged = {"inputs": len(examples)}
    if context.settings.log_texts:
        request.state.logged["texts"] = [example.content for example in examples]
    batcher = context.ready()
    if not context.serving.live.state.tasks:
        raise _no_tasks()
    if min_generation is not None:
        await _wait_for(context, min_generation, deadline)
    answers: asyncio.Future[list[Prediction]] = asyncio.get_running_loop().create_future()
    ticket = Ticket(examples, top_n, min_score, tasks, explain, deadline, answers)
    predictions = await _answers(request, batcher, ticket, answers)
    if predictions is None:
        return None
    context.serving.answered(predictions)
    config = (ticket.live or context.serving.live).method.settings.log
    context.recorder.record(request.state.request_id, examples, predictions, config)
    if context.recorder.mode(config) != "off":
        predictions = [replace(one, request_id=request.state.request_id) for one in predictions]
    request.state.logged["generation"] = predictions[0].generation
    return predictions


async def propose(request: Request, example: Example, deadline: float, top_n: int) -> tuple[Candidate, ...]:
    """Return the likeliest labels for an input, best first, without recording them; errors as in `answer`.

    Args:
        request: The request.
        example: The input.
        deadline: When to give up, on the monotonic clock.
        top_n: How many labels.
    """
    context = context_of(request)
    _check([example], top_n, context.settings)
    batcher = context.ready()
    if not context.serving.live.state.tasks:
        raise _no_tasks()
    answers: asyncio.Future[list[Prediction]] = asyncio.get_running_loop().create_future()
    predictions = await _answers(
        request, batcher, Ticket([example], top_n, 0.0, None, False, deadline, answers), answers
    )
    if predictions is None:
        return ()
    (one,) = predictions
    return (Candidate(one.label, one.score, one.task), *one.runners_up)


def _no_tasks() -> ApiProblem:
    return ApiProblem(409, "no-tasks", "the workspace has no tasks yet; learn a task first")


def _timeout(request: Request, settings: ServeSettings) -> float:
    """Return the seconds that a request may take."""
    given = request.headers.get(TIMEOUT)
    if given is None:
        return settings.timeout_seconds
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ApiProblem(422, "invalid-timeout", f"{TIMEOUT} is a number of seconds above 0")
    return min(seconds, settings.timeout_seconds)


@contextmanager
def _pointing_at(body: PredictRequest) -> Iterator[None]:
    """Let problems point at the only input, if the request has no list of them."""
    try:
        yield
    except ApiProblem as problem:
        if not isinstance(body.inputs, list):
            for error in problem.extra.get("errors", ()):
                error["pointer"] = "/inputs"
        raise


def _check(examples: Sequence[Example], top_n: int, settings: ServeSettings) -> None:
    """Refuse too many, too long or malformed inputs."""
    if len(examples) > settings.max_inputs:
        raise ApiProblem(
            422, "too-many-inputs", f"{len(examples):,} inputs: send at most {settings.max_inputs:,} in a request"
        )
    if len(examples) * top_n > _CANDIDATES:
        raise ApiProblem(
            422, "too-many-candidates", f"inputs times top_n may be at most {_CANDIDATES:,}; send fewer in a request"
        )
    errors = [
        {"pointer": f"/inputs/{number}", "detail": reason}
        for number, example in enumerate(examples)
        for reason in (_too_long(example, settings) or check_example(example))
    ]
    if errors:
        raise ApiProblem(422, "invalid-inputs", "some inputs cannot be answered", errors=errors[:SHOWN])


def _too_long(example: Example, settings: ServeSettings) -> list[str]:
    words, characters = len(example.tokens), len(example.text) + sum(map(len, example.tokens))
    if words > settings.max_words:
        return [f"{words:,} words: send at most {settings.max_words:,}"]
    if characters > settings.max_characters:
        return [f"{characters:,} characters: send at most {settings.max_characters:,}"]
    return []


async def _wait_for(context: ServerContext, generation: int, deadline: float) -> None:
    """Wait until a generation, or a later one, answers."""
    serving = context.serving
    if serving.live.generation >= generation:
        return
    if generation > await asyncio.to_thread(serving.newest_generation):
        raise ApiProblem(409, "no-such-generation", "the workspace has not reached this generation")
    while serving.live.generation < generation:
        if time.monotonic() > deadline:
            raise _late()
        await asyncio.sleep(_WAIT_SECONDS)


class _ClientGoneError(Exception):
    """The client has disconnected."""


async def _answers(
    request: Request, batcher: Batcher, ticket: Ticket, answers: asyncio.Future[list[Prediction]]
) -> list[Prediction] | None:
    """Return the answers; None if the client is gone.

    Raises:
        ApiProblem: The queue is full, the deadline has passed, or the server is stopping.
    """
    try:
        batcher.submit(ticket)
    except QueueFullError as error:
        raise too_busy(429, "queue-full", "too many inputs wait already; try again later", error.seconds) from None
    except ClosedError:
        raise too_busy(503, "stopping", "the server is stopping") from None
    watching = asyncio.create_task(_give_up_when_gone(request, answers))
    try:
        async with asyncio.timeout(max(0.0, ticket.deadline - time.monotonic())):
            return await answers
    except _ClientGoneError:
        return None
    except (DeadlineError, TimeoutError):
        raise _late() from None
    except ClosedError:
        raise too_busy(503, "stopping", "the server is stopping") from None
    except UnknownNameError as error:
        raise ApiProblem(422, "unknown-task", str(error)) from None
    except DamagedModuleError as error:
        context_of(request).log.error(
            "a damaged module is needed", request_id=request.state.request_id, reason=str(error)
        )
        raise ApiProblem(
            503,
            "damaged-module",
            "some inputs need a module that is damaged on the server; the others can be answered",
            errors=[
                {"pointer": f"/inputs/{number - 1}", "detail": "its answer needs a module that is damaged"}
                for number in error.inputs[:SHOWN]
            ],
        ) from None
    except DataError as error:
        errors = [{"pointer": f"/inputs/{(one.row or 1) - 1}", "detail": one.reason} for one in error.problems]
        raise ApiProblem(422, "invalid-inputs", error.summary, errors=errors[:SHOWN]) from None
    finally:
        watching.cancel()
        answers.cancel()  # nothing more is done for a request that nobody waits for


async def _give_up_when_gone(request: Request, answers: asyncio.Future[list[Prediction]]) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    if not answers.done():
        answers.set_exception(_ClientGoneError())


def _late() -> ApiProblem:
    return ApiProblem(504, "timeout", "the request was not answered in time; send fewer inputs, or try again later")


def _response(predictions: Sequence[Prediction], examples: Sequence[Example], *, show_examples: bool) -> Response:
    documents = []
    for prediction, example in zip(predictions, examples, strict=True):
        document = prediction.to_json()
        if not show_examples:
            _hide_examples(document)
        documents.append(document if example.id is None else {"id": example.id, **document})
    content = json.dumps({"generation": predictions[0].generation, "predictions": documents})
    return Response(content, media_type="application/json")


def _hide_examples(document: dict[str, Any]) -> None:
    for neighbour in document.get("explanation", {}).get("nearest", ()):
        neighbour["example"] = None
