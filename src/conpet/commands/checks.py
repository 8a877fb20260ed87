"""What can be said against a change of a workspace before it is begun, so that nobody is asked to confirm it first."""

from __future__ import annotations

from collections.abc import Sequence

from conpet.config import Settings
from conpet.errors import ConfigError
from conpet.methods import METHODS
from conpet.methods.base import Method
from conpet.methods.dynamic import DynamicMethod
from conpet.methods.static import StaticMethod
from conpet.selectors import SELECTORS
from conpet.store import Snapshot


def check_settings(settings: Settings) -> None:
    """Check, before anything is loaded, that settings of a new workspace name what there is.

    Raises:
        ConfigError: An option or a setting of the method is unknown or wrong.
        UnknownNameError: There is no such method, selector, PET kind, replay schedule or retention.
    """
    method: type[Method] = METHODS[settings.method.name]
    method.check_task(settings, settings.for_task({}))


def upgraded(snapshot: Snapshot, method: str, fusion: str, selector: str | None) -> Settings:
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
    if len(wanted) < 2:
        raise ConfigError("merge: name two tasks or more, each once")
    if not bound >= 0:
        raise ConfigError(f"bound={bound}: give the points of accuracy that may be lost, 0 or more")
    return [task.name for task in snapshot.tasks if task.name in wanted]
