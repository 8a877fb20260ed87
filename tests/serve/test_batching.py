"""How requests share batches."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from conpet import ConPET, Example
from conpet.cost import Meter
from conpet.errors import DataError, UnknownNameError
from conpet.serve.batching import Batcher, ClosedError, DeadlineError, QueueFullError, Ticket
from conpet.serve.settings import ServeSettings
from conpet.state.live import Live
from tests.helpers.workspaces import stream, workspace

TEXTS = [example.text for task in stream()[:2] for example in task.test]


class Observer:
    """Notes the batches; lets each of them end only when it may."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, int]] = []
        self.going = threading.Event()
        self.going.set()
        self.stopped = threading.Event()

    def batch_done(self, inputs: int, requests: int, seconds: float, cost: Meter) -> None:
        self.batches.append((inputs, requests))
        self.stopped.set()
        assert self.going.wait(60)

    def queue_changed(self, inputs: int) -> None:
        self.queue = inputs


class Bench:
    """A batcher on a workspace that can be stopped after a batch."""

    def __init__(self, learner: ConPET, live: Callable[[], Live] | None = None, **settings: Any) -> None:
        self.learner = learner
        self.observer = Observer()
        self.failures: list[Exception] = []
        chosen = ServeSettings.load({"workspace": learner.path, **settings}, environment={})
        self.handed_over = 0
        self.batcher = Batcher(
            live or learner.live.now, chosen, self.observer, 128, self.failures.append, self.hand_over
        )

    def hand_over(self, deliver: Callable[[], None]) -> None:
        self.handed_over += 1
        deliver()

    def submit(self, *texts: str, seconds: float = 60.0, **fields: Any) -> Ticket:
        examples = [Example.of_text(text) for text in texts]
        given = {"top_n": 3, "min_score": 0.0, "tasks": None, "explain": False, **fields}
        ticket = Ticket(examples, deadline=time.monotonic() + seconds, **given)
        self.batcher.submit(ticket)
        return ticket

    def pause(self) -> None:
        """Stop the answering thread after the batch of a first request, so that others gather."""
        self.observer.going.clear()
        self.observer.stopped.clear()
        self.submit("first")
        assert self.observer.stopped.wait(60)
        self.observer.batches.clear()

    def go_on(self) -> None:
        self.observer.going.set()


@pytest.fixture(scope="module")
def learner(tmp_path_factory: pytest.TempPathFactory) -> ConPET:
    return workspace(tmp_path_factory.mktemp("batches"), 2)


@pytest.fixture
def bench(learner: ConPET) -> Iterator[Bench]:
    bench = Bench(learner, queue_inputs=60, max_inputs=60, batch_inputs=16)
    yield bench
    bench.go_on()
    bench.batcher.close(60)


def labels(ticket: Ticket) -> list[str | None]:
    return [one.label for one in ticket.answers.result(60)]


def test_waiting_requests_share_a_batch_and_get_their_own_answers(bench: Bench) -> None:
    bench.pause()
    tickets = [bench.submit(text, top_n=1 + number % 3) for number, text in enumerate(TEXTS[:6])]
    bench.handed_over = 0
    bench.go_on()
    expected = [one.label for one in bench.learner.predict(TEXTS[:6])]
    assert [label for ticket in tickets for label in labels(ticket)] == expected
    assert [len(ticket.answers.result()[0].runners_up) for ticket in tickets] == [0, 1, 2, 0, 1, 2]
    assert bench.observer.batches == [(6, 6)]
    assert bench.handed_over == 1  # the waiting thread is woken once, not by each answer


def test_a_long_request_delays_a_short_one_by_no_more_than_a_batch(bench: Bench) -> None:
    bench.pause()
    finished: list[str] = []
    long = bench.submit(*(TEXTS * 10)[:40])
    short = bench.submit(TEXTS[0])
    long.answers.add_done_callback(lambda _: finished.append("long"))
    short.answers.add_done_callback(lambda _: finished.append("short"))
    bench.go_on()
    expected = [one.label for one in bench.learner.predict((TEXTS * 10)[:40])]
    assert labels(long) == expected
    assert labels(short) == expected[:1]
    assert finished == ["short", "long"]
    assert bench.observer.batches == [(16, 2), (16, 1), (9, 1)]


def test_requests_are_answered_one_after_another_and_very_long_ones_take_turns(bench: Bench) -> None:
    bench.pause()
    tickets = [bench.submit(*(TEXTS * 3)[:20]) for _ in range(3)]
    bench.go_on()
    for ticket in tickets:
        assert len(labels(ticket)) == 20
    assert bench.observer.batches == [(16, 1), (16, 2), (16, 2), (12, 1)]
    bench.pause()
    long, other = bench.submit(*(TEXTS * 10)[:50]), bench.submit(*(TEXTS * 10)[:10])
    bench.go_on()
    assert (len(labels(long)), len(labels(other))) == (50, 10)
    assert bench.observer.batches == [(16, 1), (16, 2), (16, 1), (12, 1)]


def test_many_short_requests_do_not_stop_a_long_one(bench: Bench) -> None:
    bench.pause()
    long = bench.submit(*(TEXTS * 10)[:20])
    short = [bench.submit(text) for text in (TEXTS * 10)[:30]]
    bench.go_on()
    assert len(labels(long)) == 20
    assert [len(labels(one)) for one in short] == [1] * 30
    assert bench.observer.batches[:2] == [(16, 9), (16, 9)]


def test_requests_that_want_other_things_do_not_disturb_one_another(bench: Bench) -> None:
    names = [task.name for task in stream()[:2]]
    bench.pause()
    plain = bench.submit(TEXTS[0])
    among = bench.submit(TEXTS[0], tasks=frozenset(names[1:]))
    explained = bench.submit(TEXTS[0], explain=True)
    unknown = bench.submit(TEXTS[0], tasks=frozenset(["none"]))
    bench.go_on()
    assert plain.answers.result(60)[0].task == names[0]
    assert plain.answers.result()[0].explanation is None
    assert among.answers.result(60)[0].task == names[1]
    assert explained.answers.result(60)[0].explanation is not None
    with pytest.raises(UnknownNameError):
        unknown.answers.result(60)


def test_a_request_that_fails_fails_alone(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from conpet.serve import batching

    sound = batching.answer

    def failing(live: Any, examples: Any, *arguments: Any, **options: Any) -> Any:
        if any(example.text == "poison" for example in examples):
            raise ValueError("poison")
        return sound(live, examples, *arguments, **options)

    monkeypatch.setattr(batching, "answer", failing)
    bench.pause()
    tickets = [bench.submit(TEXTS[0]), bench.submit("poison"), bench.submit(TEXTS[1])]
    bench.go_on()
    with pytest.raises(ValueError, match="poison"):
        tickets[1].answers.result(60)
    expected = [one.label for one in bench.learner.predict(TEXTS[:2])]
    assert labels(tickets[0]) + labels(tickets[2]) == expected
    assert labels(bench.submit(TEXTS[0])) == expected[:1]  # and the thread goes on


def test_a_batcher_that_cannot_go_on_says_so_and_accepts_nothing_more(
    learner: ConPET, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> Live:
        raise ValueError("broken")

    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    bench = Bench(learner, broken)
    with pytest.raises(ClosedError):
        bench.submit("a").answers.result(60)
    assert [str(failure) for failure in bench.failures] == ["broken"]
    with pytest.raises(ClosedError):
        bench.submit("a")


def test_an_input_of_a_kind_that_was_not_learned_fails_with_its_number(bench: Bench) -> None:
    from conpet import Span

    inputs = [Example.of_text("a"), Example.of_mention(("a",), Span(0, 1))]
    ticket = Ticket(inputs, 1, 0.0, None, False, time.monotonic() + 60)
    bench.batcher.submit(ticket)
    with pytest.raises(DataError) as refused:
        ticket.answers.result(60)
    (problem,) = refused.value.problems
    assert (problem.row, problem.reason) == (2, "is of kind typing, but the tasks are of kind text")


def test_a_full_queue_refuses_and_says_when_to_come_back(bench: Bench) -> None:
    bench.pause()
    accepted = bench.submit(*["a"] * 50)
    with pytest.raises(QueueFullError) as refused:
        bench.submit(*["a"] * 11)
    assert 0 < refused.value.seconds < 60
    assert bench.batcher.waiting == bench.observer.queue == 50
    bench.submit(*["a"] * 10)
    bench.go_on()
    assert len(labels(accepted)) == 50
    assert labels(bench.submit("a"))


def test_nothing_is_done_for_requests_that_nobody_waits_for(bench: Bench) -> None:
    bench.pause()
    late, gone, waiting = bench.submit("a", seconds=0.01), bench.submit("b"), bench.submit("c")
    assert gone.answers.cancel()
    time.sleep(0.02)
    bench.go_on()
    assert labels(waiting)
    with pytest.raises(DeadlineError):
        late.answers.result(60)
    assert bench.observer.batches == [(1, 1)]


def test_a_stopping_batcher_answers_what_it_accepted(bench: Bench) -> None:
    bench.pause()
    accepted = [bench.submit(*TEXTS[:8]) for _ in range(4)]
    closing = threading.Thread(target=bench.batcher.close, args=(60,))
    closing.start()
    bench.go_on()
    closing.join()
    assert [len(labels(ticket)) for ticket in accepted] == [8] * 4
    with pytest.raises(ClosedError):
        bench.submit("a")


def test_what_is_not_answered_in_time_at_a_stop_fails(bench: Bench) -> None:
    bench.pause()
    ticket = bench.submit("a")
    bench.batcher.close(0.01)
    with pytest.raises(ClosedError):
        ticket.answers.result(60)


def test_an_idle_batcher_does_not_wait(learner: ConPET) -> None:
    bench = Bench(learner, batch_wait_seconds=1.0)
    try:
        labels(bench.submit("a"))
        start = time.monotonic()
        for text in TEXTS[:3]:
            labels(bench.submit(text))
        assert time.monotonic() - start < 1.0
    finally:
        bench.batcher.close(60)


def test_a_batch_waits_for_others_only_just_after_one_that_had_several(learner: ConPET) -> None:
    bench = Bench(learner, batch_wait_seconds=1.0)
    try:
        bench.pause()
        together = [bench.submit(text) for text in TEXTS[:2]]
        bench.go_on()
        assert [len(labels(ticket)) for ticket in together] == [1, 1]
        first = bench.submit(TEXTS[2])
        time.sleep(0.1)
        labels(bench.submit(TEXTS[3]))
        assert first.answers.done()
        assert bench.observer.batches == [(2, 2), (2, 2)]
        time.sleep(1.1)
        start = time.monotonic()
        labels(bench.submit("a"))
        assert time.monotonic() - start < 1.0
    finally:
        bench.batcher.close(60)


def test_batches_hold_no_more_tokens_than_the_limit(learner: ConPET) -> None:
    bench = Bench(learner, batch_tokens=256)
    try:
        bench.pause()
        ticket = bench.submit(*["a" * 400] * 6)  # some 104 tokens each
        bench.go_on()
        assert len(labels(ticket)) == 6
        assert bench.observer.batches == [(2, 1)] * 3
    finally:
        bench.batcher.close(60)
