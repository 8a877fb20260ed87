"""Make the change that a job asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from conpet.commands.generations import just_consolidated
from conpet.commands.prepare import check_tasks
from conpet.context import Progress
from conpet.data import MixedExamples
from conpet.errors import WorkspaceBusyError, plural
from conpet.evaluation.history import JOB
from conpet.jobs.data import read_examples, read_tasks, read_wanted
from conpet.jobs.records import Job, JobKind, JobProgress
from conpet.store import EventRecord, Store
from conpet.types import GateReport

if TYPE_CHECKING:
    from conpet.api import ConPET

_WAIT_SECONDS = 1.0
Done = TypeVar("Done")
Report = Callable[[JobProgress], None]
Log = Callable[[str], None]


def changes_of(store: Store, job_id: str) -> list[EventRecord]:
    """Return the changes that a job has already committed, oldest first."""
    return [event for event in store.events() if event.detail.get(JOB) == job_id]


def result_so_far(events: Sequence[EventRecord]) -> dict[str, Any]:
    """Return the result of a job from the changes that it committed."""
    tasks = [{"task": event.task, "version": event.version} for event in events if event.task is not None]
    return {"tasks": tasks, "generation": events[-1].id}


def committed(path: Path, job_id: str) -> dict[str, Any] | None:
    """Return the result of a job from the changes that it committed; None if there are none, or they cannot be read."""
    try:
        events = changes_of(Store.open(path), job_id)
    except OSError:
        return None
    return result_so_far(events) if events else None


class Performer:
    """Makes the change of one job.

    Args:
        workspace: The workspace, opened so that its events name the job.
        job: The job.
        data: The file of its checked data.
        report: Called with the progress; raises `StoppedError` to stop.
        log: Called with lines for the log.
    """

    def __init__(self, workspace: ConPET, job: Job, data: Path, report: Report, log: Log) -> None:
        self._workspace = workspace
        self._job = job
        self._data = data
        self._report = report
        self._log = log
        self._evaluate = bool(job.options.get("evaluate", True))
        self._gate = bool(job.options.get("gate", True))
        since = job.options.get("needed_since")
        self._needed_since = None if since is None else date.fromisoformat(since)
        self._former = changes_of(workspace.store, job.id)

    def run(self) -> dict[str, Any]:
        """Make the change, without what the job has committed in an earlier attempt, and return its result."""
        if self._former and not self._job.kind.in_parts:
            return {**result_so_far(self._former), **self._finished()}
        return {**self._made(self._job.options), "generation": self._workspace.store.generation()}

    def _made(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Make the change; return its result."""
        match self._job.kind:
            case JobKind.LEARN:
                result = self._learn(options)
            case JobKind.EXTEND:
                result = self._extend(options)
            case JobKind.REMOVE:
                result = self._remove(options["task"])
            case JobKind.ACTIVATE | JobKind.RESTORE:
                result = self._go_back(options)
            case JobKind.CONSOLIDATE:
                result = self._consolidate(options)
            case JobKind.PROMOTE:
                result = {"gate": self._promote(options["candidate"]).summary()}
            case JobKind.FORGET:
                result = self._forget(options)
            case JobKind.REVIEW:
                result = self._review(options)
            case JobKind.RENAME | JobKind.RETIRE | JobKind.SPLIT:
                result = self._relabel(options)
        return result

    def _consolidate(self, options: Mapping[str, Any]) -> dict[str, Any]:
        workspace, settings = self._workspace, {name: options[name] for name in ("layers",) if name in options}
        wanted = workspace.settings.changed({"consolidation": settings})
        if not options.get("again", False) and just_consolidated(workspace.store, wanted):
            self._log("nothing has changed since the last consolidation; nothing done")
            return {"consolidated": False}
        done = self._change(1, 1, None, workspace.consolidate, bound=options["bound"], settings=settings)
        self._log(str(done))
        return done.to_json()

    def _learn(self, options: Mapping[str, Any]) -> dict[str, Any]:
        tasks, batch = read_tasks(self._data), int(options.get("batch", 1))
        committed = {event.task: event.version for event in self._former}
        reports: list[dict[str, Any]] = [
            {"task": task.name, "version": committed[task.name]} for task in tasks if task.name in committed
        ]
        if reports:
            self._log(f"{len(reports)} of {len(tasks)} tasks were learned in an earlier attempt")
        remaining = [task for task in tasks if task.name not in committed]
        # The upload was checked in itself; only here are the stored examples at hand, and the tasks of earlier jobs.
        check_tasks(remaining, self._workspace.store.snapshot(), self._workspace.backbone)
        groups = [remaining[start : start + batch] for start in range(0, len(remaining), batch)]
        before = (len(tasks) - len(remaining)) // batch
        learn = partial(self._workspace.learn_batch, needed_since=self._needed_since)
        for number, group in enumerate(groups, start=1 + before):
            learned = self._change(number, before + len(groups), group[0].name, learn, group)
            for report in learned:
                self._log(str(report))
            reports += [report.to_json() for report in learned]
        return {"tasks": reports}

    def _remove(self, task: str) -> dict[str, Any]:
        evaluation = self._change(1, 1, task, self._workspace.remove, task)
        whole = evaluation.whole_accuracy if evaluation else None
        return {"tasks": [{"task": task, "version": None}], "whole_accuracy": whole}

    def _extend(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Learn more examples of known labels; with `name`, also new ones."""
        examples = read_examples(self._data)
        extend = partial(self._workspace.extend, examples)
        if "name" in options:
            mixed = MixedExamples(options["name"], examples)
            extend = partial(self._workspace.learn_mixed, mixed, into=options["into"])
        reports = self._change(1, 1, None, partial(extend, needed_since=self._needed_since))
        for report in reports:
            self._log(str(report))
        return {"tasks": [report.to_json() for report in reports]}

    def _review(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Learn what was reviewed; an earlier attempt may have learned a part of it."""
        learn = partial(self._workspace.learn_reviewed, into=options["into"], name=options["name"])
        reports = self._change(1, 1, None, learn)
        for report in reports:
            self._log(str(report))
        if not reports and not self._former:
            self._log("nothing to learn: no reviewed item has a right label that was not learned yet")
        former = [] if not self._former else result_so_far(self._former)["tasks"]
        return {"tasks": [*former, *(report.to_json() for report in reports)]}

    def _go_back(self, options: Mapping[str, Any]) -> dict[str, Any]:
        if self._job.kind is JobKind.ACTIVATE:
            arguments = (options["task"], options["version"])
            report = self._change(1, 1, options["task"], self._workspace.rollback, *arguments)
            return {"tasks": [report.to_json()]}
        evaluation = self._change(1, 1, None, self._workspace.restore, options["generation"])
        accuracy = evaluation.whole_accuracy if evaluation else None
        return {"restored": options["generation"], "whole_accuracy": accuracy}

    def _relabel(self, options: Mapping[str, Any]) -> dict[str, Any]:
        label, workspace = options["label"], self._workspace
        match self._job.kind:
            case JobKind.RENAME:
                report = self._change(1, 1, None, workspace.rename, label, options["name"])
            case JobKind.RETIRE:
                report = self._change(1, 1, None, workspace.retire, label)
            case _:
                split = partial(workspace.split_label, replace=options["replace"])
                report = self._change(1, 1, None, split, label, read_examples(self._data))
        self._log(str(report))
        return {"tasks": [report.to_json()]}

    def _change(
        self, number: int, total: int, task: str | None, change: Callable[..., Done], *arguments: Any, **options: Any
    ) -> Done:
        """Make one change; while another process changes the workspace, wait so that the job can be stopped."""
        made = partial(change, *arguments, **options, evaluate=self._evaluate, gate=self._gate)
        return self._waited(made, task, number, total)

    def _waited(self, change: Callable[..., Done], *about: Any) -> Done:
        """Make a change as soon as no other process changes the workspace; report progress, with what it is about."""

        def progress(stage: str, share: float) -> None:
            self._report(JobProgress(stage, share, *about))

        progress("waiting", 0.0)
        return waited(lambda seconds: change(wait_seconds=seconds, progress=progress), progress, self._log)

    def _forget(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Forget; the result and the log name nothing of what was forgotten."""
        wanted = read_wanted(self._data)
        days = wanted.pop("older_than_days")
        change = partial(
            self._workspace.forget,
            wanted.pop("rows"),
            **wanted,
            older_than=None if days is None else timedelta(days=days),
            **options,
        )
        report = self._waited(change)
        self._log(f"{plural(report.rows, 'row')} forgotten")
        if report.receipt is not None and report.receipt["still_read_by_a_process"]:
            self._log("a process still reads an earlier generation: the server deletes its files when it has ended")
        shown = report.to_json()
        kept = (
            "rows",
            "learned_again",
            "scope",
            "still_trained",
            "unmatched",
            "recorded",
            "reviewed",
            "seconds",
            "whole_accuracy",
            "receipt",
        )
        return {"tasks": [{"task": task.task, "rows": dict(task.rows)} for task in report.tasks]} | {
            key: shown[key] for key in kept
        }

    def _finished(self) -> dict[str, Any]:
        """Complete what an earlier attempt forgot; nothing for other kinds of jobs."""
        if self._job.kind is not JobKind.FORGET:
            return {}
        receipt = self._workspace.finish_forgetting()
        return {"receipt": None if receipt is None else dict(receipt)}

    def _promote(self, candidate: int) -> GateReport:
        def progress(stage: str, share: float) -> None:
            self._report(JobProgress(stage, share))

        progress("waiting", 0.0)
        change = partial(self._workspace.promote, candidate, gate=self._gate)
        report = waited(lambda seconds: change(wait_seconds=seconds), progress, self._log)
        self._log(f"candidate {candidate}: {report}")
        return report


def waited(change: Callable[[float], Done], progress: Progress, log: Log) -> Done:
    """Make a change as soon as no other process changes the workspace; `progress` is called every second."""
    told = False
    while True:
        try:
            return change(_WAIT_SECONDS)
        except WorkspaceBusyError:
            if not told:
                log("waiting for another change of the workspace")
            told = True
            progress("waiting", 0.0)
