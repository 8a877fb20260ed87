"""What the killed process does."""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from conpet import ConPET
from conpet.modules import optimisation
from conpet.store.writer import Writer
from conpet.testing import Trial, tiny_settings, toy_stream

SETTINGS = tiny_settings(
    selector={"name": "learned", "steps": 6}, training={"epochs": 2}, replay={"memory_examples": 9}
)
STREAM = toy_stream(3, 2, 4, 1, 2)
FORGOTTEN = STREAM[1].train[1].text


def warm_up() -> None:
    """Learn once in the fork server, so that no child has to import or prepare anything; start no thread."""
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        Trial(Path(folder), SETTINGS).taught(STREAM)


def learn(path: str, connection: Connection) -> None:
    """Learn the third task; see `_announce`."""
    _announce(path, connection, lambda learner: learner.learn(STREAM[2]))


def consolidate(path: str, connection: Connection) -> None:
    """Consolidate; see `_announce`."""
    _announce(path, connection, lambda learner: learner.consolidate(bound=100, gate=False))


def forget(path: str, connection: Connection) -> None:
    """Forget a row of the second task; see `_announce`."""
    _announce(path, connection, lambda learner: learner.forget([FORGOTTEN]))


def _announce(path: str, connection: Connection, change: Callable[[ConPET], object]) -> None:
    """Make a change as soon as one is told to; say when the commit begins, and when all is over."""
    optimisation.CHECKPOINT_SECONDS = 0.02
    commit = Writer.commit_all

    def announced(self: Writer, changes: object) -> object:
        connection.send("commit")
        return commit(self, changes)  # type: ignore[arg-type]

    Writer.commit_all = announced  # type: ignore[assignment, method-assign]
    learner = ConPET.open(path)
    _ = learner.backbone  # loaded beforehand
    connection.recv()
    change(learner)
    connection.send("end")
