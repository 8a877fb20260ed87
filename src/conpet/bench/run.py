"""A run of an experiment: learn a stream, and measure accuracy and cost."""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from conpet.api import ConPET
from conpet.backbone.fingerprint import Fingerprint
from conpet.bench.experiment import Run
from conpet.bench.metrics import METRICS, Measured
from conpet.bench.results import STEPS, Protocol, Result, TaskCost
from conpet.bench.similarity import label_vectors
from conpet.cost import StageCost
from conpet.data import Example, Span, Task, TaskStream
from conpet.data.benchmarks import read_data
from conpet.data.labelled import LabelledData
from conpet.errors import ConfigError, ConpetError, OutOfMemoryError
from conpet.evaluation.metrics import AccuracyMatrix, Row, Tally, auroc
from conpet.methods import METHODS
from conpet.report.text import plural
from conpet.types import Evaluation

PREDICTED = 64
"""Number of inputs that measure the time of a prediction."""
_WORKSPACE = "workspace"


def measured(run: Run, scratch: Path, folders: Sequence[Path], made_by: Mapping[str, Any]) -> Result:
    """Do a run, or resume an interrupted run after its last finished task.

    Args:
        run: The run.
        scratch: Folder for the workspace during the run; removed at the end.
        folders: Folders to search for data sets, as in `conpet.data.benchmarks.read_data`.
        made_by: Commit, versions, machine and command, for the result.
    """
    data = read_source(run.data, tuple(folders))
    stream = stream_of_run(run, data)
    tasks = ordered(stream, run.order)
    progress = _Progress.of(scratch, run, tasks)
    for number, task in enumerate(tasks, start=1):
        if len(progress.lines) < 2 * number - 1:
            progress.learn(number, task)
        if len(progress.lines) < 2 * number:
            progress.measure(number, task)
    result = progress.result(data, stream, tasks, made_by)
    shutil.rmtree(scratch)
    return result


@lru_cache(maxsize=4)
def read_source(name: str, folders: tuple[Path, ...]) -> LabelledData:
    """Read a data set once for all runs that use it."""
    return read_data(name, folders)


def stream_of_run(run: Run, data: LabelledData) -> TaskStream:
    """Return the tasks of a run in the order of the source.

    Raises:
        ConfigError: The recipe does not fit the data, or makes fewer tasks than `first_tasks`.
        DataError: The tasks cannot be learned.
    """
    vectors = partial(label_vectors, data, run.backbone)
    whole = run.stream.stream_of(data, run.source.per_label, vectors=vectors)
    check_first_tasks(run, len(whole))
    stream = whole[: run.source.first_tasks]
    return TaskStream(tuple(map(on_validation, stream))) if run.source.measured_on == "validation" else stream


def check_first_tasks(run: Run, tasks: int) -> None:
    """Check that a stream has at least `first_tasks` tasks."""
    first = run.source.first_tasks
    if first is not None and first > tasks:
        raise ConfigError(
            f"'data.{run.data}.first_tasks' is {first}, but the stream has {plural(tasks, 'task')}: give at most "
            f"{tasks}, or remove the key to learn all"
        )


def on_validation(task: Task) -> Task:
    """Return the task with every second validation example of a label as a test example, instead of its test set."""
    seen: Counter[str | None] = Counter()
    halves: tuple[list[Example], list[Example]] = ([], [])
    for example in task.validation:
        halves[seen[example.label] % 2].append(example)
        seen[example.label] += 1
    return replace(task, validation=tuple(halves[0]), test=tuple(halves[1]))


def ordered(stream: TaskStream, order: int) -> TaskStream:
    """Return the tasks in an order: 0 is the order of the source, others are shuffled with the number as seed."""
    tasks = list(stream)
    if order:
        random.Random(order).shuffle(tasks)  # noqa: S311 - not for secrets
    return TaskStream(tuple(tasks))


@dataclass
class _Progress:
    """An unfinished run: its workspace, and two lines per task, for its cost and its evaluation."""

    folder: Path
    run: Run
    learner: ConPET
    lines: list[dict[str, Any]]
    last: int
    evaluation: Evaluation | None = None

    @classmethod
    def of(cls, folder: Path, run: Run, tasks: Sequence[Task]) -> _Progress:
        """Resume an interrupted run if possible, or begin it."""
        try:
            about, *lines = _whole_lines((folder / STEPS).read_text(encoding="utf-8"))
            learner = ConPET.open(folder / _WORKSPACE)
            if about == _about(run, tasks) and len(learner.tasks) == (len(lines) + 1) // 2:
                _delete_checkpoints(folder / _WORKSPACE)
                _truncate_partial_line(folder / STEPS)
                return cls(folder, run, learner, lines, len(tasks))
        except OutOfMemoryError:
            raise  # the stored run is intact
        except (OSError, ValueError, ConpetError):
            pass  # there is none, or it was killed between two writes: start again
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        learner = ConPET.create(folder / _WORKSPACE, **run.given)
        start = cls(folder, run, learner, [], len(tasks))
        start._append(_about(run, tasks))
        return start

    def learn(self, number: int, task: Task) -> None:
        """Learn a task and record its cost."""
        skipped = self._retrains and not self._evaluated_after(number)
        if skipped:  # only its examples matter, for the later training on all tasks
            task = replace(task, settings={**task.settings, "training.max_steps": 1})
        cpu, wall = time.process_time(), time.perf_counter()
        report = self.learner.learn(task, evaluate=False, gate=False)
        cost = list(report.cost)
        if self._consolidates_after(number):
            cost += self.learner.consolidate(bound=100.0, evaluate=False, gate=False).cost
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        recorded = None if skipped else self._cost(cost, cpu, wall).model_dump(mode="json")
        parameters = [report.trainable_parameters, report.head_parameters, report.bytes_stored]
        # Recorded before the evaluation, so that an interrupted evaluation does not repeat the training.
        self._record({"cost": recorded, "parameters": parameters, "cpu_seconds": cpu})

    def measure(self, number: int, task: Task) -> None:
        """Evaluate after a task, if requested, and record the results."""
        start = time.process_time()
        matrix = seconds = None
        if self._evaluated_after(number):
            self.evaluation = self.learner.evaluate()
            matrix = {name: [tally.correct, tally.total] for name, tally in self.evaluation.tallies.items()}
        if self._times_predictions(number):
            seconds = self._predict_seconds(task)
        self._record({"matrix": matrix, "predict_seconds": seconds, "cpu_seconds": time.process_time() - start})

    def _record(self, line: dict[str, Any]) -> None:
        self.lines.append(line)
        self._append(line)

    def result(self, data: LabelledData, stream: TaskStream, tasks: TaskStream, made_by: Mapping[str, Any]) -> Result:
        """Return the result of the run."""
        run, learner = self.run, self.learner
        evaluation = self.evaluation or learner.evaluate()
        learned, evaluated = self.lines[::2], self.lines[1::2]
        costs = [
            TaskCost.model_validate({**learning["cost"], "predict_seconds": evaluation_line["predict_seconds"]})
            if learning["cost"]
            else None
            for learning, evaluation_line in zip(learned, evaluated, strict=True)
        ]
        counted = [cost for cost in costs if cost]
        trainable, head, stored = learned[-1]["parameters"]
        fingerprint = Fingerprint(**learner.store.header().backbone["fingerprint"]).digest
        return Result(
            made_by=made_by,
            experiment=run.experiment,
            data=run.data,
            variant=run.variant,
            learner=run.learner,
            order=run.order,
            seed=run.seed,
            asked=run.asked,
            protocol=Protocol(
                data=run.data,
                examples={subset: getattr(run.source, subset) for subset in ("train", "validation", "test")},
                stream={"by": run.stream.by, **run.stream.model_dump(mode="json", exclude_defaults=True)},
                digest=stream.digest,
                backbone=run.backbone,
                fingerprint=fingerprint,
                budget=dict(run.budget),
            ),
            settings=learner.settings.to_json(),
            tasks=[task.name for task in tasks],
            labels=len(learner.labels),
            test_examples=sum(len(task.test) for task in tasks),
            metrics=self._metrics(evaluation, data, tasks),
            references={name: measured.value for name, measured in evaluation.references.items() if measured.n},
            matrix=self._matrix,
            costs=costs,
            totals={
                "cpu_seconds": sum(cost.cpu_seconds for cost in counted),
                "seconds": sum(cost.seconds for cost in counted),
                "run_cpu_seconds": sum(line["cpu_seconds"] for line in self.lines),
                "tokens": sum(cost.tokens for cost in counted),
                "cached_tokens": sum(cost.cached_tokens for cost in counted),
                "steps": sum(cost.steps for cost in counted),
                "trainable_parameters": trainable,
                "head_parameters": head,
                "bytes_stored": stored,
                "bytes_on_disk": learner.store.bytes_on_disk(),
            },
        )

    @property
    def _matrix(self) -> list[dict[str, tuple[int, int]] | None]:
        return [line["matrix"] for line in self.lines[1::2]]

    def _consolidates_after(self, number: int) -> bool:
        """Return whether the workspace is consolidated after the task with this number, just learned."""
        if self.run.consolidate == "doubling":
            return self.learner.consolidation_due() is not None
        return number == {None: None, "last": self.last, "half": (self.last + 1) // 2}[self.run.consolidate]

    @property
    def _retrains(self) -> bool:
        return bool(METHODS[self.learner.settings.method.name].retrains)

    def _evaluated_after(self, number: int) -> bool:
        """Return whether the run is evaluated after the task with this number."""
        after = self.run.evaluate_after
        if after == "every" and not self._retrains:
            return True
        return number == self.last or (not isinstance(after, str) and number in after)

    def _times_predictions(self, number: int) -> bool:
        return self._evaluated_after(number) and (number == self.last or not isinstance(self.run.evaluate_after, str))

    def _predict_seconds(self, task: Task) -> float | None:
        """Measure processor seconds per prediction, for a batch of inputs that are not in the cache."""
        inputs = [backwards(example) for example in task.test[:PREDICTED]]
        if not inputs:
            return None
        self.learner.predict(inputs[:1])  # excludes the loading at the first prediction
        started = time.process_time()
        self.learner.predict(inputs)
        return (time.process_time() - started) / len(inputs)

    def _cost(self, stages: Sequence[StageCost], cpu: float, wall: float) -> TaskCost:
        return TaskCost(
            cpu_seconds=cpu,
            seconds=wall,
            stages=_seconds_by_stage(stages),
            tokens=sum(stage.tokens for stage in stages),
            cached_tokens=sum(stage.cached_tokens for stage in stages),
            steps=sum(stage.steps for stage in stages),
            bytes_on_disk=self.learner.store.bytes_on_disk(),
        )

    def _metrics(self, evaluation: Evaluation, data: LabelledData, tasks: TaskStream) -> dict[str, float | None]:
        rows = tuple(
            Row(task.name, {name: Tally(*counts) for name, counts in row.items()})
            for task, row in zip(tasks, self._matrix, strict=True)
            if row is not None
        )
        whole = len(rows) == len(tasks)
        run = Measured(evaluation, AccuracyMatrix(rows) if whole else None, lambda: self._auroc(data, tasks))
        return {name: metric(run) for name, metric in METRICS.items()}

    def _auroc(self, data: LabelledData, tasks: TaskStream) -> float | None:
        """Measure how well scores distinguish out-of-scope inputs from test inputs of all tasks."""
        number = self.run.source.out_of_scope
        outside = _spread(data.out_of_scope, number) if number else []
        inside = _spread([example for task in tasks for example in task.test], number or 0)
        if not outside or not inside:
            return None
        scores = [
            [answer.score for answer in self.learner.predict(_unlabelled(inputs), top_n=1)]
            for inputs in (inside, outside)
        ]
        return auroc(*scores)

    def _append(self, line: Mapping[str, Any]) -> None:
        with (self.folder / STEPS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())


def _seconds_by_stage(stages: Sequence[StageCost]) -> dict[str, float]:
    """Return the seconds of each stage; those of learning and of a consolidation are added."""
    seconds: dict[str, float] = {}
    for stage in stages:
        seconds[stage.stage] = round(seconds.get(stage.stage, 0.0) + stage.seconds, 4)
    return seconds


def _whole_lines(text: str) -> list[dict[str, Any]]:
    """Read JSON lines, without an incomplete last line."""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def _truncate_partial_line(steps: Path) -> None:
    """Cut off an incomplete last line, so that the next line does not continue it."""
    os.truncate(steps, steps.read_bytes().rfind(b"\n") + 1)


def _about(run: Run, tasks: Sequence[Task]) -> dict[str, Any]:
    return {"asked": run.asked, "tasks": [task.digest for task in tasks]}


def _delete_checkpoints(workspace: Path) -> None:
    """Delete checkpoints, so that an interrupted task starts again and its cost is complete."""
    for folder in (workspace / "scratch").iterdir():
        shutil.rmtree(folder)


def _unlabelled(examples: Sequence[Example]) -> list[Example]:
    return [example.labelled(None) for example in examples]


def backwards(example: Example) -> Example:
    """Return an input with the words in reverse order: the same length, but not in the cache."""
    length = len(example.tokens)

    def turned(span: Span | None) -> Span | None:
        return span and Span(length - span.end, length - span.start)

    return replace(
        example,
        text=" ".join(reversed(example.text.split())),
        tokens=example.tokens[::-1],
        head=turned(example.head),
        tail=turned(example.tail),
        mention=turned(example.mention),
        label=None,
    )


def _spread(examples: Sequence[Example], number: int) -> list[Example]:
    """Return `number` examples, evenly spread."""
    if number >= len(examples):
        return list(examples)
    return [examples[index * len(examples) // number] for index in range(number)]
