"""Registries: names of classes that are imported on first use, extensible by other packages."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from conpet.errors import ConfigError, UnknownNameError, did_you_mean


class Registry(Mapping[str, Any]):
    """A mapping from a name to a class or function, imported on first access: listing names costs nothing.

    Entries have three sources: conpet, `register` in this process, and the entry points of installed packages. A name
    can be registered only once.

    Args:
        kind: The kind of entries, for messages ("selector").
        group: Name of the entry point group of other packages ("conpet.selectors").
        builtin: `module:attribute` paths by name.
    """

    def __init__(self, kind: str, group: str, builtin: Mapping[str, str]) -> None:
        self.kind = kind
        self.group = group
        self._entries: dict[str, Any] = dict(builtin)
        self._lock = threading.Lock()
        self._discovered = False

    def register(self, name: str, target: Any) -> None:
        """Add a name.

        Args:
            name: The name in the settings.
            target: The class or function, or its `module:attribute` path, imported on first use.

        Raises:
            ConfigError: The name is taken by another target, or the path is not `module:attribute`.
        """
        if isinstance(target, str) and not all(target.partition(":")):
            raise ConfigError(f"{self.kind} {name!r}: {target!r} is not a path of the form 'package.module:attribute'")
        with self._lock:
            if self._entries.get(name, target) != target:
                raise ConfigError(
                    f"{self.kind} {name!r} is already registered as {_shown(self._entries[name])}; choose another name"
                )
            self._entries[name] = target

    def unregister(self, name: str) -> None:
        """Remove a name, for example in tests; unknown names are ignored."""
        with self._lock:
            self._entries.pop(name, None)

    def refresh(self) -> None:
        """Look for entry points again, after a package was installed into the running process."""
        self._discovered = False

    def require(self, name: str) -> None:
        """Raise `UnknownNameError` unless the name is known; imports nothing."""
        if name not in self:
            meant = did_you_mean(name.lower(), self)
            raise UnknownNameError(f"no {self.kind} {name!r}{meant}; have: {', '.join(sorted(self))}")

    def __getitem__(self, name: str) -> Any:
        self.require(name)
        target = self._entries[name]
        if not isinstance(target, str):
            return target
        module, _, attribute = target.partition(":")
        return getattr(import_module(module), attribute)

    def __contains__(self, name: object) -> bool:
        return name in self._entries or name in self._discover()

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._discover()))

    def __len__(self) -> int:
        return len(self._discover())

    def _discover(self) -> Mapping[str, Any]:
        """Add the entry points of installed packages, once; return all entries."""
        if not self._discovered:
            discovered = {point.name: point.value for point in entry_points(group=self.group)}
            with self._lock:
                self._entries = {**discovered, **self._entries}  # packages cannot replace built-in entries
                self._discovered = True
        return self._entries


def _shown(target: Any) -> str:
    return target if isinstance(target, str) else f"{target.__module__}:{target.__qualname__}"
