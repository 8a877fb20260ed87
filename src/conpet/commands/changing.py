"""The changes of a workspace: learn, roll back, remove, tune. Each ends in one commit."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from conpet.artifact import Artifact
from conpet.commands import warmup as warming
from conpet.commands.rows import recorded
from conpet.commands.tune import applied, search
from conpet.config import DesignChoices
from conpet.context import Progress, TrainContext
from conpet.cost import CostLedger, Meter, StageCost
from conpet.data import Task
from conpet.errors import ConfigError, DataError, Problem
from conpet.evaluation.evaluator import Evaluator
from conpet.evaluation.history import BATCH, CACHE, DESIGN, TUNE, learned_by, matrix_of
from conpet.evaluation.metrics import AccuracyMatrix, Row, backward_transfer, forgetting
from conpet.methods.base import Method, TaskData, TaskUpdate
from conpet.modules.warmup_info import WARMUP
from conpet.replay.memory import MEMORY, StoredExamples, Subset, new_examples
from conpet.replay.memory_writer import (
    MemoryWriter,
    check_templates,
    examples_without_test_labels,
    past_examples,
    stored_examples,
)
from conpet.report.design import TuneReport
from conpet.state.reading import ORIGINS, describe, new_task_state, origins, seed_of, task_state, task_states
from conpet.state.state import State
from conpet.store import Change, EventRecord, NewVersion, Snapshot, Store, TaskRecord, VersionRecord, Writer
from conpet.tuning.search import CostLimit
from conpet.types import Evaluation, LearnReport


class BaseCommands:
    """Works out and commits changes, one writer at a time.

    Args:
        store: The workspace's store.
        writer: The right to write.
        learner: The learner of the present state.
        snapshot: The present state; after a commit, the one it made.
        progress: Hears how far each stage is.
        evaluate: Whether a change ends with an evaluation of all tasks.
        meter: Counts what the change computes.
    """

    def __init__(
        self,
        store: Store,
        writer: Writer,
        learner: Method,
        snapshot: Snapshot,
        progress: Progress,
        evaluate: bool,
        meter: Meter,
    ) -> None:
        self._store = store
        self._writer = writer
        self._learner = learner
        self.snapshot = snapshot
        self._progress = progress
        self._evaluate = evaluate
        self._costs = CostLedger()
        self._meter = meter

    def learn(self, task: Task) -> LearnReport:
        """Learn a task; see `ConPET.learn`."""
        return self.learn_batch([task])[0]

    def learn_batch(self, tasks: Sequence[Task]) -> list[LearnReport]:
        """Learn tasks in one change; see `ConPET.learn_batch`."""
        known = {task.name: task.active for task in self.snapshot.tasks}
        due = [task for task in tasks if task.name not in known or task.digest not in origins(known[task.name])]
        _check_distinct(tasks)
        for task in due:
            self._check_labels(task.name, task.labels)
            settings = self._learner.settings
            self._learner.check_task(settings, settings.for_task(task.settings))
            if task.name in known:
                _check_related(task, known[task.name])
        taught = {report.task: report for report in self._teach(due, "learn")} if due else {}
        return [
            taught.get(task.name)
            or self._report(
                known[task.name], skipped=True, cost=(), changed_since=task.digest != known[task.name].digest
            )
            for task in tasks
        ]

    def _teach(self, tasks: Sequence[Task], verb: str, *, derived_from: Sequence[str] = ()) -> list[LearnReport]:
        """Learn sound tasks as new versions.

        Args:
            tasks: One or more.
            verb: What is done, for the history.
            derived_from: Digests of the data that they were made from.
        """
        self._check_batch(tasks)
        contexts = self._contexts(tasks)
        added = [new_task_state(task, self.snapshot) for task in tasks]
        sources, warm = [new_examples(task) for task in tasks], {}
        if warming.due(self._learner):
            self._learner, warm[WARMUP] = warming.warm_up(self._learner, added[0], sources[0], contexts[0])
        learner = self._learner
        with self._costs.stage("prefix"):
            reading = {"progress": self._counted("prefix", sum(len(task.train) for task in tasks))}
            tasks_data = [
                TaskData.of(one, learner.settings, source, learner.backbone, **reading)
                for one, source in zip(added, sources, strict=True)
            ]
        # One task is learned by `learn`, which is what a method of one's own replaces.
        learned = (
            learner.learn_batch(tasks_data, contexts) if len(tasks) > 1 else [learner.learn(tasks_data[0], contexts[0])]
        )
        with self._costs.stage("memory"):
            keeper = MemoryWriter(learner.backbone, learner.settings)
            wholes = [
                keeper.whole(task, task_data.train, one.representations)
                for task, task_data, one in zip(tasks, tasks_data, learned, strict=True)
            ]
            memories, smaller = keeper.kept(wholes, self.snapshot.versions)
        state = learner.state.after_all(added, [one.objects for one in learned], learned[-1].shared)
        evaluation = self._evaluated(state, {whole.task: whole for whole in wholes})
        changes = []
        for task, one, whole, memory in zip(tasks, learned, wholes, memories, strict=True):
            description = describe(task) | {ORIGINS: list(derived_from)}
            description["notes"] += keeper.notes(whole, memory)
            new = _version(task, one, memory, description)
            changes.append(Change(verb, task.name, new_version=new, detail={**one.detail, **_batch_note(tasks)}))
        changes[0] = replace(changes[0], side_objects=smaller, shared={**warm, **learned[-1].shared})
        return self._committed(evaluation, tasks, changes)

    def _committed(
        self, evaluation: Evaluation | None, tasks: Sequence[Task], changes: Sequence[Change]
    ) -> list[LearnReport]:
        """Commit what was learned of some tasks; the last one's report has the evaluation.

        Every task is charged the share of the costs that its examples have, and the optimiser steps of its own module.
        """
        examples = sum(len(task.train) for task in tasks)
        costs = [[stage.share(len(task.train) / examples) for stage in self._costs.stages] for task in tasks]
        if len(tasks) > 1:
            of_each = zip(costs, changes, strict=True)
            costs = [[_stepped(stage, change.detail) for stage in stages] for stages, change in of_each]
        events = self._commit_all(evaluation, changes, costs)
        reports = []
        for task, event, cost in zip(tasks, events, costs, strict=True):
            version = self.snapshot.task(task.name).active
            notes = tuple(version.description["notes"])
            of_all = evaluation if task is tasks[-1] else None
            reports.append(self._report(version, event=event, evaluation=of_all, cost=cost, notes=notes))
        return reports

    def rollback(self, name: str, number: int) -> LearnReport:
        """Use another version of a task; see `ConPET.rollback`."""
        record = self.snapshot.task(name)
        chosen = record.version(number)
        if chosen.active:
            return self._report(chosen, skipped=True)
        self._check_labels(name, chosen.labels)
        added = task_state(chosen)
        context = self._context(name)
        context = replace(context, memory=[*context.memory, examples_without_test_labels(chosen)])
        shared = self._learner.update_shared(task_state(record.active), added, context)
        evaluation = self._evaluated(self._learner.state.followed_by(added, shared), {name: stored_examples(chosen)})
        event = self._commit(evaluation, "rollback", name, activate=number, shared=shared)
        return self._report(self.snapshot.task(name).active, event=event, evaluation=evaluation)

    def remove(self, name: str) -> Evaluation | None:
        """Take a task out; see `ConPET.remove`."""
        removed = task_state(self.snapshot.task(name).active)
        before = task_states(self.snapshot.versions)
        shared = {
            **self._learner.update_shared(removed, None, self._context(name)),
            **self._learner.prune_labels(before, [version for version in before if version.name != name]),
        }
        evaluation = self._evaluated(self._learner.state.without(name, shared), {})
        self._commit(evaluation, "remove", name, remove=True, shared=shared)
        return evaluation

    def tune(self, task: Task | str, limit: CostLimit, choices: DesignChoices) -> TuneReport:
        """Search for a design and put it in force; see `ConPET.tune`."""
        with self._costs.stage("search"):
            found = search(self._learner, self.snapshot, task, limit, choices, self._progress)
        report = found.model_copy(update={"applied": True})
        settings = applied(self._learner.settings, report.choice.design)
        self._commit(
            None,
            TUNE,
            report.task,
            settings=settings.model_dump(mode="json"),
            detail={DESIGN: report.model_dump(mode="json")},
        )
        return report

    # Parts

    def _check_labels(self, name: str, labels: Sequence[str]) -> None:
        owners = {label: task.name for task in self.snapshot.tasks for label in task.active.labels}
        problems = [
            Problem(f"task {name!r}", None, f"label {label!r} is owned by the earlier task {owners[label]!r}")
            for label in labels
            if owners.get(label, name) != name
        ]
        if problems:
            raise DataError(f"task {name!r} cannot be learned; nothing was changed", problems)

    def _check_batch(self, tasks: Sequence[Task]) -> None:
        """Check that tasks can be learned in one change, and beside those that are learned."""
        batch_blocker = self._learner.batch_blocker if len(tasks) > 1 else None
        if batch_blocker:
            raise ConfigError(
                f"{len(tasks)} tasks cannot be learned together: {batch_blocker}; learn them one after the other. "
                "Nothing was changed"
            )
        if self._learner.settings.latent_only:
            for number, task in enumerate(tasks):
                check_templates(task, [*map(task_state, self.snapshot.versions), *tasks[:number]])

    def _contexts(self, tasks: Sequence[Task]) -> list[TrainContext]:
        """Return the circumstances in which each of some tasks is learned; they share all but the seed."""
        digests = [task.digest for task in tasks]
        digest = digests[0] if len(tasks) == 1 else hashlib.sha256("|".join(digests).encode()).hexdigest()
        names = [task.name for task in tasks]
        # Training may be resumed only from the very state it began in.
        context = self._context(*names, scratch=f"{digest[:32]}-{self.snapshot.generation}")
        return [replace(context, seed=seed_of(self._learner.settings.seed, name)) for name in names]

    def _context(self, *names: str, scratch: str | None = None) -> TrainContext:
        """Return the circumstances of a change to tasks; its seed is that of the first."""
        others = [task for task in self.snapshot.tasks if task.name not in names]
        return TrainContext(
            past_examples(others),
            self._costs,
            seed_of(self._learner.settings.seed, names[0]),
            self._store.scratch(scratch) if scratch else None,
            self._progress,
        )

    def _counted(self, stage: str, total: int) -> Callable[[int], None]:
        return counted(self._progress, stage, total)

    def _evaluated(self, state: State, changed: Mapping[str, StoredExamples]) -> Evaluation | None:
        """Evaluate the next state on the stored tests, with those of the changed task in place of the stored ones."""
        if not self._evaluate:
            return None
        known = {task.name: stored_examples(task.active) for task in self.snapshot.tasks} | dict(changed)
        tests = {task.name: known[task.name] for task in state.tasks}
        with self._costs.stage("evaluation"):
            return evaluate_tests(self._learner.with_state(state), tests, self._progress)

    def _commit(self, evaluation: Evaluation | None, verb: str, task: str | None, **change: Any) -> EventRecord:
        return self._commit_all(evaluation, [Change(verb, task, **change)], [self._costs.stages])[0]

    def _commit_all(
        self, evaluation: Evaluation | None, changes: Sequence[Change], costs: Sequence[Sequence[StageCost]]
    ) -> list[EventRecord]:
        """Commit changes, each with its costs; the last also has the evaluation and what is noted of them all."""
        complete = []
        for number, (change, stages) in enumerate(zip(changes, costs, strict=True), start=1):
            last, new = number == len(changes), change.new_version
            rows = recorded(
                evaluation if last else None,
                stages,
                parameters=new.parameters if new else 0,
                head_parameters=new.head_parameters if new else 0,
            )
            complete.append(
                replace(
                    change,
                    evaluations=rows.evaluations,
                    references=rows.references,
                    costs=rows.costs,
                    confusion=rows.confusion,
                )
            )
        complete[-1] = replace(
            complete[-1],
            detail={**complete[-1].detail, CACHE: {"hits": self._meter.cache_hits, "asked": self._meter.cache_lookups}},
            clear_scratch=tuple(self._store.scratches()),  # all of them began in a state that is no more
        )
        events = self._writer.commit_all(complete)
        self.snapshot = self._store.snapshot()
        return events

    def _report(
        self,
        version: VersionRecord,
        *,
        event: EventRecord | None = None,
        evaluation: Evaluation | None = None,
        cost: Sequence[StageCost] | None = None,
        skipped: bool = False,
        changed_since: bool = False,
        notes: Sequence[str] = (),
    ) -> LearnReport:
        tasks = self.snapshot.tasks
        matrix = matrix_of(self._store.events()) if evaluation else AccuracyMatrix()
        return LearnReport(
            task=version.task,
            version=version.number,
            skipped=skipped,
            changed_since=changed_since,
            labels=len(version.labels),
            tasks_seen=len(tasks),
            labels_seen=sum(len(task.active.labels) for task in tasks),
            evaluation=evaluation,
            forgetting=forgetting(matrix) if evaluation else None,
            backward_transfer=backward_transfer(matrix) if evaluation else None,
            cost=tuple(self._costs.stages if cost is None else cost),
            trainable_parameters=version.parameters,
            head_parameters=version.head_parameters,
            backbone_parameters=self._learner.backbone.parameters,
            bytes_stored=event.bytes_stored if event else 0,
            notes=tuple(notes),
        )


def counted(progress: Progress, stage: str, total: int) -> Callable[[int], None]:
    """Return a function that adds up how many of `total` examples are done and reports the share."""
    done = 0

    def add(more: int) -> None:
        nonlocal done
        done += more
        progress(stage, done / max(1, total))

    return add


def _check_distinct(tasks: Sequence[Task]) -> None:
    """Refuse tasks to be learned together that have a name or a label in common."""
    names = [task.name for task in tasks]
    owners = {label: task.name for task in reversed(tasks) for label in task.labels}
    problems = [
        Problem(f"task {name!r}", None, "is given twice") for name in sorted(set(names)) if names.count(name) > 1
    ]
    problems += [
        Problem(f"task {task.name!r}", None, f"label {label!r} is that of task {owners[label]!r} too")
        for task in tasks
        for label in task.labels
        if owners[label] != task.name
    ]
    if problems:
        raise DataError("these tasks cannot be learned together; nothing was changed", problems)


def _batch_note(tasks: Sequence[Task]) -> dict[str, list[str]]:
    """Return what the history notes of tasks learned in one change."""
    return {BATCH: [task.name for task in tasks]} if len(tasks) > 1 else {}


def _stepped(stage: StageCost, detail: Mapping[str, Any]) -> StageCost:
    """Return a share of the cost of a stage, with the optimiser steps of one module where it is what trained it."""
    return replace(stage, steps=detail["steps"]) if stage.stage == "module" else stage


def _version(task: Task, learned: TaskUpdate, memory: Artifact, description: Mapping[str, Any]) -> NewVersion:
    objects = {**learned.objects, MEMORY: memory}
    return NewVersion(task.digest, task.labels, objects, description, learned.parameters, learned.head_parameters)


def _check_related(task: Task, present: VersionRecord) -> None:
    """Refuse a new version that has nothing to do with the present one: two tasks were given one name."""
    if task.kind == present.description["kind"] and set(task.labels) & set(present.labels):
        return
    raise DataError(
        f"a task {task.name!r} of kind {present.description['kind']} is learned already, and none of its labels comes "
        f"again here ({', '.join(task.labels[:3])}, ...); give this one another name, or remove the other first. "
        "Nothing was changed"
    )


def evaluate_tests(learner: Method, tests: Mapping[str, StoredExamples], progress: Progress) -> Evaluation:
    """Evaluate a learner on stored test examples by task."""
    total = sum(source.count(Subset.TEST) for source in tests.values())
    return Evaluator(learner, counted(progress, "evaluation", total)).evaluate(tests)


def evaluate_stored(
    learner: Method, tasks: Sequence[TaskRecord], events: Sequence[EventRecord], progress: Progress
) -> Evaluation:
    """Evaluate a learner on the stored test examples; the result takes the place of the last event's own row."""
    evaluation = evaluate_tests(learner, {task.name: stored_examples(task.active) for task in tasks}, progress)
    *earlier, last = (event for event in events if event.verb != TUNE)
    row = Row(learned_by(last), evaluation.tallies)
    matrix = matrix_of(earlier).followed_by(row)
    return Evaluation(evaluation.tasks, evaluation.references, evaluation.confusion, matrix)
