"""Learn examples of known and new labels: new versions of the known tasks, and a new task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from conpet.commands.base import Transaction
from conpet.commands.checks import check_answers, check_type
from conpet.commands.extend import all_stored, by_subset, extended
from conpet.commands.learn import learn_checked
from conpet.data import MixedExamples, Task
from conpet.data.checks import check_new_labels, locate
from conpet.data.held_out import with_held_out
from conpet.data.labelled import SUBSETS
from conpet.errors import DataError
from conpet.replay.memory import Subset
from conpet.state.reading import origins
from conpet.types import Addition, LearnReport


@dataclass(frozen=True, slots=True)
class MixedOptions:
    """How new labels are learned.

    Attributes:
        into: The known task that they are added to, or None for a new task.
        seed: Seed for splitting held-out examples of a new task off, or None to split nothing off.
    """

    into: str | None
    seed: int | None


@dataclass(frozen=True, slots=True)
class _Share:
    """The part of the examples that goes to one task; `task` is None if nothing is new."""

    addition: Addition
    task: Task | None
    derived_from: Sequence[str]


def additions(tx: Transaction, mixed: MixedExamples, options: MixedOptions) -> tuple[list[Addition], bool]:
    """Return what each task gets, after all checks, and whether all can be learned in one change."""
    shares = _shares(tx, mixed, options)
    one_change = sum(share.task is not None for share in shares) < 2 or not tx.method.batch_blocker(tx.state)
    return [share.addition for share in shares], one_change


def learn_mixed(
    tx: Transaction, mixed: MixedExamples, options: MixedOptions, names: Sequence[str]
) -> list[LearnReport]:
    """Learn the examples of some of the tasks that `additions` returned, in one change; see `ConPET.learn_mixed`."""
    shares = [share for share in _shares(tx, mixed, options) if share.addition.task in names]
    tasks = [share.task for share in shares if share.task is not None]
    derived_from = {share.addition.task: share.derived_from for share in shares}
    reports = learn_checked(tx, tasks, "learn", derived_from=derived_from) if tasks else []
    learned = {report.task: report for report in reports}
    return [
        learned.get(share.addition.task) or tx.report(tx.snapshot.task(share.addition.task).active, skipped=True)
        for share in shares
    ]


def _shares(tx: Transaction, mixed: MixedExamples, options: MixedOptions) -> list[_Share]:
    """Divide examples among the tasks that own their labels, in the order of the tasks; new labels come last."""
    check_type(mixed, (MixedExamples,), "mixed examples", "read_mixed")
    owners = tx.snapshot.owners
    given = by_subset(mixed.examples)
    labels = {str(example.label) for examples in given.values() for example in examples}
    new = labels - owners.keys()
    _check_new(tx, mixed, options, owners)
    into = None if options.into is None else tx.snapshot.task(options.into).name
    wanted = {owners[label] for label in labels - new} | ({into} if into is not None and new else set())
    shares = [
        _extension(tx, task.name, mixed, new if task.name == into else set())
        for task in tx.snapshot.tasks
        if task.name in wanted
    ]
    return [*shares, _new_task(tx, mixed, options, new)] if new and into is None else shares


def _check_new(tx: Transaction, mixed: MixedExamples, options: MixedOptions, owners: dict[str, str]) -> None:
    source = f"task {mixed.name!r}"
    new = {
        str(subset): [row for row in locate(f"{source} ({subset})", examples) if row.example.label not in owners]
        for subset, examples in by_subset(mixed.examples).items()
    }
    known = owners | {task.name: task.name for task in tx.snapshot.tasks if not task.active.labels}
    if problems := check_new_labels(source, new, mixed.name, known, options.into):
        raise DataError("the new labels cannot be learned; nothing was changed", problems)


def _extension(tx: Transaction, name: str, mixed: MixedExamples, new_labels: set[str]) -> _Share:
    """Return the share of a known task, which also gets `new_labels`."""
    present = tx.snapshot.task(name).active
    task = extended(present, mixed.examples, new_labels)
    accepted = {*present.labels, *new_labels}
    given = {
        subset: [example for example in examples if example.label in accepted]
        for subset, examples in by_subset(mixed.examples).items()
    }
    stored = {subset: len(examples) for subset, examples in all_stored(present).items()}
    added = {subset: len(getattr(task, subset)) - stored[subset] if task else 0 for subset in Subset}
    addition = Addition(
        name,
        new=False,
        labels=tuple(sorted({str(example.label) for examples in given.values() for example in examples})),
        new_labels=tuple(sorted(new_labels)),
        stored=sum(map(len, given.values())) - sum(added.values()),
        **{str(subset): number for subset, number in added.items()},
    )
    return _Share(addition, task, origins(present))


def _new_task(tx: Transaction, mixed: MixedExamples, options: MixedOptions, labels: set[str]) -> _Share:
    """Return the share of the new task; sets in which its labels have no example are split off."""
    subsets = {
        str(subset): own
        for subset, examples in by_subset(mixed.examples).items()
        if (own := [example for example in examples if example.label in labels])
    }
    complete, notes = with_held_out(subsets, options.seed)
    train, validation, test = (complete[subset] for subset in SUBSETS)
    task = Task(mixed.name, train, validation, test, mixed.template, mixed.settings, notes=tuple(notes))
    check_answers(tx.settings, task)
    tx.method.check_task(tx.settings, tx.settings.for_task(task.settings))
    addition = Addition(
        task.name,
        new=True,
        labels=tuple(sorted(labels)),
        new_labels=tuple(sorted(labels)),
        **{subset: len(examples) for subset, examples in complete.items()},
    )
    return _Share(addition, task, ())
