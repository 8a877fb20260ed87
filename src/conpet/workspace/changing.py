"""The changes of a workspace: learn, roll back, remove, tune. Each ends in one commit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from conpet.config import DesignChoices
from conpet.cost import CostLedger
from conpet.data import Task
from conpet.errors import DataError, Problem
from conpet.evaluation.metrics import AccuracyMatrix, Row, backward_transfer, forgetting
from conpet.learners.base import Learner, Lesson
from conpet.learners.state import LearnerState
from conpet.pet.warm import WARMUP
from conpet.replay.memory import MEMORY, Remembered, Split, remembered_whole
from conpet.report.design import TuneReport
from conpet.store import Change, EventRecord, NewVersion, Snapshot, Store, TaskRecord, VersionRecord, Writer
from conpet.work import Progress, Work
from conpet.workspace import warming
from conpet.workspace.evaluating import Evaluator
from conpet.workspace.history import CACHE, DESIGN, TUNE, learned_by, matrix_of
from conpet.workspace.reading import ORIGINS, coming_task, describe, known_task, known_tasks, origins, seed_of
from conpet.workspace.recording import recorded
from conpet.workspace.remembering import Keeper, check_templates, remember, remembered, sighted
from conpet.workspace.results import Evaluation, LearnReport
from conpet.workspace.searching import CostLimit
from conpet.workspace.tuning import applied, search


class Changer:
    """Works out and commits changes, one writer at a time.

    Args:
        store: The workspace's store.
        writer: The right to write.
        learner: The learner of the present state.
        snapshot: The present state; after a commit, the one it made.
        progress: Hears how far each stage is.
        evaluate: Whether a change ends with an evaluation of all tasks.
    """

    def __init__(
        self,
        store: Store,
        writer: Writer,
        learner: Learner,
        snapshot: Snapshot,
        progress: Progress,
        evaluate: bool,
    ) -> None:
        self._store = store
        self._writer = writer
        self._learner = learner
        self.snapshot = snapshot
        self._progress = progress
        self._evaluate = evaluate
        self._costs = CostLedger(learner.backbone.meter)
        self._asked_before = _asked(learner)

    def learn(self, task: Task) -> LearnReport:
        """Learn a task; see `ConPET.learn`."""
        present = self._present(task.name)
        if present and task.digest in origins(present):
            return self._report(present, skipped=True, changed_since=task.digest != present.digest)
        self._check_labels(task.name, task.labels)
        settings = self._learner.settings
        self._learner.check_task(settings, settings.for_task(task.settings))
        if present:
            _check_related(task, present)
        return self._teach(task, "learn")

    def _teach(self, task: Task, verb: str, *, derived_from: Sequence[str] = ()) -> LearnReport:
        """Learn a sound task as a new version.

        Args:
            task: The task.
            verb: What is done, for the history.
            derived_from: Digests of the data that the task was made from.
        """
        if self._learner.settings.latent_only:
            check_templates(task, map(known_task, self.snapshot.versions))
        # Training may be resumed only from the very state it began in.
        scratch = f"{task.digest[:32]}-{self.snapshot.generation}"
        work = self._work(task.name, scratch)
        coming, source, warm = coming_task(task, self.snapshot), remembered_whole(task), {}
        if warming.due(self._learner):
            self._learner, warm[WARMUP] = warming.warm_up(self._learner, coming, source, work)
        learner = self._learner
        with self._costs.stage("prefix"):
            counted = self._counted("prefix", len(task.train))
            lesson = Lesson.of(coming, learner.settings, source, learner.backbone, progress=counted)
        learned = learner.learn(lesson, work)
        with self._costs.stage("memory"):
            keeper = Keeper(learner.backbone, learner.settings)
            whole = keeper.whole(task, lesson.train, learned.representations)
            memory, smaller = keeper.kept(whole, self.snapshot.versions)
        description = describe(task) | {ORIGINS: list(derived_from)}
        description["notes"] += keeper.notes(whole, memory)
        state = learner.state.after(coming, learned.objects, learned.shared)
        evaluation = self._evaluated(state, {task.name: whole})
        new = NewVersion(
            task.digest,
            task.labels,
            {**learned.objects, MEMORY: memory},
            description,
            learned.parameters,
            learned.head_parameters,
        )
        event = self._commit(
            evaluation,
            verb,
            task.name,
            new_version=new,
            side_objects=smaller,
            shared={**warm, **learned.shared},
            detail=learned.detail,
        )
        version = self.snapshot.task(task.name).active
        return self._report(version, event=event, evaluation=evaluation, notes=tuple(description["notes"]))

    def rollback(self, name: str, number: int) -> LearnReport:
        """Use another version of a task; see `ConPET.rollback`."""
        record = self.snapshot.task(name)
        chosen = record.version(number)
        if chosen.active:
            return self._report(chosen, skipped=True)
        self._check_labels(name, chosen.labels)
        coming = known_task(chosen)
        work = self._work(name)
        work = replace(work, memory=[*work.memory, remember(chosen)])
        shared = self._learner.revise(known_task(record.active), coming, work)
        evaluation = self._evaluated(self._learner.state.followed_by(coming, shared), {name: sighted(chosen)})
        event = self._commit(evaluation, "rollback", name, activate=number, shared=shared)
        return self._report(self.snapshot.task(name).active, event=event, evaluation=evaluation)

    def remove(self, name: str) -> Evaluation | None:
        """Take a task out; see `ConPET.remove`."""
        leaving = known_task(self.snapshot.task(name).active)
        before = known_tasks(self.snapshot.versions)
        shared = {
            **self._learner.revise(leaving, None, self._work(name)),
            **self._learner.trimmed(before, [version for version in before if version.name != name]),
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

    def _present(self, name: str) -> VersionRecord | None:
        return next((task.active for task in self.snapshot.tasks if task.name == name), None)

    def _check_labels(self, name: str, labels: Sequence[str]) -> None:
        owners = {label: task.name for task in self.snapshot.tasks for label in task.active.labels}
        problems = [
            Problem(f"task {name!r}", None, f"label {label!r} is owned by the earlier task {owners[label]!r}")
            for label in labels
            if owners.get(label, name) != name
        ]
        if problems:
            raise DataError(f"task {name!r} cannot be learned; nothing was changed", problems)

    def _work(self, name: str, scratch: str | None = None) -> Work:
        others = [task for task in self.snapshot.tasks if task.name != name]
        return Work(
            remembered(others),
            self._costs,
            seed_of(self._learner.settings.seed, name),
            self._store.scratch(scratch) if scratch else None,
            self._progress,
        )

    def _counted(self, stage: str, total: int) -> Callable[[int], None]:
        return counted(self._progress, stage, total)

    def _evaluated(self, state: LearnerState, changed: Mapping[str, Remembered]) -> Evaluation | None:
        """Evaluate the next state on the stored tests, with those of the changed task in place of the stored ones."""
        if not self._evaluate:
            return None
        known = {task.name: sighted(task.active) for task in self.snapshot.tasks} | dict(changed)
        tests = {task.name: known[task.name] for task in state.tasks}
        with self._costs.stage("evaluation"):
            return evaluate_tests(self._learner.renewed(state), tests, self._progress)

    def _commit(
        self,
        evaluation: Evaluation | None,
        verb: str,
        task: str | None,
        *,
        detail: Mapping[str, Any] | None = None,
        **change: Any,
    ) -> EventRecord:
        new = change.get("new_version")
        hits, asked = (now - before for now, before in zip(_asked(self._learner), self._asked_before, strict=True))
        rows = recorded(
            evaluation,
            self._costs,
            parameters=new.parameters if new else 0,
            head_parameters=new.head_parameters if new else 0,
        )
        event = self._writer.commit(
            Change(
                verb,
                task,
                evaluations=rows.evaluations,
                references=rows.references,
                costs=rows.costs,
                confusion=rows.confusion,
                detail={**(detail or {}), CACHE: {"hits": hits, "asked": asked}},
                clear_scratch=tuple(self._store.scratches()),  # all of them began in a state that is no more
                **change,
            )
        )
        self.snapshot = self._store.snapshot()
        return event

    def _report(
        self,
        version: VersionRecord,
        *,
        event: EventRecord | None = None,
        evaluation: Evaluation | None = None,
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
            cost=tuple(self._costs.stages),
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


def _asked(learner: Learner) -> tuple[int, int]:
    """Return how many states the cache had, and of how many it was asked, so far."""
    cache = learner.backbone.cache
    return (cache.hits, cache.hits + cache.misses) if cache else (0, 0)


def _check_related(task: Task, present: VersionRecord) -> None:
    """Refuse a new version that has nothing to do with the present one: two tasks were given one name."""
    if task.kind == present.description["kind"] and set(task.labels) & set(present.labels):
        return
    raise DataError(
        f"a task {task.name!r} of kind {present.description['kind']} is learned already, and none of its labels comes "
        f"again here ({', '.join(task.labels[:3])}, ...); give this one another name, or remove the other first. "
        "Nothing was changed"
    )


def evaluate_tests(learner: Learner, tests: Mapping[str, Remembered], progress: Progress) -> Evaluation:
    """Evaluate a learner on stored test examples by task."""
    total = sum(source.count(Split.TEST) for source in tests.values())
    return Evaluator(learner, counted(progress, "evaluation", total)).evaluate(tests)


def evaluate_stored(
    learner: Learner, tasks: Sequence[TaskRecord], events: Sequence[EventRecord], progress: Progress
) -> Evaluation:
    """Evaluate a learner on the stored test examples; the result takes the place of the last event's own row."""
    evaluation = evaluate_tests(learner, {task.name: sighted(task.active) for task in tasks}, progress)
    *earlier, last = (event for event in events if event.verb != TUNE)
    row = Row(learned_by(last), evaluation.tallies)
    matrix = matrix_of(earlier).followed_by(row)
    return Evaluation(evaluation.tasks, evaluation.references, evaluation.confusion, matrix)
