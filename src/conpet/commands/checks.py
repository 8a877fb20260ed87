"""Checks that a change can be made, before any work is done or anybody is asked to confirm."""

from __future__ import annotations

from collections.abc import Sequence
from unicodedata import category

from conpet.config import Settings
from conpet.data import Task
from conpet.errors import ConfigError, DataError, Problem, UnknownNameError
from conpet.heads.stored import make_head
from conpet.methods import METHODS
from conpet.methods.base import Method
from conpet.methods.dynamic import DynamicMethod
from conpet.methods.static import StaticMethod
from conpet.selectors import SELECTORS
from conpet.store import Snapshot, TaskRecord, VersionRecord

_SHOWN = 20
"""Labels named in a message."""


def check_settings(settings: Settings) -> None:
    """Check, before anything is loaded, that settings of a new workspace name what there is.

    Raises:
        ConfigError: An option or a setting of the method is unknown or wrong.
        UnknownNameError: There is no such method, selector, PET kind, replay schedule or retention.
    """
    method: type[Method] = METHODS[settings.method.name]
    method.check_task(settings, settings.for_task({}))


def upgraded_settings(snapshot: Snapshot, method: str, fusion: str, selector: str | None) -> Settings:
    """Return the settings of a workspace after `ConPET.upgrade`, whose arguments these are.

    Raises:
        ConfigError: It cannot be upgraded so.
        UnknownNameError: There is no such selector.
    """
    settings = Settings.parse(snapshot.header.settings)
    if method != DynamicMethod.name:
        raise ConfigError(f"method {method!r}: {DynamicMethod.name!r} is the one a workspace can be upgraded to")
    if settings.method.name == method:
        raise ConfigError(f"the workspace has method {method!r} already; there is nothing to upgrade")
    if not issubclass(METHODS[settings.method.name], StaticMethod):
        raise ConfigError(
            f"method {settings.method.name!r}: only a workspace with one PET module for all tasks can be upgraded; "
            "make a new workspace and learn the tasks there"
        )
    chosen = selector or settings.selector.name
    if SELECTORS[chosen].needs_replay:
        raise ConfigError(
            f"selector {chosen!r} is trained task by task, and was not: upgrade with one that is computed "
            "(`--selector closed-form`)"
        )
    if not snapshot.tasks:
        raise ConfigError(
            f"the workspace has no task whose module could be frozen; make a new one of method {method!r} (`conpet "
            "init`), or learn a task first. Nothing was changed"
        )
    return settings.changed({"method": method, "fusion": fusion, "selector": chosen})


def mergeable(snapshot: Snapshot, names: Sequence[str], bound: float) -> list[str]:
    """Return the names of the tasks that `ConPET.merge`, whose arguments these are, would merge, in their order.

    Raises:
        ConfigError: They cannot be merged so.
        UnknownNameError: There is no such task.
    """
    method = snapshot.header.settings["method"]["name"]
    if method != DynamicMethod.name:
        raise ConfigError(f"method {method!r}: only tasks of a {DynamicMethod.name!r} workspace have modules to merge")
    if isinstance(names, str):
        raise ConfigError(f"merge: {names!r} is one string; give a list of the names of two tasks or more")
    wanted = {snapshot.task(name).name for name in names}
    if other := [name for name in sorted(wanted) if not snapshot.task(name).active.labels]:
        raise ConfigError(f"merge: {', '.join(other)} have no labels; only modules with a head over labels merge")
    if len(wanted) < 2:
        raise ConfigError("merge: name two tasks or more, each once")
    if not bound >= 0:
        raise ConfigError(f"bound={bound}: give the points of accuracy that may be lost, 0 or more")
    return [task.name for task in snapshot.tasks if task.name in wanted]


def check_distinct(tasks: Sequence[Task]) -> None:
    """Refuse a batch of tasks that have a name or a label in common."""
    names = [task.name for task in tasks]
    owners = {label: task.name for task in reversed(tasks) for label in task.labels}
    problems = [
        Problem(f"task {name!r}", None, "is given twice") for name in sorted(set(names)) if names.count(name) > 1
    ]
    problems += [
        Problem(f"task {task.name!r}", None, f"label {label!r} also belongs to task {owners[label]!r}")
        for task in tasks
        for label in task.labels
        if owners[label] != task.name
    ]
    if problems:
        raise DataError("these tasks cannot be learned in one batch; nothing was changed", problems)


def check_labels(snapshot: Snapshot, name: str, labels: Sequence[str]) -> None:
    """Refuse labels for a task that belong to another."""
    owners = {label: task.name for task in snapshot.tasks for label in task.active.labels}
    problems = [
        Problem(f"task {name!r}", None, f"label {label!r} is owned by the earlier task {owners[label]!r}")
        for label in labels
        if owners.get(label, name) != name
    ]
    if problems:
        raise DataError(f"task {name!r} cannot be learned; nothing was changed", problems)


def check_answers(settings: Settings, task: Task) -> None:
    """Refuse a task whose answers its head cannot read.

    Raises:
        ConfigError: The workspace's default head is not that of the task.
        DataError: An answer is wrong.
    """
    config = settings.for_task(task.settings).head
    if config.name != task.head:
        raise ConfigError(
            f"task {task.name!r}: the workspace has head.name={config.name}, and the task was read for head "
            f"{task.head!r}; say which in the task's settings (`head: {config.name}`)"
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
    """Refuse a new version that has nothing to do with the present one: two tasks were given one name."""
    description = present.description
    same = task.kind == description["kind"] and task.head == description["head"]
    if same and (not task.labels or set(task.labels) & set(present.labels)):
        return
    raise DataError(
        f"a task {task.name!r} of kind {description['kind']} is learned already, and none of its labels comes "
        f"again here ({', '.join(task.labels[:3]) or 'no label'}, ...); give this one another name, or remove the "
        "other first. Nothing was changed"
    )


def owner_of(snapshot: Snapshot, label: str) -> TaskRecord:
    """Return the task a label belongs to.

    Raises:
        UnknownNameError: There is no such label.
    """
    for task in snapshot.tasks:
        if label in task.active.labels:
            return task
    known = [repr(one) for task in snapshot.tasks for one in task.active.labels]
    have = ", ".join(known[:_SHOWN]) or "none yet"
    more = f", ... ({len(known):,} in all, see `conpet labels list`)" if len(known) > _SHOWN else ""
    raise UnknownNameError(f"no label {label!r} in this workspace; have: {have}{more}")


def check_new_label(snapshot: Snapshot, label: str) -> None:
    """Refuse a name for a label that is taken, or that cannot be one.

    Raises:
        DataError: A task has a label of that name.
        ConfigError: It is blank, or not valid text.
    """
    owners = {one: task.name for task in snapshot.tasks for one in task.active.labels}
    if label in owners:
        raise DataError(f"label {label!r} is owned by task {owners[label]!r} already; choose another name")
    surrogates_or_controls = any(category(one) in ("Cs", "Cc") for one in label)
    if not label.strip() or surrogates_or_controls:
        raise ConfigError(
            f"{label!r} cannot be a label: give it a name that is not blank, is valid Unicode and has no control "
            "characters"
        )
