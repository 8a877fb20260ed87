"""What the killed process does. It imports little by itself: the fork server has conpet and torch loaded already."""

from __future__ import annotations

import os
from multiprocessing.connection import Connection

PRELOADED = [
    "conpet.testing",
    "conpet.learners.dynamic",
    "conpet.selectors.learned",
    "conpet.selectors.closed_form",
    "transformers.models.llama.modeling_llama",
    "peft.tuners.lora",
]


def learn(home: str, path: str, connection: Connection) -> None:
    """Learn the third task as soon as one is told to; say when the commit begins, and when all is over."""
    os.environ["CONPET_HOME"] = home
    import torch

    from conpet import ConPET, training
    from conpet.store.writer import Writer
    from conpet.testing import toy_stream

    torch.set_num_threads(1)
    training.CHECKPOINT_SECONDS = 0.02
    commit = Writer.commit

    def announced(self: Writer, change: object) -> object:
        connection.send("commit")
        return commit(self, change)  # type: ignore[arg-type]

    Writer.commit = announced  # type: ignore[assignment, method-assign]
    learner = ConPET.open(path)
    _ = learner.backbone  # loaded beforehand
    task = toy_stream(3, 2, 4, 1, 2)[2]
    connection.recv()
    learner.learn(task)
    connection.send("end")
