"""Batches of all callers' requests, answered one after another by one thread."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from conpet.cost import Meter, metered
from conpet.data import Example
from conpet.errors import ConpetError, DamagedModuleError, DataError, Problem, is_out_of_memory
from conpet.serve.settings import ServeSettings
from conpet.state.engine import answer, fitting, unanswerable
from conpet.state.live import Live
from conpet.types import Prediction

_SMALL, _QUANTUM = 8, 32
"""Requests with so many inputs left come before larger ones; of very large ones, so many inputs are taken in turn."""
_FIRST_TOKENS = 1024
"""Size of the first batch, in tokens, when the speed is not known yet."""
_LEAST_TOKENS = 256
"""Smallest limit of a batch, in tokens, however slow the model is."""
_SMOOTHING = 0.3
"""Weight of the newest batch in the measured speed."""
_CHARACTERS_PER_TOKEN = 4
_TOKENS_AROUND = 4


class QueueFullError(Exception):
    """No room for more inputs.

    Args:
        seconds: When there will probably be room.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the queue is full for {seconds:.1f} s")
        self.seconds = seconds


class DeadlineError(Exception):
    """A request was not answered in time."""


class ClosedError(Exception):
    """The server is stopping."""


class Observer(Protocol):
    """Is told about batches; called by the answering thread."""

    def batch_done(self, inputs: int, requests: int, seconds: float, cost: Meter) -> None:
        """Take note of a batch."""

    def queue_changed(self, inputs: int) -> None:
        """Take note of the number of inputs that wait."""


class Answers(Protocol):
    """Receives all answers of a request, or an error: a future of asyncio or of `concurrent.futures`."""

    def done(self) -> bool:
        """Return whether it was given something, or cancelled because nobody waits for it any more."""

    def set_result(self, result: list[Prediction], /) -> None:
        """Give it the answers."""

    def set_exception(self, exception: BaseException, /) -> None:
        """Give it an error."""


@dataclass(eq=False)
class Ticket:
    """A request in the queue.

    Attributes:
        examples: Its inputs, valid ones.
        top_n: Number of labels with each answer.
        min_score: Answers with a lower score are rejected.
        tasks: The only tasks that may answer, or None.
        explain: Whether answers are explained.
        deadline: When it must be answered, on the monotonic clock.
        answers: Receives all answers, through the batcher's `hand_over`.
        live: The generation that answers all its inputs, from its first batch on.
        done: Answers so far.
        damage: Why inputs cannot be answered that need a damaged module, by their number from 1.
    """

    examples: Sequence[Example]
    top_n: int
    min_score: float
    tasks: frozenset[str] | None
    explain: bool
    deadline: float
    answers: Answers = field(default_factory=Future[list[Prediction]])
    live: Live | None = None
    done: list[Prediction] = field(default_factory=list)
    damage: dict[int, str] = field(default_factory=dict)
    error: BaseException | None = None
    """What it fails with."""
    taken: int = 0
    """Inputs answered, or in the batch being answered."""
    settled: int = 0
    """Inputs that were in a batch that is done."""

    @property
    def left(self) -> int:
        """Number of inputs that are in no batch yet."""
        return len(self.examples) - self.taken

    @property
    def over(self) -> bool:
        """Whether there is nothing left to do for it."""
        return self.error is not None or self.answers.done()

    def settle(self, inputs: int) -> bool:
        """Take note that inputs were in a batch; return whether these were the last ones."""
        self.settled += inputs
        if self.settled < len(self.examples):
            return False
        if self.damage:
            reasons = "; ".join(dict.fromkeys(self.damage.values()))
            self.error = self.error or DamagedModuleError(reasons, sorted(self.damage))
        return True

    def deliver(self) -> None:
        """Give the outcome to whoever waits for it."""
        if self.answers.done():
            return
        if self.error is not None:
            self.answers.set_exception(self.error)
        else:
            self.answers.set_result(self.done)


class Part(NamedTuple):
    """Some inputs of a request in a batch: from `start` up to `stop`."""

    ticket: Ticket
    start: int
    stop: int

    @property
    def examples(self) -> Sequence[Example]:
        """The inputs."""
        return self.ticket.examples[self.start : self.stop]


class Batcher:
    """Answers requests in batches, in one thread.

    - Requests share batches. Small requests come first, but half of a batch belongs to larger ones that wait, so that
      a long request delays a short one by no more than a batch, and many short ones do not stop a long one.
    - All inputs of a request are answered by one generation: the live one when its first batch is made.
    - Batches are as large as the time for one (`batch_seconds`) allows at the speed measured so far. When other
      requests were answered a moment ago, the next batch waits a little for theirs; otherwise it starts at once.
    - A request whose deadline has passed, or whose client is gone, leaves the queue without further work.

    Args:
        live: Returns the live generation.
        settings: The server's settings.
        observer: Is told about batches.
        max_tokens: Longest input of the backbone, in tokens.
        on_failure: Called if the thread ends by an error of its own.
        hand_over: Calls a function that gives outcomes to those who wait, in the thread where they wait. It is called
            once for many requests: to wake another thread for each would take longer than to answer it.
        traced: Returns whether a generation's answers say how they came about.
    """

    def __init__(
        self,
        live: Callable[[], Live],
        settings: ServeSettings,
        observer: Observer,
        max_tokens: int,
        on_failure: Callable[[Exception], None],
        hand_over: Callable[[Callable[[], None]], None],
        traced: Callable[[Live], bool] = lambda _: False,
    ) -> None:
        self._live = live
        self._settings = settings
        self._observer = observer
        self._max_tokens = max_tokens
        self._on_failure = on_failure
        self._hand_over = hand_over
        self._traced = traced
        self._changed = threading.Condition()
        self._ring: deque[Ticket] = deque()
        self._waiting = 0
        self._speed = 0.0  # tokens a second
        self._busy_inputs = 0  # inputs of the last batch, if it had several requests
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="conpet-answer", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Number of inputs that wait."""
        return self._waiting

    def submit(self, ticket: Ticket) -> None:
        """Put a request into the queue.

        Raises:
            QueueFullError: There is no room for its inputs.
            ClosedError: The server is stopping.
        """
        with self._changed:
            if self._closing:
                raise ClosedError
            if self._waiting + len(ticket.examples) > self._settings.queue_inputs:
                raise QueueFullError(self._seconds_of_queue())
            self._ring.append(ticket)
            self._set_waiting(self._waiting + len(ticket.examples))
            self._changed.notify()

    def close(self, seconds: float) -> None:
        """Answer what waits, then stop; what is not answered after some seconds fails."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(seconds)
        self._refuse_rest()

    def _set_waiting(self, inputs: int) -> None:
        self._waiting = inputs
        self._observer.queue_changed(inputs)

    def _seconds_of_queue(self) -> float:
        tokens = sum(self._tokens(example) for ticket in self._ring for example in ticket.examples[ticket.taken :])
        return tokens / self._speed if self._speed else 1.0

    def _work(self) -> None:
        try:
            self._answer_all()
        except Exception as error:
            self._on_failure(error)
            raise
        finally:
            self._refuse_rest()

    def _refuse_rest(self) -> None:
        """Accept nothing more, and refuse what still waits."""
        with self._changed:
            self._closing = True
            refused, self._ring = self._ring, deque()
            self._set_waiting(0)
        self._fail(refused, ClosedError())

    def _fail(self, tickets: Collection[Ticket], error: BaseException) -> None:
        """Answer requests with an error."""
        for ticket in tickets:
            ticket.error = ticket.error or error
        self._deliver(tickets)

    def _deliver(self, tickets: Collection[Ticket]) -> None:
        """Hand over the outcomes of requests."""

        def deliver() -> None:
            for ticket in tickets:
                ticket.deliver()

        if tickets:
            self._hand_over(deliver)

    def _answer_all(self) -> None:
        while self._wait():
            self._answer_next()

    def _wait(self) -> bool:
        """Wait for requests, and a little for more of them; return False if there will be none."""
        with self._changed:
            free_since = time.monotonic()
            self._changed.wait_for(lambda: self._ring or self._closing)
            if self._ring:
                self._wait_for_more(free_since + self._settings.batch_wait_seconds)
            return bool(self._ring)

    def _answer_next(self) -> None:
        """Answer the next batch. Nothing of it is referenced afterwards: it would keep its generation on the disk."""
        with self._changed:
            batch = self._next_batch()
        if batch:
            self._answer_batch(batch)

    def _wait_for_more(self, until: float) -> None:
        """Wait a little for requests as large as the last batch's, if that had several and has just ended."""
        left = until - time.monotonic()
        if self._busy_inputs and left > 0:
            self._changed.wait_for(lambda: self._closing or self._waiting >= self._busy_inputs, left)

    def _next_batch(self) -> list[Part]:
        """Take the inputs of the next batch out of the queue; all parts have the same generation."""
        self._drop_finished()
        if not self._ring:
            self._set_waiting(0)
            return []
        present = self._live()
        live = self._ring[0].live or present
        sharing = [ticket for ticket in self._ring if (ticket.live or present) is live and self._pin(ticket, live)]
        parts = list(_joined(self._fair_share(sharing)))
        back = {part.ticket for part in parts if part.ticket.left > _QUANTUM}
        rest = [ticket for ticket in self._ring if ticket.left and not ticket.over]
        self._ring = deque([one for one in rest if one not in back] + [one for one in rest if one in back])
        self._set_waiting(sum(ticket.left for ticket in rest))
        return parts

    def _drop_finished(self) -> None:
        now = time.monotonic()
        self._fail([ticket for ticket in self._ring if ticket.deadline <= now], DeadlineError())
        self._ring = deque(ticket for ticket in self._ring if not ticket.over)

    def _pin(self, ticket: Ticket, live: Live) -> bool:
        """Give a request the generation that answers it; return whether that can answer it."""
        if ticket.live is None:
            try:
                _check(ticket, live)
            except ConpetError as error:
                self._fail([ticket], error)
                return False
            ticket.live = live
        return True

    def _fair_share(self, tickets: Sequence[Ticket]) -> Iterator[Part]:
        """Take inputs of requests until a batch is full: of small ones, but half of it for larger ones that wait.

        Larger ones follow one another. If all advanced together, they would be answered together, and the next batch
        would wait for new ones. Only very large ones take turns.
        """
        most_tokens, most_inputs = self._limit(), self._settings.batch_inputs
        tokens, inputs = most_tokens, most_inputs
        small = deque(ticket for ticket in tickets if ticket.left <= _SMALL)
        large = deque(ticket for ticket in tickets if ticket.left > _SMALL)
        while (small or large) and inputs > 0:
            half_left = 2 * tokens > most_tokens and 2 * inputs > most_inputs
            queue = small if small and (half_left or not large) else large
            ticket = queue.popleft()
            start = ticket.taken
            while ticket.left and ticket.taken - start < _QUANTUM and inputs > 0:
                cost = self._tokens(ticket.examples[ticket.taken])
                if cost > tokens and inputs < most_inputs:
                    inputs = 0
                    break
                ticket.taken += 1
                inputs, tokens = inputs - 1, tokens - cost
            if ticket.taken > start:
                yield Part(ticket, start, ticket.taken)
            if ticket.left:
                queue.append(ticket)

    def _limit(self) -> int:
        """Return the most tokens of the next batch."""
        fitting = int(self._speed * self._settings.batch_seconds) or _FIRST_TOKENS
        return min(max(fitting, _LEAST_TOKENS), self._settings.batch_tokens)

    def _tokens(self, example: Example) -> int:
        characters = len(example.text) or sum(len(token) + 1 for token in example.tokens)
        return min(self._max_tokens, characters // _CHARACTERS_PER_TOKEN + _TOKENS_AROUND)

    def _answer_batch(self, parts: Sequence[Part]) -> None:
        start = time.perf_counter()
        with metered() as cost:
            for group in _alike(parts):
                self._answer_group(group)
        seconds = time.perf_counter() - start
        examples = [example for part in parts for example in part.examples]
        speed = sum(map(self._tokens, examples)) / max(seconds, 1e-6)
        self._speed = speed if not self._speed else (1 - _SMOOTHING) * self._speed + _SMOOTHING * speed
        requests = len({part.ticket for part in parts})
        self._busy_inputs = len(examples) if requests > 1 else 0
        self._observer.batch_done(len(examples), requests, seconds, cost)

    def _answer_group(self, parts: Sequence[Part]) -> None:
        """Answer parts that want the same; if that fails, one after another, so that only the cause fails."""
        try:
            finished = _answer_parts(parts, self._traced)
        except Exception as error:  # noqa: BLE001 - it is the answer to the request that caused it
            if len(parts) == 1 and isinstance(error, DamagedModuleError):
                (part,) = parts
                part.ticket.damage |= {part.start + at + 1: str(error) for at in error.inputs}
                if part.ticket.settle(len(part.examples)):  # all its inputs that need the module are named
                    self._deliver([part.ticket])
            elif len(parts) == 1:
                self._fail([parts[0].ticket], _explained(parts[0], error))
            else:
                if is_out_of_memory(error):
                    self._speed /= 2  # the next batches are smaller
                for part in parts:
                    self._answer_group([part])
        else:
            self._deliver(finished)


def _check(ticket: Ticket, live: Live) -> None:
    """Raise the error that a request deserves from a generation: an unknown task, or a kind that no task takes."""
    no_task = unanswerable(_restricted(live, ticket.tasks))
    problems = [
        Problem("inputs", number, no_task[example.kind])
        for number, example in enumerate(ticket.examples, start=1)
        if example.kind in no_task
    ]
    if problems:
        raise _not_answered(problems)


def _explained(part: Part, error: Exception) -> Exception:
    """Return the error of a part; of inputs that do not fit into the backbone, one that names them all."""
    live = part.ticket.live
    if not isinstance(error, DataError) or live is None:
        return error
    found = fitting(live, part.ticket.examples, 1)
    problems = [item for item in found if isinstance(item, Problem)]
    return _not_answered(problems) if problems else error


def _not_answered(problems: Sequence[Problem]) -> DataError:
    return DataError("some inputs cannot be answered", problems)


def _restricted(live: Live, tasks: Collection[str] | None) -> Live:
    return live if tasks is None else live.among(tasks)


def _joined(parts: Iterable[Part]) -> Iterator[Part]:
    """Join the parts of each request; they follow one another."""
    by_ticket: dict[Ticket, Part] = {}
    for part in parts:
        former = by_ticket.get(part.ticket)
        by_ticket[part.ticket] = part if former is None else Part(part.ticket, former.start, part.stop)
    yield from by_ticket.values()


def _alike(parts: Sequence[Part]) -> list[list[Part]]:
    """Group the parts of requests that want the same tasks, and explanations or not."""
    groups: dict[tuple[frozenset[str] | None, bool], list[Part]] = {}
    for part in parts:
        groups.setdefault((part.ticket.tasks, part.ticket.explain), []).append(part)
    return list(groups.values())


def _answer_parts(parts: Sequence[Part], traced: Callable[[Live], bool]) -> list[Ticket]:
    """Answer parts that want the same; return the requests that have all answers now."""
    ticket = parts[0].ticket
    assert ticket.live is not None, "a request gets its generation before it gets into a batch"  # noqa: S101
    examples = [example for part in parts for example in part.examples]
    top_n = max(part.ticket.top_n for part in parts)
    live = _restricted(ticket.live, ticket.tasks)
    predictions = iter(answer(live, examples, top_n=top_n, explain=ticket.explain, traced=traced(live)))
    for part in parts:
        own = [next(predictions) for _ in part.examples]
        part.ticket.done += [one.with_options(part.ticket.top_n, part.ticket.min_score) for one in own]
    return [part.ticket for part in parts if part.ticket.settle(len(part.examples))]
