"""Compare the answers to held-out examples before and after a change, for the gate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from conpet.artifact import Artifact
from conpet.commands.held_out import Drawn, answer_held_out, choose, nearest_classes
from conpet.commands.rows import held_out_artifact, stored_held_out
from conpet.evaluation.answers import AnsweredExample
from conpet.evaluation.gate import AnswerPair, GateReport, compare
from conpet.methods.base import Method
from conpet.replay.memory import StoredExamples, Subset
from conpet.replay.memory_writer import examples_without_test_labels
from conpet.state.live import Live
from conpet.state.state import State

NEAREST = 10
"""Number of labels most like the new ones whose held-out examples are all compared."""
_Answers = dict[str, dict[int, AnsweredExample]]
"""Answers by task and row."""


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """What the gate found about a change.

    Attributes:
        report: The comparison.
        answers: The answers after the change, with which the next change is compared.
        right: Numbers of held-out examples of earlier and new labels, of those right before, and of those right after.
    """

    report: GateReport
    answers: Artifact
    right: tuple[int, int, int]


class Gate:
    """Compares the present state with the next one on held-out examples.

    Args:
        present: The present generation.
        method: The method of the next state.
        state: The next state.
        changed: Examples of tasks that may differ from the present ones, by name: those of new tasks and versions.
        returned: Numbers of the versions that a change goes back to, by task. These are compared on their own held-out
            examples: those of the present version may be what is wrong.
        counted: Called with the number of examples to answer; returns a function that takes numbers of examples done.
    """

    def __init__(
        self,
        present: Live,
        method: Method,
        state: State,
        changed: Mapping[str, StoredExamples],
        returned: Mapping[str, int],
        counted: Callable[[int], Callable[[int], None]],
    ) -> None:
        self._present = present
        self._method = method
        self._state = state
        self._counted = counted
        following = {task.name for task in state.tasks}
        records = [record for record in present.snapshot.tasks if record.name in following]
        self._former = {record.name: examples_without_test_labels(record.active) for record in records}
        self._changed = {
            name: source.without_test_labels()
            for name, source in changed.items()
            if name not in self._former or source.reader.key != self._former[name].reader.key
        }
        self._returned = {
            name: number for name, number in returned.items() if name in self._changed and name in self._former
        }
        self._compared = self._former | {name: self._changed[name] for name in self._returned}

    def judge(self) -> Judged:
        """Answer the examples with the next state, and with the present one where that was not done before; compare."""
        before = self._with_nearest(self._before())
        coming, kept = self._coming(before)
        of_returned = self._present_answers([one for one in coming if one.source.task in self._returned])
        before = {name: rows for name, rows in before.items() if name not in self._returned} | of_returned
        labels = self._common_labels()
        unfair = {name: self._unfair(name, before.get(name, {})) for name in self._changed if name in self._former}
        compared = {
            name: {
                row: one
                for row, one in before.get(name, {}).items()
                if one.label in labels and row not in unfair.get(name, ())
            }
            for name in self._former
        }
        earlier = [Drawn(source, _labels(compared[name])) for name, source in self._compared.items()]
        done = self._counted(sum(len(one.classes) for one in (*earlier, *coming)))
        after = answer_held_out(self._method, self._state, earlier, done)
        own = answer_held_out(self._method, self._state, coming, done)
        pairs = [AnswerPair(compared[str(one.task)][one.row - 1], one) for one in after]
        config = self._present.method.settings.gate
        report = GateReport(
            generation=self._present.generation,
            config=config,
            comparisons=compare(pairs, labels, set(self._state.classes) - set(self._present.state.classes), config),
            changed=tuple(pair for pair in pairs if pair.changed),
            available=sum(source.count(Subset.VALIDATION) for source in self._compared.values()),
            left_out=sum(map(len, unfair.values())),
            versions=self._returned,
        )
        unchanged = [one for one in after if one.task not in self._changed]
        rows = {(task, row) for task, chosen in kept.items() for row in chosen}
        answers = held_out_artifact([one for one in (*unchanged, *own) if (one.task, one.row - 1) in rows])
        new = [one for one in own if one.label not in labels]
        right_after = sum(pair.after.correct for pair in pairs) + sum(one.correct for one in new)
        right = (len(pairs) + len(new), sum(pair.before.correct for pair in pairs), right_after)
        return Judged(report, answers, right)

    def _before(self) -> _Answers:
        """Return the present answers to held-out examples: those stored, or computed if there are none."""
        live = self._present
        stored = stored_held_out(live.snapshot)
        if stored is not None:
            return _by_row(stored)
        tasks = {task.name: task for task in live.state.tasks}
        drawn = {
            record.name: Drawn.all_of(examples_without_test_labels(record.active), tasks[record.name])
            for record in live.snapshot.tasks
        }
        rows = self._choose({name: one.classes for name, one in drawn.items()})
        return self._present_answers([drawn[name].only(own) for name, own in rows.items()])

    def _present_answers(self, drawn: Sequence[Drawn]) -> _Answers:
        """Answer examples with the present state."""
        live = self._present
        done = self._counted(sum(len(one.classes) for one in drawn))
        return _by_row(answer_held_out(live.method, live.state, drawn, done))

    def _with_nearest(self, before: _Answers) -> _Answers:
        """Add the answers to all held-out examples of the labels most like those that the change learns.

        Where the limit on all examples leaves few of each label, a new task would take answers unseen.
        """
        if sum(map(len, before.values())) < self._present.method.settings.gate.examples:
            return before
        new = {name for task in self._state.tasks if task.name in self._changed for name in task.classes}
        labels = self._common_labels()
        near = nearest_classes(self._method.statistics(self._state), new, NEAREST) if new else []
        wanted = {label for label in near if label in labels}
        tasks = {task.name: task for task in self._present.state.tasks}
        drawn = []
        for name in dict.fromkeys(labels[label] for label in near if label in wanted):
            known = before.get(name, {})
            every = Drawn.all_of(self._former[name], tasks[name])
            own = {row: label for row, label in every.classes.items() if label in wanted}
            rows = self._choose({name: own}, total=len(own)).get(name, [])
            drawn.append(every.only(row for row in rows if row not in known))
        added = self._present_answers(drawn)
        return {name: {**before.get(name, {}), **added.get(name, {})} for name in (*before, *added)}

    def _coming(self, before: _Answers) -> tuple[list[Drawn], dict[str, list[int]]]:
        """Choose the examples that the next change is compared on.

        Returns:
            Those of new and changed tasks; the rows of all tasks, of which the others are among `before`.
        """
        tasks = {task.name: task for task in self._state.tasks}
        new = {name: Drawn.all_of(source, tasks[name]) for name, source in self._changed.items()}
        known = {name: _labels(before.get(name, {})) for name in self._former if name not in new}
        rows = self._choose({**known, **{name: one.classes for name, one in new.items()}})
        return [one.only(rows.get(name, ())) for name, one in new.items()], rows

    def _choose(self, classes: Mapping[str, Mapping[int, str]], total: int | None = None) -> dict[str, list[int]]:
        settings = self._present.method.settings
        limits = settings.gate
        most = limits.examples if total is None else total
        return choose(classes, per_class=limits.examples_per_label, total=most, seed=settings.seed)

    def _common_labels(self) -> dict[str, str]:
        """Return the task of each class that both states know."""
        following = set(self._state.classes)
        return {name: task.name for task in self._present.state.tasks for name in task.classes if name in following}

    def _unfair(self, name: str, answers: Mapping[int, AnsweredExample]) -> set[int]:
        """Return the rows of a changed task on which the two states cannot be compared.

        The other version was trained on them, or a new version gives them another label. Without texts, that may be so
        of any.
        """
        former, new = self._former[name], self._changed[name]
        if former.latent or new.latent:
            return set(answers)
        if name in self._returned:
            former, new = new, former
        trained = {example.input_key for example in new.examples(Subset.TRAIN)}
        corrected = () if name in self._returned else new.examples(Subset.VALIDATION)
        labels = {example.input_key: example.label for example in corrected}
        rows = sorted(answers)
        return {
            row
            for row, example in zip(rows, former.chosen(Subset.VALIDATION, rows), strict=True)
            if example.input_key in trained or labels.get(example.input_key, example.label) != example.label
        }


def _labels(answers: Mapping[int, AnsweredExample]) -> dict[int, str]:
    return {row: one.label for row, one in answers.items()}


def _by_row(answers: Iterable[AnsweredExample]) -> _Answers:
    found: _Answers = {}
    for one in answers:
        found.setdefault(str(one.task), {})[one.row - 1] = one
    return found
