"""Register methods, selectors, module kinds, heads, schedules, fusions and file formats of other packages."""

from __future__ import annotations

from typing import Any

from conpet.data.files import FORMATS
from conpet.errors import UnknownNameError, did_you_mean
from conpet.fusion import FUSIONS
from conpet.heads import HEADS
from conpet.methods import METHODS
from conpet.modules.kinds import MODULE_KINDS
from conpet.registry import Registry
from conpet.replay import SCHEDULES
from conpet.selectors import SELECTORS

REGISTRIES: dict[str, Registry] = {
    "method": METHODS,
    "selector": SELECTORS,
    "module": MODULE_KINDS,
    "head": HEADS,
    "schedule": SCHEDULES,
    "fusion": FUSIONS,
    "reader": FORMATS,
}
"""Registries by kind of component."""


def register(kind: str, name: str, target: Any) -> None:
    """Register a component in this process. Installed packages use entry points instead (see `Registry.group`).

        conpet.register("method", "smoothed", "my_package.smoothed:SmoothedReplay")

    Args:
        kind: "method", "selector", "module", "head", "schedule", "fusion" or "reader".
        name: The name in the settings; for a reader, the file name suffix without the dot ("psv").
        target: The class (for a reader, the function), or its `module:attribute` path, imported on first use.

    Raises:
        UnknownNameError: The kind is unknown.
        ConfigError: The name is taken, or the path is malformed.
    """
    if kind not in REGISTRIES:
        raise UnknownNameError(f"no kind {kind!r}{did_you_mean(kind, REGISTRIES)}; available: {', '.join(REGISTRIES)}")
    REGISTRIES[kind].register(name, target)
