"""Processes forked after a prediction: each answers, or says why it cannot; none hangs."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from conpet import ConPET
from conpet.errors import BackboneError
from conpet.testing import ask
from tests.helpers.store import run_forked
from tests.helpers.workspaces import stream, workspace

TEXTS = [example.text for example in stream()[0].test]


@pytest.fixture(params=[1, 2], ids=["one thread", "two threads"])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def within_a_minute(action: Callable[[], object]) -> int:
    """Run an action in a forked process, which is killed after a minute; return its exit code."""

    def bounded() -> None:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(60)
        action()

    return run_forked(bounded)


@pytest.mark.parametrize("use", ["inherited", "opened anew"])
def test_a_forked_process_answers_or_says_why_not(tmp_path: Path, threads: int, use: str) -> None:
    learner = workspace(tmp_path, 1)
    torch.ones(500, 500, dtype=torch.float32) @ torch.ones(500, 500, dtype=torch.float32)  # starts torch's threads
    expected = ask(learner, TEXTS)
    parent = os.getpid()

    def child() -> None:
        inherited = learner if use == "inherited" else ConPET.open(learner.path)
        assert inherited.labels == stream()[0].labels  # no model is needed
        if threads == 1:
            assert ask(inherited, TEXTS) == expected
            return
        for action in (lambda: inherited.predict(TEXTS), lambda: inherited.learn(stream()[1])):
            with pytest.raises(BackboneError, match=rf"forked from process {parent}, .* 2 threads; .*spawn"):
                action()

    assert within_a_minute(child) == 0
    assert ask(learner, TEXTS) == expected


def test_a_workspace_opened_before_the_fork_is_used_after_it(tmp_path: Path) -> None:
    """What a server does that loads its application before it forks its workers: they may all read and change it."""
    learner = workspace(tmp_path, 1)
    assert within_a_minute(lambda: learner.learn(stream()[1])) == 0
    assert [task.name for task in learner.tasks] == [task.name for task in stream()[:2]]
