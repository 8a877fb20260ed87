"""Workspaces to serve, and tasks that are learned in a moment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from conpet import ConPET, Task
from conpet.demo.stream import demo_stream
from conpet.testing import tiny_settings, toy_stream

TASKS = 4
TINY = "tiny-random"
_ROWS = 8
"""Training examples of each label with a real backbone."""
_QUICK: dict[str, Any] = {"training": {"epochs": 4}}
_ALL_MODULES: dict[str, Any] = {"fusion": {"skip_above": None}}
"""Every answer needs modules: nothing stale among them could stay hidden."""


def tasks_for(backbone: str) -> list[Task]:
    """Return some small tasks."""
    if backbone == TINY:
        return list(toy_stream(TASKS, 2, 8, 2, 4))
    return [_small(task) for task in demo_stream()[:TASKS]]


def make_workspace(path: Path, backbone: str, tasks: Sequence[Task]) -> ConPET:
    """Make a workspace in which tasks were learned."""
    own = {"backbone": {"name": backbone}, **_QUICK}
    learner = ConPET.create(path, **(tiny_settings() if backbone == TINY else own) | _merged(backbone))
    for task in tasks:
        learner.learn(task, evaluate=False)
    return learner


def texts_of(tasks: Sequence[Task], most: int = 64) -> list[str]:
    """Return texts to ask: the same number of each task, never seen in training."""
    each = most // len(tasks)
    return [example.text for task in tasks for example in task.test[:each]]


def variant(task: Task, number: int) -> Task:
    """Return a task under the same name with its labels exchanged in another way, in which no data is as before."""
    labels, shift = task.labels, 1 + number % (len(task.labels) - 1)
    other = {label: labels[(index + shift) % len(labels)] for index, label in enumerate(labels)}
    subsets = (task.train, task.validation, task.test)
    train, validation, test = (tuple(one.labelled(other[str(one.label)]) for one in rows) for rows in subsets)
    dropped = number % (len(train) - 1)
    return Task(task.name, train[:dropped] + train[dropped + 1 :], validation, test)


def _small(task: Task) -> Task:
    kept: dict[str, int] = {}
    train = []
    for example in task.train:
        label = str(example.label)
        kept[label] = kept.get(label, 0) + 1
        if kept[label] <= _ROWS:
            train.append(example)
    return Task(task.name, tuple(train), task.validation, task.test)


def _merged(backbone: str) -> dict[str, Any]:
    return {"fusion": {"calibration_examples": 60, **_ALL_MODULES["fusion"]}} if backbone == TINY else _ALL_MODULES
