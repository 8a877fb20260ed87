"""Names to classes that are imported on first use; other packages add their own."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from conpet.errors import ConfigError, UnknownNameError, did_you_mean


class Registry(Mapping[str, Any]):
    """A mapping from a name to a class or function, imported on first access: listing names costs nothing.

    Three sources, in this order: what conpet brings, what `register` adds in this process, and the entry points of
    installed packages. A name has one meaning: a second registration under it is refused.

    Args:
        kind: What the names stand for, for messages ("selector").
        group: Name of the entry point group of other packages ("conpet.selectors").
        builtin: Name to a `module:attribute` path.
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
            name: The name users give.
            target: The class or function, or its `module:attribute` path, which is imported when first used.

        Raises:
            ConfigError: The name is taken by something else, or the path is not `module:attribute`.
        """
        if isinstance(target, str) and not all(target.partition(":")):
            raise ConfigError(f"{self.kind} {name!r}: {target!r} is not a path of the form 'package.module:attribute'")
        with self._lock:
            if self._entries.get(name, target) != target:
                raise ConfigError(
                    f"{self.kind} {name!r} is registered already, as {_shown(self._entries[name])}; choose another name"
                )
            self._entries[name] = target

    def unregister(self, name: str) -> None:
        """Take a name out again, in tests for example; a name that is not there is ignored."""
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
            found = {point.name: point.value for point in entry_points(group=self.group)}
            with self._lock:
                self._entries = {**found, **self._entries}  # an installed package cannot replace what conpet brings
                self._discovered = True
        return self._entries


def _shown(target: Any) -> str:
    return target if isinstance(target, str) else f"{target.__module__}:{target.__qualname__}"
