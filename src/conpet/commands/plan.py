"""What learning tasks would do and take: rows, labels, time and memory. Nothing is changed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from conpet.backbone.backbone import Backbone
from conpet.commands.space import bytes_to_write
from conpet.config import Settings
from conpet.config.base import flat, nested
from conpet.cost import BACKWARD, peak_memory
from conpet.data import Example, Task
from conpet.features.feature_map import FeatureMap
from conpet.heads.stored import head_document, make_head
from conpet.methods import METHODS
from conpet.methods.base import Method
from conpet.modules.optimisation import steps_of
from conpet.modules.training import TrainingJob, train_module
from conpet.replay.memory import Subset
from conpet.replay.memory_writer import examples_without_test_labels
from conpet.state.reading import origins
from conpet.store import Snapshot

SAMPLE = 32
"""Inputs on which the backbone is timed."""
_TRIAL_STEPS = 3
_COMMIT_SECONDS = 0.2
"""Calibrating and storing a task, besides all computation that grows with its size."""


@dataclass(frozen=True, slots=True)
class PlannedTask:
    """What would become of a task.

    Attributes:
        task: The task.
        version: The version it would become; None if it has been learned from the same data and is skipped.
        steps: Optimiser steps.
        seconds: Estimated time of learning and evaluating.
    """

    task: Task
    version: int | None
    steps: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What learning tasks would do.

    Attributes:
        tasks: The tasks, in order.
        memory: Estimated highest memory use of the process, in bytes; 0 if the platform cannot measure it.
        disk: Bytes that will be written at least, in the largest change.
    """

    tasks: tuple[PlannedTask, ...]
    memory: int
    disk: int

    @property
    def seconds(self) -> float:
        """Estimated time of all tasks."""
        return sum(task.seconds for task in self.tasks)


@dataclass(frozen=True, slots=True)
class _Speed:
    """Times measured on a sample.

    Attributes:
        prefix: Seconds of a pass through the prefix, for each input.
        step: Seconds of an optimiser step.
        answer: Seconds to score an input whose prefix states are known.
        rate: Multiplications and additions a second, in large matrix products of float64.
        state_bytes: Bytes of the prefix states and features of an input.
        peak: Highest memory use while measuring, in bytes.
    """

    prefix: float
    step: float
    answer: float
    rate: float
    state_bytes: int
    peak: int


def plan(tasks: Sequence[Task], snapshot: Snapshot, backbone: Backbone, settings: Settings, *, evaluate: bool) -> Plan:
    """Return what learning tasks one after another would do, with time and memory estimated from a short trial.

    The trial passes up to 32 inputs through the backbone and takes three training steps. Cached states make learning
    faster than estimated.

    Args:
        tasks: The tasks.
        snapshot: The workspace.
        backbone: Its backbone.
        settings: Its settings.
        evaluate: Whether all tasks would be evaluated after each one.
    """
    active = {task.name: task.active for task in snapshot.tasks}
    new = [task for task in tasks if task.name not in active or task.digest not in origins(active[task.name])]
    if not new:
        return Plan(tuple(PlannedTask(task, None, 0, 0.0) for task in tasks), 0, 0)
    speed = _measure(new, backbone, settings)
    tests = {name: examples_without_test_labels(version).count(Subset.TEST) for name, version in active.items()}
    versions = {name: version.number for name, version in active.items()}
    planned = []
    method: type[Method] = METHODS[settings.method.name]
    learned = sum(version.description["counts"]["train"] for version in active.values())
    for task in tasks:
        if task not in new:
            planned.append(PlannedTask(task, None, 0, 0.0))
            continue
        learned += len(task.train)
        rows = learned if method.retrains else len(task.train)
        steps = steps_of(rows, settings.for_task(task.settings).training) if method.tunes else 0
        tests[task.name] = len(task.test)
        seconds = _COMMIT_SECONDS + speed.prefix * (len(task.train) + len(task.validation)) + speed.step * steps
        seconds += _statistics_operations(len(task.train), method, backbone, settings) / speed.rate
        if evaluate:
            seconds += speed.prefix * len(task.test) + speed.answer * sum(tests.values())
        version = versions[task.name] = versions.get(task.name, 0) + 1
        planned.append(PlannedTask(task, version, steps, seconds))
    rows = max(len(task.train) + len(task.validation) + len(task.test) for task in new)
    disk = bytes_to_write(new, snapshot, backbone, settings, together=False)
    return Plan(tuple(planned), speed.peak + rows * speed.state_bytes if speed.peak else 0, disk)


def _statistics_operations(rows: int, method: type[Method], backbone: Backbone, settings: Settings) -> float:
    """Return the operations of adding rows to the statistics and of fitting the closed forms once."""
    feature_map = FeatureMap(backbone.feature_size, settings.features.projection, settings.seed, views=method.views)
    widths = [feature_map.width(view) for view in method.views]
    return sum(rows * width**2 + 2 * width**3 / 3 for width in widths)


def _measure(tasks: Sequence[Task], backbone: Backbone, settings: Settings) -> _Speed:
    task = max(tasks, key=lambda task: len(task.train))
    sample = _sample(task.train)
    with peak_memory() as peak:
        states = backbone.states(sample[:2], task.template, keep=False)  # fits the features, warms up
        prefix = _seconds(lambda: backbone.states(sample, task.template, keep=False)) / len(sample)
        states = backbone.states(sample, task.template, keep=False)
        step = answer = 0.0
        if METHODS[settings.method.name].tunes:
            step, answer = _training_seconds(task, sample, backbone, settings)
        return _Speed(prefix, step, answer, _rate(), _bytes(states.hidden, states.features) // len(sample), peak())


def _training_seconds(
    task: Task, sample: Sequence[Example], backbone: Backbone, settings: Settings
) -> tuple[float, float]:
    """Return the seconds of a training step, and of scoring an input: a third of its part in the step."""
    states = backbone.states(sample, task.template, keep=False)
    answers = [str(example.label) for example in sample]

    def train(steps: int) -> float:
        own = flat(nested(task.settings)) | {"training.max_steps": steps, "training.epochs": steps}
        chosen = settings.for_task(own)
        head = make_head(chosen.head)
        document = head_document(head, answers)
        job = TrainingJob(states, head.targets(answers, document), head, document, chosen, settings.seed)
        return _seconds(lambda: train_module(backbone, job))

    train(1)  # warms up
    step = max(1e-6, (train(1 + _TRIAL_STEPS) - train(1)) / _TRIAL_STEPS)
    batch = min(settings.for_task(task.settings).training.batch_size, len(sample))
    return step, step / ((1 + BACKWARD) * batch)


def _sample(examples: Sequence[Example]) -> list[Example]:
    """Return up to `SAMPLE` examples, evenly spaced, so that all labels of a sorted file take part."""
    count = min(SAMPLE, len(examples))
    return [examples[number * len(examples) // count] for number in range(count)]


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _rate() -> float:
    """Measure multiplications and additions a second in float64, as in the statistics."""
    size = 512
    matrix = torch.ones(size, size, dtype=torch.float64)
    torch.mm(matrix, matrix)
    return float(size**3 / max(1e-9, _seconds(lambda: torch.mm(matrix, matrix))))


def _bytes(hidden: Sequence[torch.Tensor] | None, features: torch.Tensor) -> int:
    tensors = [*(hidden or ()), features]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
