"""A workspace with enough held-out examples for the gate, and a task that breaks it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from conpet import ConPET, Task
from conpet.testing import Trial, tiny_settings, toy_stream

_KEPT = TemporaryDirectory(prefix="conpet-gate-")
FIRST, SECOND, THIRD = toy_stream(3, 3, 12, 20, 4)
BROKEN = FIRST.labels[0]
"""The label whose answers `harmful` takes."""
TAKER = "zz taker"
"""The label that takes them."""


def learned(folder: Path, name: str = "ws") -> ConPET:
    """Open a copy of a workspace in which two tasks were learned."""
    return ConPET.open(shutil.copytree(_learned(), folder / name))


def harmful() -> Task:
    """Return a task with known inputs under new labels."""
    many = toy_stream(3, 3, 60, 20, 4)[0].train
    renamed = {BROKEN: TAKER, FIRST.labels[1]: "zz other"}
    rows = [one.labelled(renamed[str(one.label)]) for one in many if one.label in renamed]
    known = {one.input_key for subset in (FIRST.train, FIRST.validation, FIRST.test) for one in subset}
    return Task("harmful", tuple(one for one in rows if one.input_key not in known), (), ())


def larger(task: Task) -> Task:
    """Return a task with a training example more."""
    return replace(task, train=(*task.train, replace(task.test[0])), test=task.test[1:])


@cache
def _learned() -> Path:
    learner = Trial(Path(_KEPT.name), tiny_settings()).workspace()
    learner.learn_batch([FIRST, SECOND])
    return learner.path
