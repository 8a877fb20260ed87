"""Learn tasks: one, or several in a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from conpet.artifact import Artifact
from conpet.commands import warmup
from conpet.commands.base import Transaction
from conpet.commands.checks import check_answers, check_distinct, check_labels, check_related, check_type
from conpet.commands.consolidate import due
from conpet.commands.space import bytes_to_write
from conpet.context import TrainContext
from conpet.cost import StageCost
from conpet.data import Task
from conpet.data.truncation import CutInputs
from conpet.errors import ConfigError
from conpet.evaluation.history import BATCH
from conpet.methods.base import TaskData
from conpet.modules.folded_info import FOLDED
from conpet.replay.memory import MEMORY, new_examples
from conpet.replay.memory_writer import MemoryWriter, check_templates
from conpet.state.reading import ORIGINS, describe, new_task_state, origins, seed_of, task_state
from conpet.state.update import TaskUpdate
from conpet.store import Change, NewVersion, VersionRecord
from conpet.types import Evaluation, LearnReport


def learn(tx: Transaction, task: Task) -> LearnReport:
    """Learn a task; see `ConPET.learn`."""
    return learn_batch(tx, [task])[0]


def learn_batch(tx: Transaction, tasks: Sequence[Task]) -> list[LearnReport]:
    """Learn tasks in one change; see `ConPET.learn_batch`."""
    for task in tasks:
        check_type(task, (Task,), "a task", "read_task")
    known = {task.name: task.active for task in tx.snapshot.tasks}
    new = [task for task in tasks if task.name not in known or task.digest not in origins(known[task.name])]
    check_distinct(tasks)
    for task in new:
        check_labels(tx.snapshot, task.name, task.labels)
        check_answers(tx.settings, task)
        tx.method.check_task(tx.settings, tx.settings.for_task(task.settings))
        if task.name in known:
            check_related(task, known[task.name])
    learned = {report.task: report for report in learn_checked(tx, new, "learn")} if new else {}
    return [
        learned.get(task.name)
        or tx.report(known[task.name], skipped=True, cost=(), changed_since=task.digest != known[task.name].digest)
        for task in tasks
    ]


def learn_checked(
    tx: Transaction, tasks: Sequence[Task], verb: str, *, derived_from: Mapping[str, Sequence[str]] | None = None
) -> list[LearnReport]:
    """Learn tasks that have been checked, as new versions.

    Args:
        tx: The transaction.
        tasks: One or more.
        verb: Name of the change in the history.
        derived_from: Digests of the data that tasks were derived from, by name.
    """
    _check_batch(tx, tasks)
    tx.require_space(bytes_to_write(tasks, tx.snapshot, tx.method.backbone, tx.settings))
    contexts = _contexts(tx, tasks)
    added = [new_task_state(task, tx.snapshot) for task in tasks]
    sources, folded_objects = [new_examples(task) for task in tasks], {}
    if warmup.is_due(tx.method, tx.state):
        tx.method, tx.state, folded_objects[FOLDED] = warmup.warm_up(
            tx.method, tx.state, added[0], sources[0], contexts[0]
        )
    method = tx.method
    with tx.costs.stage("prefix"):
        progress = tx.counted("prefix", sum(len(task.train) for task in tasks))
        batch = [
            TaskData.of(task, tx.settings, source, method.backbone, progress=progress)
            for task, source in zip(added, sources, strict=True)
        ]
    # A single task goes to `learn_task`, the only one of the two that a method must define.
    if len(batch) == 1:
        updates = [method.learn_task(tx.state, batch[0], contexts[0])]
    else:
        updates = method.learn_batch(tx.state, batch, contexts)
    with tx.costs.stage("memory"):
        writer = MemoryWriter(method.backbone, tx.settings)
        examples = [
            writer.all_examples(task, data.train, update.representations, _former(tx, task, derived_from))
            for task, data, update in zip(tasks, batch, updates, strict=True)
        ]
        memories, smaller = writer.retained(examples, tx.snapshot.versions)
    state = tx.state.apply(*updates)
    evaluation = tx.evaluate(state, {stored.task: stored for stored in examples})
    changes = []
    for task, data, update, whole, memory in zip(tasks, batch, updates, examples, memories, strict=True):
        description = describe(task) | {ORIGINS: list((derived_from or {}).get(task.name, ()))}
        description["notes"] += writer.notes(whole, memory)
        cut = CutInputs.of(encoded.cut for encoded in data.train.encoded)
        if note := method.backbone.cut_note(cut, "training example"):
            description["notes"].append(note)
        new = _version(task, update, memory, description)
        changes.append(Change(verb, task.name, new_version=new, detail={**update.detail, **_batch_note(tasks)}))
    changes[0] = replace(changes[0], side_objects=smaller, shared={**folded_objects, **updates[-1].shared})
    tx.count_attempts()
    costs = _divided_costs(tx, tasks, changes)
    committed = tx.commit_all(state, evaluation, changes, costs)
    reports = []
    for task, event, cost in zip(tasks, committed, costs, strict=True):
        version = tx.snapshot.task(task.name).active
        notes = tuple(version.description["notes"])
        measured: Evaluation | None = evaluation if task is tasks[-1] else None
        reports.append(tx.report(version, event=event, evaluation=measured, cost=cost, notes=notes))
    why = due(tx.store, tx.snapshot)
    reports[-1] = replace(reports[-1], consolidation_due=None if why is None else str(why))
    return reports


def _former(tx: Transaction, task: Task, derived_from: Mapping[str, Sequence[str]] | None) -> VersionRecord | None:
    """Return the version that a task was derived from, if any."""
    return tx.snapshot.task(task.name).active if (derived_from or {}).get(task.name) else None


def _check_batch(tx: Transaction, tasks: Sequence[Task]) -> None:
    """Check that tasks can be learned in one change, and that their templates fit those of stored tasks."""
    blocker = tx.method.batch_blocker(tx.state) if len(tasks) > 1 else None
    if blocker:
        raise ConfigError(
            f"{len(tasks)} tasks cannot be learned in one batch: {blocker}. Learn them one at a time. "
            "Nothing was changed"
        )
    if tx.settings.replay.latent_only:
        for number, task in enumerate(tasks):
            check_templates(task, [*map(task_state, tx.snapshot.versions), *tasks[:number]])


def _contexts(tx: Transaction, tasks: Sequence[Task]) -> list[TrainContext]:
    """Return the training context of each task; they share everything except the seed."""
    names = [task.name for task in tasks]
    context = tx.context(*names, scratch=tx.scratch_name([task.digest for task in tasks]))
    return [replace(context, seed=seed_of(tx.settings.seed, name)) for name in names]


def _divided_costs(tx: Transaction, tasks: Sequence[Task], changes: Sequence[Change]) -> list[list[StageCost]]:
    """Divide the costs of a batch among its tasks, by training examples; each module's own steps are charged."""
    examples = sum(len(task.train) for task in tasks)
    costs = [[stage.share(len(task.train) / examples) for stage in tx.costs.stages] for task in tasks]
    if len(tasks) == 1:
        return costs
    return [
        [replace(stage, steps=change.detail["steps"]) if stage.stage == "module" else stage for stage in stages]
        for stages, change in zip(costs, changes, strict=True)
    ]


def _batch_note(tasks: Sequence[Task]) -> dict[str, list[str]]:
    """Return the detail that the history records for tasks learned in one batch."""
    return {BATCH: [task.name for task in tasks]} if len(tasks) > 1 else {}


def _version(task: Task, update: TaskUpdate, memory: Artifact, description: Mapping[str, Any]) -> NewVersion:
    objects = {**update.objects, MEMORY: memory}
    return NewVersion(task.digest, task.labels, objects, description, update.parameters, update.head_parameters)
