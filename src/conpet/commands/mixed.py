"""Learn examples of known and new labels: new versions of the known tasks, and a new task."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from conpet.commands.base import Transaction
from conpet.commands.checks import check_answers, check_type
from conpet.commands.extend import by_subset, extended
from conpet.commands.learn import learn_checked
from conpet.config import Settings
from conpet.data import Examples, MixedExamples, Task
from conpet.data.checks import check_new_labels, locate
from conpet.data.held_out import with_held_out
from conpet.data.labelled import SUBSETS
from conpet.errors import DataError
from conpet.methods import METHODS
from conpet.replay.memory import Subset
from conpet.state.reading import origins
from conpet.store import Snapshot, VersionRecord
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
    notes: tuple[str, ...] = ()


def additions(tx: Transaction, mixed: MixedExamples, options: MixedOptions) -> tuple[list[Addition], bool]:
    """Return what each task gets, after all checks, and whether all can be learned in one change."""
    shares = _shares(tx.snapshot, tx.settings, mixed, options)
    one_change = sum(share.task is not None for share in shares) < 2 or not tx.method.batch_blocker(tx.state)
    return [share.addition for share in shares], one_change


def planned(
    snapshot: Snapshot, settings: Settings, parts: Iterable[MixedExamples], options: MixedOptions
) -> tuple[list[Addition], list[Task]]:
    """Return what each task gets if parts are learned one after another, and the tasks to learn for that.

    Args:
        snapshot: The workspace.
        settings: Its settings.
        parts: The parts; a label that is new in one of them is known in the next.
        options: How new labels are learned.
    """
    listed: list[Addition] = []
    tasks: list[Task] = []
    made: dict[str, Task] = {}
    for part in parts:
        check_type(part, (MixedExamples,), "mixed examples", "read_mixed")
        owners = {label: name for name, task in made.items() for label in task.labels}
        for name in dict.fromkeys(owners.values()):
            if more := _of_labels(part, made[name].labels):
                made[name] = replace(made[name], train=(*made[name].train, *more.train))
                tasks.append(made[name])
                listed.append(_more(name, more))
        rest = _of_labels(part, _labels(part.examples) - owners.keys()) if owners else part.examples
        for share in _shares(snapshot, settings, replace(part, examples=rest), options) if rest else ():
            listed.append(share.addition)
            tasks += [share.task] if share.task is not None else []
            if share.addition.new_labels and share.task is not None:
                made[share.addition.task] = share.task
    return listed, tasks


def _of_labels(part: MixedExamples, labels: Collection[str]) -> Examples | None:
    """Return the examples of some labels, or None if none of them is for training."""
    kept = {
        subset: tuple(one for one in given if one.label in labels) for subset, given in by_subset(part.examples).items()
    }
    train, validation, test = (kept[subset] for subset in Subset)
    return Examples(train, validation, test) if train else None


def _more(name: str, examples: Examples) -> Addition:
    counts = {str(subset): len(given) for subset, given in by_subset(examples).items()}
    return Addition(name, new=False, labels=tuple(sorted(_labels(examples))), new_labels=(), **counts)


def _labels(examples: Examples) -> set[str]:
    return {str(example.label) for given in by_subset(examples).values() for example in given}


def learn_mixed(
    tx: Transaction, mixed: MixedExamples, options: MixedOptions, names: Sequence[str]
) -> list[LearnReport]:
    """Learn the examples of some of the tasks that `additions` returned, in one change; see `ConPET.learn_mixed`."""
    shares = [share for share in _shares(tx.snapshot, tx.settings, mixed, options) if share.addition.task in names]
    tasks = [share.task for share in shares if share.task is not None]
    derived_from = {share.addition.task: share.derived_from for share in shares}
    reports = learn_checked(tx, tasks, "learn", derived_from=derived_from) if tasks else []
    learned = {report.task: report for report in reports}
    return [
        learned.get(share.addition.task)
        or tx.report(tx.snapshot.task(share.addition.task).active, skipped=True, notes=share.notes)
        for share in shares
    ]


def _shares(snapshot: Snapshot, settings: Settings, mixed: MixedExamples, options: MixedOptions) -> list[_Share]:
    """Divide examples among the tasks that own their labels, in the order of the tasks; new labels come last."""
    check_type(mixed, (MixedExamples,), "mixed examples", "read_mixed")
    owners = snapshot.owners
    labels = _labels(mixed.examples)
    new = labels - owners.keys()
    _check_new(snapshot, mixed, options, owners)
    into = None if options.into is None else snapshot.task(options.into).name
    wanted = {owners[label] for label in labels - new} | ({into} if into is not None and new else set())
    shares = [
        _extension(task.active, mixed.examples, new if task.name == into else set())
        for task in snapshot.tasks
        if task.name in wanted
    ]
    return [*shares, _new_task(settings, mixed, options, new)] if new and into is None else shares


def _check_new(snapshot: Snapshot, mixed: MixedExamples, options: MixedOptions, owners: dict[str, str]) -> None:
    source = f"task {mixed.name!r}"
    new = {
        str(subset): [row for row in locate(f"{source} ({subset})", examples) if row.example.label not in owners]
        for subset, examples in by_subset(mixed.examples).items()
    }
    known = owners | {task.name: task.name for task in snapshot.tasks if not task.active.labels}
    if problems := check_new_labels(source, new, mixed.name, known, options.into):
        raise DataError("the new labels cannot be learned; nothing was changed", problems)


def _extension(present: VersionRecord, examples: Examples, new_labels: set[str]) -> _Share:
    """Return the share of a known task, which also gets `new_labels`."""
    extension = extended(present, examples, new_labels)
    addition = Addition(
        present.task,
        new=False,
        labels=extension.labels,
        new_labels=tuple(sorted(new_labels)),
        stored=extension.stored,
        repeated=extension.repeated,
        **{str(subset): number for subset, number in extension.added.items()},
    )
    return _Share(addition, extension.task, origins(present), extension.notes)


def _new_task(settings: Settings, mixed: MixedExamples, options: MixedOptions, labels: set[str]) -> _Share:
    """Return the share of the new task; sets in which its labels have no example are split off."""
    subsets = {
        str(subset): own
        for subset, examples in by_subset(mixed.examples).items()
        if (own := [example for example in examples if example.label in labels])
    }
    complete, notes = with_held_out(subsets, options.seed)
    train, validation, test = (complete[subset] for subset in SUBSETS)
    left_out = tuple(row for row in mixed.examples.left_out if row.get("label") in (None, *labels))
    task = Task(mixed.name, train, validation, test, mixed.template, mixed.settings, tuple(notes), left_out)
    check_answers(settings, task)
    METHODS[settings.method.name].check_task(settings, settings.for_task(task.settings))
    addition = Addition(
        task.name,
        new=True,
        labels=tuple(sorted(labels)),
        new_labels=tuple(sorted(labels)),
        **{subset: len(examples) for subset, examples in complete.items()},
    )
    return _Share(addition, task, ())
