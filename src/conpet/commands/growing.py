"""A workspace that outgrows what it was: more examples, finer labels, another method, fewer modules."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from conpet.commands.checks import mergeable, upgraded
from conpet.commands.relabelling import RelabelCommands
from conpet.data import Example, Examples, Task
from conpet.errors import AccuracyBoundError, ConfigError, DataError, Problem
from conpet.evaluation.evaluator import CHUNK
from conpet.evaluation.metrics import Tally
from conpet.methods.base import Method
from conpet.methods.dynamic import DynamicMethod
from conpet.methods.static import StaticMethod
from conpet.replay.memory import StoredExamples, Subset
from conpet.replay.memory_writer import examples_without_test_labels, stored_examples
from conpet.state.reading import origins, task_states
from conpet.state.state import ASSIGNMENT
from conpet.store import SideObject, VersionRecord
from conpet.types import Evaluation, LearnReport, MergeReport

_UNIT = "unit-"


class GrowingCommands(RelabelCommands):
    """Works out and commits every change; arguments as in `BaseCommands`."""

    # More examples

    def owners_of(self, examples: Examples | Task) -> list[str]:
        """Return the tasks whose labels examples have, in order, once it is clear that all of them can be extended.

        Raises:
            DataError: A label is not known, or an input is stored with another label.
            ConfigError: A task's texts are not stored.
        """
        owners = {label: task.name for task in self.snapshot.tasks for label in task.active.labels}
        given = {str(example.label) for some in _by_split(examples).values() for example in some}
        if unknown := sorted(given - owners.keys()):
            problems = [Problem("examples", None, f"no task has a label {label!r}") for label in unknown]
            raise DataError(
                "these labels are new; learn them as a task of their own (without --extend), or correct them. "
                "Nothing was changed",
                problems,
            )
        wanted = {owners[label] for label in given}
        names = [task.name for task in self.snapshot.tasks if task.name in wanted]
        for name in names:
            self._extended(name, examples)
        return names

    def extend(self, name: str, examples: Examples | Task) -> LearnReport:
        """Learn one task from its stored examples and new ones; see `ConPET.extend`."""
        task = self._extended(name, examples)
        present = self.snapshot.task(name).active
        if task is None:
            return self._report(present, skipped=True)
        return self._teach([task], "learn", derived_from=origins(present))[0]

    def _extended(self, name: str, examples: Examples | Task) -> Task | None:
        """Return a task with new examples beside its stored ones, or None where there are no new ones."""
        present = self.snapshot.task(name).active
        stored = self._stored(present)
        labels = {example.input_key: example.label for some in stored.values() for example in some}
        own = {
            subset: [example for example in some if example.label in present.labels]
            for subset, some in _by_split(examples).items()
        }
        problems = [
            Problem(
                f"examples ({subset})",
                None,
                f"label {one.label!r} contradicts what is stored: {labels[one.input_key]!r}",
            )
            for subset, some in own.items()
            for one in some
            if labels.get(one.input_key, one.label) != one.label
        ]
        if problems:
            raise DataError(f"task {name!r} cannot be extended; nothing was changed", problems)
        new = {subset: _once(one for one in some if one.input_key not in labels) for subset, some in own.items()}
        if not any(new.values()):
            return None
        joined = {subset: [*stored[subset], *new[subset]] for subset in Subset}
        return self._again(present, joined, present.labels, ())

    # Finer labels

    def split_label(self, label: str, examples: Examples | Task, replacing: bool) -> LearnReport:
        """Put finer labels in the place of one; see `ConPET.split_label`."""
        record = self._owner(label)
        given = _by_split(examples)
        finer = {str(example.label) for some in given.values() for example in some}
        for one in sorted(finer - {label}):
            self._check_new(one)
        if len(finer) < 2:
            raise DataError(
                f"{label!r} is to be split into {', '.join(map(repr, sorted(finer)))} alone; give examples of two "
                "labels or more, or rename it. Nothing was changed"
            )
        stored = self._stored(record.active)
        answers = {example.input_key: example.label for some in given.values() for example in some}
        coarse = {example.input_key for some in stored.values() for example in some if example.label == label}
        if coarse and not replacing and coarse.isdisjoint(answers):
            raise DataError(
                f"none of the {len(coarse):,} stored examples of label {label!r} is among those given, so all would be "
                "dropped; is it the right label? If so, ask for it (`--replace`). Nothing was changed"
            )
        self._check_not_elsewhere(label, given)
        joined, dropped = {}, 0
        for subset in Subset:
            kept = [one for one in stored[subset] if one.label != label]
            old = [one for one in stored[subset] if one.label == label]
            moved = [one.labelled(answers[one.input_key]) for one in old if one.input_key in answers]
            dropped += len(old) - len(moved)
            joined[subset] = [*kept, *moved, *_once(one for one in given[subset] if one.input_key not in coarse)]
        note = (f"{dropped:,} stored examples of the label that was split have no finer one and were dropped",)
        others = [one for one in record.active.labels if one != label]
        task = self._again(record.active, joined, others, note if dropped else ())
        return self._teach([task], "split", derived_from=origins(record.active))[0]

    def _check_not_elsewhere(self, label: str, given: Mapping[Subset, Sequence[Example]]) -> None:
        """Refuse inputs that are stored under another label than the one that is split, in any task."""
        elsewhere = {
            example.input_key: f"{example.label!r} of task {task.name!r}"
            for task in self.snapshot.tasks
            for some in self._stored(task.active).values()
            for example in some
            if example.label != label
        }
        problems = [
            Problem(f"examples ({subset})", None, f"an input of {one.label!r} is stored as {elsewhere[one.input_key]}")
            for subset, some in given.items()
            for one in some
            if one.input_key in elsewhere
        ]
        if problems:
            raise DataError(f"label {label!r} cannot be split so; nothing was changed", problems)

    def _stored(self, version: VersionRecord) -> dict[Subset, list[Example]]:
        """Return the stored examples of a version; `ConfigError` where their texts are not kept."""
        memory = stored_examples(version)  # the task is made anew of them, test examples too
        return {subset: memory.examples(subset) for subset in Subset}

    def _again(
        self,
        present: VersionRecord,
        examples: Mapping[Subset, Sequence[Example]],
        staying: Iterable[str],
        notes: Sequence[str],
    ) -> Task:
        """Return a task as it was learned, with other examples; the labels that stay must all have some to train on."""
        gone = sorted(set(staying) - {str(example.label) for example in examples[Subset.TRAIN]})
        if gone:
            problems = [Problem(f"label {label!r}", None, "has no training example left") for label in gone]
            raise DataError(
                f"task {present.task!r} cannot be learned again: the limit of the replay memory let all training "
                "examples of some labels go; add new ones of them first, or together with yours (`conpet learn "
                "WORKSPACE FILE --extend`), or retire these labels. Nothing was changed",
                problems,
            )
        description, stored = present.description, examples_without_test_labels(present).count(Subset.TRAIN)
        learned = description["counts"][Subset.TRAIN]
        lost = (
            f"of the {learned:,} training examples of version {present.number}, {stored:,} were still stored: "
            "the replay memory has no room for more"
        )
        return Task(
            present.task,
            tuple(examples[Subset.TRAIN]),
            tuple(examples[Subset.VALIDATION]),
            tuple(examples[Subset.TEST]),
            template=description["template"],
            settings=description["settings"],
            notes=(*notes, lost) if stored < learned else tuple(notes),
        )

    # From one module for all to one for each

    def upgrade(self, method: str, fusion: str, selector: str | None) -> Evaluation | None:
        """Freeze a static method's module and go on with new ones; see `ConPET.upgrade`."""
        settings, static = upgraded(self.snapshot, method, fusion, selector), self._learner
        assert isinstance(static, StaticMethod), "only such a workspace can be upgraded"  # noqa: S101
        shared = dict(static.frozen())
        self._learner = dynamic = DynamicMethod(static.backbone, settings, static.state.sharing(shared))
        shared |= dynamic.calibrated(self._context(""))
        evaluation = self._evaluated(static.state.sharing(shared), {})
        # The module that served versions not in use is no more: it was trained on.
        older = [version for version in self.snapshot.versions if not version.active]
        self._commit(
            evaluation,
            "upgrade",
            None,
            side_objects=tuple(SideObject(one.task, one.number, ASSIGNMENT, None) for one in older),
            shared=shared,
            settings=settings.to_json(),
            detail={
                "from": static.name,
                "to": method,
                "fusion": settings.fusion.name,
                "selector": settings.selector.name,
            },
        )
        return evaluation

    # From several modules to one

    def merge(self, names: Sequence[str], bound: float) -> MergeReport:
        """Let tasks share one module; see `ConPET.merge`."""
        wanted, learner = mergeable(self.snapshot, names, bound), self._learner
        assert isinstance(learner, DynamicMethod), "only tasks of such a workspace can be merged"  # noqa: S101
        slot, sources = self._free_slot(), self._sources(wanted)
        merging = "|".join(sorted(sources)).encode()
        scratch = f"{hashlib.sha256(merging).hexdigest()[:32]}-{self.snapshot.generation}"
        context = replace(self._context(""), scratch=self._store.scratch(scratch))
        merged = learner.merged(sources, slot, context)
        before, after = (_validated(one, sources.values()) for one in (learner, learner.with_state(merged.state)))
        _check_bound(before, after, bound, sources)
        versions = task_states(self.snapshot.versions)
        active = {task.name: task for task in merged.state.tasks}
        following = [
            active[task.name] if version.active else task
            for version, task in zip(self.snapshot.versions, versions, strict=True)
        ]
        shared = {**merged.shared, **learner.prune_labels(versions, following)}
        bytes_before = self._store.events()[-1].bytes_stored
        evaluation = self._evaluated(merged.state.sharing(shared), {})
        event = self._commit(
            evaluation,
            "merge",
            None,
            side_objects=tuple(
                SideObject(name, self.snapshot.task(name).active.number, part, artifact)
                for name, objects in merged.objects.items()
                for part, artifact in objects.items()
            ),
            shared=shared,
            detail={"tasks": list(sources), "steps": merged.steps, "bound": bound},
        )
        return MergeReport(tuple(sources), before, after, bytes_before, event.bytes_stored, evaluation)

    def _sources(self, names: Sequence[str]) -> dict[str, StoredExamples]:
        """Return the examples of tasks to be merged, by name."""
        records = [self.snapshot.task(name).active for name in names]
        units = {task.unit for task in task_states(records)}
        if len(units) == 1 and None not in units:
            raise ConfigError(f"{', '.join(sorted(names))} share one module already; nothing to merge")
        sources = {record.task: examples_without_test_labels(record) for record in records}
        problems = [
            Problem(f"task {name!r}", None, f"has no {subset} examples stored")
            for name, source in sources.items()
            for subset in (Subset.TRAIN, Subset.VALIDATION)
            if not source.count(subset)
        ]
        if problems:
            raise DataError(
                "merging needs examples to learn from and validation examples to judge by; learn these tasks again "
                "with some, or leave them out. Nothing was changed",
                problems,
            )
        return sources

    def _free_slot(self) -> str:
        used = [int(slot.removeprefix(_UNIT)) for slot in self.snapshot.shared if slot.startswith(_UNIT)]
        return f"{_UNIT}{max(used, default=0) + 1}"


def _validated(learner: Method, sources: Iterable[StoredExamples]) -> Tally:
    """Return a learner's right answers on the validation examples of tasks, all labels competing."""
    correct = total = 0
    for source in sources:
        labels = source.labels(Subset.VALIDATION)
        for start in range(0, len(labels), CHUNK):
            rows = range(start, min(start + CHUNK, len(labels)))
            best = learner.score(learner.encode_stored([(source, rows)], Subset.VALIDATION), source.kind).labels.argmax(
                dim=1
            )
            found = [learner.labels[column] for column in best.tolist()]
            correct += sum(one == labels[row] for row, one in zip(rows, found, strict=True))
        total += len(labels)
    return Tally(correct, total)


def _check_bound(before: Tally, after: Tally, bound: float, names: Iterable[str]) -> None:
    fall = 100 * (before.correct - after.correct) / before.total
    if fall > bound:
        raise AccuracyBoundError(
            f"one module for {', '.join(names)} answers {after.correct / after.total:.1%} of their {after.total:,} "
            f"validation examples right, the modules they have {before.correct / before.total:.1%}: a fall of "
            f"{fall:.1f} points, where {bound:g} are allowed. Nothing was changed; allow more (`--bound`), or merge "
            "others"
        )


def _by_split(examples: Examples | Task) -> dict[Subset, tuple[Example, ...]]:
    return {Subset.TRAIN: examples.train, Subset.VALIDATION: examples.validation, Subset.TEST: examples.test}


def _once(examples: Iterable[Example]) -> list[Example]:
    """Return examples without the second of any two with the same input."""
    return list({example.input_key: example for example in reversed(list(examples))}.values())[::-1]
