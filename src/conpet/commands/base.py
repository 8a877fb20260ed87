"""What every command shares: the transaction it works in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from conpet.commands.rows import recorded
from conpet.config import Settings
from conpet.context import Progress, TrainContext
from conpet.cost import CostLedger, Meter, StageCost
from conpet.evaluation.evaluator import counted, evaluate
from conpet.evaluation.history import CACHE, matrix_of
from conpet.evaluation.metrics import AccuracyMatrix, backward_transfer, forgetting
from conpet.methods.base import Method
from conpet.replay.memory import StoredExamples, Subset
from conpet.replay.memory_writer import past_examples, stored_examples
from conpet.state.live import LiveState
from conpet.state.reading import seed_of
from conpet.state.state import State
from conpet.store import Change, EventRecord, Snapshot, Store, VersionRecord, Writer
from conpet.types import Evaluation, LearnReport


class Transaction:
    """One change of a workspace, from the state it starts in to the commit.

    A command is a function of a transaction: it works out the next state, evaluates it and commits it. Until then the
    workspace is as before.

    Args:
        store: The workspace's store.
        writer: The right to write.
        live: The live state.
        meter: Counts what the change computes.
        progress: Called with the name of a stage and the share of it that is done.
        evaluate: Whether the change ends with an evaluation of all tasks.

    Attributes:
        method: The method.
        state: The state; after the commit, the one it made.
        snapshot: The store in that state.
        costs: What the stages cost.
    """

    def __init__(
        self, store: Store, writer: Writer, live: LiveState, meter: Meter, progress: Progress, *, evaluate: bool
    ) -> None:
        present = live.now()
        self.store = store
        self.method: Method = present.method
        self.state: State = present.state
        self.snapshot: Snapshot = present.snapshot
        self.progress = progress
        self.costs = CostLedger()
        self._writer = writer
        self._live = live
        self._evaluate = evaluate
        self._meter = meter

    @property
    def settings(self) -> Settings:
        """The workspace's settings."""
        return self.method.settings

    def context(self, *names: str, scratch: str | None = None) -> TrainContext:
        """Return the circumstances of a change to tasks; its seed is that of the first.

        Args:
            names: Names of the tasks; the examples of all others are its memory.
            scratch: Name of the folder for checkpoints, or None.
        """
        others = [task for task in self.snapshot.tasks if task.name not in names]
        return TrainContext(
            past_examples(others),
            self.costs,
            seed_of(self.settings.seed, names[0] if names else ""),
            self.store.scratch(scratch) if scratch else None,
            self.progress,
        )

    def scratch_name(self, parts: Sequence[str]) -> str:
        """Return the name of the folder for checkpoints of work on some data.

        Training may be resumed only from the very state it started in.
        """
        digest = parts[0] if len(parts) == 1 else hashlib.sha256("|".join(parts).encode()).hexdigest()
        return f"{digest[:32]}-{self.snapshot.generation}"

    def counted(self, stage: str, total: int) -> Callable[[int], None]:
        """Return a function that adds up examples that are done and reports their share of the total."""
        return counted(self.progress, stage, total)

    def evaluate(self, state: State, changed: Mapping[str, StoredExamples] | None = None) -> Evaluation | None:
        """Evaluate the next state, if that was asked for.

        Args:
            state: The next state.
            changed: Test examples of tasks whose stored ones are to be replaced, by name.
        """
        if not self._evaluate:
            return None
        known = {task.name: stored_examples(task.active) for task in self.snapshot.tasks} | dict(changed or {})
        tests = {task.name: known[task.name] for task in state.tasks}
        with self.costs.stage("evaluation"):
            return evaluate_tests(self.method, state, tests, self.progress)

    def commit(
        self, state: State | None, evaluation: Evaluation | None, verb: str, task: str | None = None, **change: Any
    ) -> EventRecord:
        """Commit one change; see `commit_all`.

        Args:
            state: The state it makes, or None where it is to be read from the store (other settings, say).
            evaluation: How that state does, or None.
            verb: What is done, for the history.
            task: The task it is about.
            change: Further fields of `conpet.store.Change`.
        """
        return self.commit_all(state, evaluation, [Change(verb, task, **change)], [self.costs.stages])[0]

    def commit_all(
        self,
        state: State | None,
        evaluation: Evaluation | None,
        changes: Sequence[Change],
        costs: Sequence[Sequence[StageCost]],
    ) -> list[EventRecord]:
        """Make changes visible in one step, each with its costs, and put the new state in.

        The last event holds the evaluation.
        """
        complete = []
        for number, (change, stages) in enumerate(zip(changes, costs, strict=True), start=1):
            new = change.new_version
            rows = recorded(
                evaluation if number == len(changes) else None,
                stages,
                parameters=new.parameters if new else 0,
                head_parameters=new.head_parameters if new else 0,
            )
            complete.append(
                replace(
                    change,
                    metrics=rows.metrics,
                    references=rows.references,
                    costs=rows.costs,
                    confusion=rows.confusion,
                )
            )
        complete[-1] = replace(
            complete[-1],
            detail={**complete[-1].detail, CACHE: {"hits": self._meter.cache_hits, "asked": self._meter.cache_lookups}},
            clear_scratch=tuple(self.store.scratches()),  # all of them started in a state that is no more
        )
        with self._live.committing():
            events = self._writer.commit_all(complete)
            self.snapshot = self.store.snapshot()
            if state is not None:
                live = self._live.install(self.method, state, self.snapshot)
            else:
                live = self._live.reload(self.snapshot)
        self.method, self.state = live.method, live.state
        return events

    def report(
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
        """Return what a change did to a task."""
        tasks = self.snapshot.tasks
        matrix = matrix_of(self.store.events()) if evaluation else AccuracyMatrix()
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
            cost=tuple(self.costs.stages if cost is None else cost),
            trainable_parameters=version.parameters,
            head_parameters=version.head_parameters,
            backbone_parameters=self.method.backbone.parameters,
            bytes_stored=event.bytes_stored if event else 0,
            notes=tuple(notes),
        )


def evaluate_tests(method: Method, state: State, tests: Mapping[str, StoredExamples], progress: Progress) -> Evaluation:
    """Evaluate a state on stored test examples by task."""
    total = sum(source.count(Subset.TEST) for source in tests.values())
    return evaluate(method, state, tests, counted(progress, "evaluation", total))
