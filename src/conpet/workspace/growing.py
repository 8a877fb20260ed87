"""A workspace that outgrows what it was: more examples, finer labels, another method, fewer modules."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from conpet.data import Example, Examples, Task
from conpet.errors import AccuracyBoundError, ConfigError, DataError, Problem
from conpet.evaluation.metrics import Tally
from conpet.learners.base import Learner
from conpet.learners.dynamic import DynamicLearner
from conpet.learners.state import UNIT
from conpet.learners.static import StaticLearner
from conpet.replay.memory import Remembered, Split
from conpet.store import SideObject, VersionRecord
from conpet.workspace.checking import mergeable, upgraded
from conpet.workspace.evaluating import CHUNK
from conpet.workspace.reading import known_tasks, origins
from conpet.workspace.relabelling import Relabeller
from conpet.workspace.remembering import remember, sighted
from conpet.workspace.results import Evaluation, LearnReport, MergeReport

_UNIT = "unit-"


class Grower(Relabeller):
    """Works out and commits every change; arguments as in `Changer`."""

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
            split: [example for example in some if example.label in present.labels]
            for split, some in _by_split(examples).items()
        }
        problems = [
            Problem(
                f"examples ({split})",
                None,
                f"label {one.label!r} contradicts what is stored: {labels[one.input_key]!r}",
            )
            for split, some in own.items()
            for one in some
            if labels.get(one.input_key, one.label) != one.label
        ]
        if problems:
            raise DataError(f"task {name!r} cannot be extended; nothing was changed", problems)
        new = {split: _once(one for one in some if one.input_key not in labels) for split, some in own.items()}
        if not any(new.values()):
            return None
        joined = {split: [*stored[split], *new[split]] for split in Split}
        return self._again(present, joined, present.labels, ())

    # Finer labels

    def split(self, label: str, examples: Examples | Task, replacing: bool) -> LearnReport:
        """Put finer labels in the place of one; see `ConPET.split`."""
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
        for split in Split:
            kept = [one for one in stored[split] if one.label != label]
            old = [one for one in stored[split] if one.label == label]
            moved = [one.labelled(answers[one.input_key]) for one in old if one.input_key in answers]
            dropped += len(old) - len(moved)
            joined[split] = [*kept, *moved, *_once(one for one in given[split] if one.input_key not in coarse)]
        note = (f"{dropped:,} stored examples of the label that was split have no finer one and were dropped",)
        others = [one for one in record.active.labels if one != label]
        task = self._again(record.active, joined, others, note if dropped else ())
        return self._teach([task], "split", derived_from=origins(record.active))[0]

    def _check_not_elsewhere(self, label: str, given: Mapping[Split, Sequence[Example]]) -> None:
        """Refuse inputs that are stored under another label than the one that is split, in any task."""
        elsewhere = {
            example.input_key: f"{example.label!r} of task {task.name!r}"
            for task in self.snapshot.tasks
            for some in self._stored(task.active).values()
            for example in some
            if example.label != label
        }
        problems = [
            Problem(f"examples ({split})", None, f"an input of {one.label!r} is stored as {elsewhere[one.input_key]}")
            for split, some in given.items()
            for one in some
            if one.input_key in elsewhere
        ]
        if problems:
            raise DataError(f"label {label!r} cannot be split so; nothing was changed", problems)

    def _stored(self, version: VersionRecord) -> dict[Split, list[Example]]:
        """Return the stored examples of a version; `ConfigError` where their texts are not kept."""
        memory = sighted(version)  # the task is made anew of them, test examples too
        return {split: memory.examples(split) for split in Split}

    def _again(
        self,
        present: VersionRecord,
        examples: Mapping[Split, Sequence[Example]],
        staying: Iterable[str],
        notes: Sequence[str],
    ) -> Task:
        """Return a task as it was learned, with other examples; the labels that stay must all have some to train on."""
        gone = sorted(set(staying) - {str(example.label) for example in examples[Split.TRAIN]})
        if gone:
            problems = [Problem(f"label {label!r}", None, "has no training example left") for label in gone]
            raise DataError(
                f"task {present.task!r} cannot be learned again: the limit of the replay memory let all training "
                "examples of some labels go; add new ones of them first, or together with yours (`conpet learn "
                "WORKSPACE FILE --extend`), or retire these labels. Nothing was changed",
                problems,
            )
        description, stored = present.description, remember(present).count(Split.TRAIN)
        learned = description["counts"][Split.TRAIN]
        lost = (
            f"of the {learned:,} training examples of version {present.number}, {stored:,} were still stored: "
            "the replay memory has no room for more"
        )
        return Task(
            present.task,
            tuple(examples[Split.TRAIN]),
            tuple(examples[Split.VALIDATION]),
            tuple(examples[Split.TEST]),
            template=description["template"],
            settings=description["settings"],
            notes=(*notes, lost) if stored < learned else tuple(notes),
        )

    # From one module for all to one for each

    def upgrade(self, method: str, rule: str, selector: str | None) -> Evaluation | None:
        """Freeze a static method's module and go on with new ones; see `ConPET.upgrade`."""
        settings, static = upgraded(self.snapshot, method, rule, selector), self._learner
        assert isinstance(static, StaticLearner), "only such a workspace can be upgraded"  # noqa: S101
        shared = dict(static.frozen())
        self._learner = dynamic = DynamicLearner(static.backbone, settings, static.state.sharing(shared))
        shared |= dynamic.calibrated(self._work(""))
        evaluation = self._evaluated(static.state.sharing(shared), {})
        # The module that served versions not in use is no more: it was trained on.
        older = [version for version in self.snapshot.versions if not version.active]
        self._commit(
            evaluation,
            "upgrade",
            None,
            side_objects=tuple(SideObject(one.task, one.number, UNIT, None) for one in older),
            shared=shared,
            settings=settings.model_dump(mode="json"),
            detail={"from": static.name, "to": method, "rule": settings.rule, "selector": settings.selector},
        )
        return evaluation

    # From several modules to one

    def merge(self, names: Sequence[str], bound: float) -> MergeReport:
        """Let tasks share one module; see `ConPET.merge`."""
        wanted, learner = mergeable(self.snapshot, names, bound), self._learner
        assert isinstance(learner, DynamicLearner), "only tasks of such a workspace can be merged"  # noqa: S101
        slot, sources = self._free_slot(), self._sources(wanted)
        merging = "|".join(sorted(sources)).encode()
        scratch = f"{hashlib.sha256(merging).hexdigest()[:32]}-{self.snapshot.generation}"
        work = replace(self._work(""), scratch=self._store.scratch(scratch))
        merged = learner.merged(sources, slot, work)
        before, after = (_validated(one, sources.values()) for one in (learner, learner.renewed(merged.state)))
        _check_bound(before, after, bound, sources)
        versions = known_tasks(self.snapshot.versions)
        active = {task.name: task for task in merged.state.tasks}
        following = [
            active[task.name] if version.active else task
            for version, task in zip(self.snapshot.versions, versions, strict=True)
        ]
        shared = {**merged.shared, **learner.trimmed(versions, following)}
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

    def _sources(self, names: Sequence[str]) -> dict[str, Remembered]:
        """Return the examples of tasks to be merged, by name."""
        records = [self.snapshot.task(name).active for name in names]
        units = {task.unit for task in known_tasks(records)}
        if len(units) == 1 and None not in units:
            raise ConfigError(f"{', '.join(sorted(names))} share one module already; nothing to merge")
        sources = {record.task: remember(record) for record in records}
        problems = [
            Problem(f"task {name!r}", None, f"has no {split} examples stored")
            for name, source in sources.items()
            for split in (Split.TRAIN, Split.VALIDATION)
            if not source.count(split)
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


def _validated(learner: Learner, sources: Iterable[Remembered]) -> Tally:
    """Return a learner's right answers on the validation examples of tasks, all labels competing."""
    correct = total = 0
    for source in sources:
        labels = source.labels(Split.VALIDATION)
        for start in range(0, len(labels), CHUNK):
            rows = range(start, min(start + CHUNK, len(labels)))
            best = learner.score(learner.recalled([(source, rows)], Split.VALIDATION), source.kind).labels.argmax(dim=1)
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


def _by_split(examples: Examples | Task) -> dict[Split, tuple[Example, ...]]:
    return {Split.TRAIN: examples.train, Split.VALIDATION: examples.validation, Split.TEST: examples.test}


def _once(examples: Iterable[Example]) -> list[Example]:
    """Return examples without the second of any two with the same input."""
    return list({example.input_key: example for example in reversed(list(examples))}.values())[::-1]
