"""Checks of a change, made before any work and before the user is asked to confirm."""

from __future__ import annotations

from collections.abc import Sequence
from unicodedata import category

from conpet.config import Settings
from conpet.data import Task
from conpet.data.checks import next_step
from conpet.errors import ConfigError, DataError, Problem, UnknownNameError
from conpet.heads.stored import make_head
from conpet.methods import METHODS
from conpet.methods.base import Method
from conpet.methods.dynamic import DynamicMethod
from conpet.methods.static import StaticMethod
from conpet.selectors import SELECTORS
from conpet.store import Snapshot, TaskRecord, VersionRecord

_SHOWN = 20
"""Number of labels listed in a message."""


def check_type(value: object, kinds: tuple[type, ...], wanted: str, reader: str) -> None:
    """Check that a value from a user has the right type.

    Args:
        value: The value.
        kinds: The types it may have.
        wanted: What these are, for the message.
        reader: The function of conpet that reads one from files.

    Raises:
        ConfigError: It has another type.
    """
    if not isinstance(value, kinds):
        raise ConfigError(f"a {type(value).__name__} is not {wanted}; read one from files with conpet.{reader}(path)")


def check_settings(settings: Settings) -> None:
    """Check the settings of a new workspace before anything is loaded.

    Raises:
        ConfigError: An option or a setting of the method is unknown or wrong.
        UnknownNameError: There is no such method, selector, module kind, replay schedule or retention.
    """
    method: type[Method] = METHODS[settings.method.name]
    method.check_task(settings, settings.for_task({}))


def upgraded_settings(snapshot: Snapshot, method: str, fusion: str, selector: str | None) -> Settings:
    """Return the settings of a workspace after `ConPET.upgrade` with these arguments.

    Raises:
        ConfigError: The workspace cannot be upgraded in this way.
        UnknownNameError: There is no such selector.
    """
    settings = Settings.parse(snapshot.header.settings)
    if method != DynamicMethod.name:
        raise ConfigError(
            f"method {method!r}: a workspace can only be upgraded to method {DynamicMethod.name!r}; leave it out"
        )
    if settings.method.name == method:
        raise ConfigError(
            f"the workspace already has method {method!r}; there is nothing to upgrade, go on with `conpet learn`"
        )
    if not issubclass(METHODS[settings.method.name], StaticMethod):
        raise ConfigError(
            f"method {settings.method.name!r}: only a workspace with one PET module for all tasks can be upgraded; "
            "make a new workspace and learn the tasks there"
        )
    chosen = selector or settings.selector.name
    if SELECTORS[chosen].needs_replay:
        raise ConfigError(
            f"selector {chosen!r} must be trained with every task, but was not trained in this workspace: upgrade with "
            "a selector that needs no training (`--selector linear`)"
        )
    if not snapshot.tasks:
        raise ConfigError(
            f"the workspace has no tasks, so there is no module to freeze; make a new workspace with method {method!r} "
            "(`conpet init`), or learn a task first. Nothing was changed"
        )
    return settings.changed({"method": method, "fusion": fusion, "selector": chosen})


def mergeable(snapshot: Snapshot, names: Sequence[str], bound: float) -> list[str]:
    """Return the names of the tasks to merge by `ConPET.merge` with these arguments, in the workspace's order.

    Raises:
        ConfigError: These tasks cannot be merged.
        UnknownNameError: There is no such task.
    """
    method = snapshot.header.settings["method"]["name"]
    if method != DynamicMethod.name:
        raise ConfigError(
            f"method {method!r}: only tasks of a {DynamicMethod.name!r} workspace have modules to merge; "
            "`conpet upgrade` makes it one"
        )
    if isinstance(names, str):
        raise ConfigError(f"merge: {names!r} is a string; give a list of two or more task names")
    wanted = {snapshot.task(name).name for name in names}
    if unlabelled := [name for name in sorted(wanted) if not snapshot.task(name).active.labels]:
        raise ConfigError(f"merge: tasks without labels cannot be merged: {', '.join(unlabelled)}. Leave them out")
    if len(wanted) < 2:
        raise ConfigError("merge: name at least two different tasks")
    _check_bound(bound)
    return [task.name for task in snapshot.tasks if task.name in wanted]


def consolidation_blocker(settings: Settings) -> str | None:
    """Return why a workspace with these settings cannot be consolidated, or None if it can."""
    method: type[Method] = METHODS[settings.method.name]
    if not method.consolidates:
        upgrade = "; `conpet upgrade` makes this a workspace of 'dynamic'" if issubclass(method, StaticMethod) else ""
        return f"{no_consolidation(method.name)}{upgrade}"
    if settings.consolidation.layers == "top":
        if not method.module_per_task:
            return (
                f"method {method.name!r} has no modules, so there is nothing to train with consolidation.layers=top; "
                "use layers=all (`conpet consolidate WORKSPACE --set layers=all`)"
            )
    elif settings.replay.latent_only:
        return (
            "with latent_only=true only the states of past examples are stored, and a tuned backbone needs their "
            "texts. Train one module for all labels on the layers above the cut instead (`conpet consolidate "
            "WORKSPACE --set layers=top`), or make a workspace that stores texts"
        )
    return None


def no_consolidation(method: str) -> str:
    """Return that a method has no consolidation, and which methods have one."""
    others = ", ".join(name for name, known in METHODS.loadable() if known.consolidates)
    return f"method {method!r} has no consolidation; methods that have one: {others}"


def check_consolidation(snapshot: Snapshot, bound: float, settings: Settings) -> None:
    """Check the arguments of `ConPET.consolidate`; `settings` are the workspace's with those of the consolidation.

    Raises:
        ConfigError: The workspace cannot be consolidated, or the bound is wrong.
    """
    blocker = consolidation_blocker(settings)
    if not blocker and not any(task.active.labels for task in snapshot.tasks):
        blocker = "it has no task with labels to train on; learn one first"
    if blocker:
        raise ConfigError(f"the workspace cannot be consolidated: {blocker}. Nothing was changed")
    _check_bound(bound)


def _check_bound(bound: float) -> None:
    if not bound >= 0:
        raise ConfigError(f"bound={bound}: give the largest loss of accuracy to accept, in points, 0 or more")


def check_distinct(tasks: Sequence[Task]) -> None:
    """Refuse a batch of tasks if any two share a name or a label."""
    names = [task.name for task in tasks]
    owners = {label: task.name for task in reversed(tasks) for label in task.labels}
    problems = [
        Problem(f"task {name!r}", None, "is given twice; give it once")
        for name in sorted(set(names))
        if names.count(name) > 1
    ]
    problems += [
        Problem(
            f"task {task.name!r}",
            None,
            f"label {label!r} also belongs to task {owners[label]!r}; learn them one after another, or rename one",
        )
        for task in tasks
        for label in task.labels
        if owners[label] != task.name
    ]
    if problems:
        raise DataError("these tasks cannot be learned in one batch; nothing was changed", problems)


def check_labels(snapshot: Snapshot, name: str, labels: Sequence[str]) -> None:
    """Refuse labels that belong to another task."""
    owners = snapshot.owners
    problems = [
        Problem(f"task {name!r}", None, f"label {label!r} belongs to the earlier task {owners[label]!r}")
        for label in labels
        if owners.get(label, name) != name
    ]
    if problems:
        raise DataError(f"task {name!r} cannot be learned; nothing was changed{next_step(labels, owners)}", problems)


def check_answers(settings: Settings, task: Task) -> None:
    """Refuse a task with answers that its head does not accept.

    Raises:
        ConfigError: The head in the settings is not the head that the task was read for.
        DataError: An answer is wrong.
    """
    config = settings.for_task(task.settings).head
    if config.name != task.head:
        raise ConfigError(
            f"task {task.name!r}: the workspace has head.name={config.name}, but the task was read for head "
            f"{task.head!r}; set `head: {config.name}` in the task's settings"
        )
    head = make_head(config)
    problems = []
    for subset in ("train", "validation", "test"):
        examples = getattr(task, subset)
        reasons = head.check([str(example.label) for example in examples])
        problems += [
            Problem(f"task {task.name!r} ({subset})", row, reason)
            for row, reason in enumerate(reasons, start=1)
            if reason is not None
        ]
    if problems:
        raise DataError(f"task {task.name!r} cannot be learned; nothing was changed", problems)


def check_related(task: Task, present: VersionRecord) -> None:
    """Refuse a new version that shares no label with the present one: probably two tasks have the same name."""
    description = present.description
    same = task.kind == description["kind"] and task.head == description["head"]
    if same and (not task.labels or set(task.labels) & set(present.labels)):
        return
    raise DataError(
        f"a task {task.name!r} of kind {description['kind']} already exists, and it has none of the new labels "
        f"({', '.join(task.labels[:3]) or 'no label'}, ...); give the new task another name, or remove the existing "
        "one first. Nothing was changed"
    )


def owner_of(snapshot: Snapshot, label: str) -> TaskRecord:
    """Return the task that a label belongs to.

    Raises:
        UnknownNameError: There is no such label.
    """
    for task in snapshot.tasks:
        if label in task.active.labels:
            return task
    known = [repr(label) for task in snapshot.tasks for label in task.active.labels]
    have = ", ".join(known[:_SHOWN]) or "none yet"
    more = f", ... ({len(known):,} in all, see `conpet labels list`)" if len(known) > _SHOWN else ""
    raise UnknownNameError(f"no label {label!r} in this workspace; have: {have}{more}")


def check_new_label(snapshot: Snapshot, label: str) -> None:
    """Refuse a new name of a label that is taken or invalid.

    Raises:
        DataError: A task has a label of that name.
        ConfigError: It is blank, or not valid text.
    """
    owners = snapshot.owners
    if label in owners:
        raise DataError(f"label {label!r} is already owned by task {owners[label]!r}; choose another name")
    surrogates_or_controls = any(category(character) in ("Cs", "Cc") for character in label)
    if not label.strip() or surrogates_or_controls:
        raise ConfigError(
            f"{label!r} cannot be a label: choose a name that is not blank, is valid Unicode and has no control "
            "characters"
        )
