"""Registries: names of classes that are imported on first use, extensible by other packages."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from conpet.errors import ConfigError, PluginError, UnknownNameError, check_memory, did_you_mean

_CONPET = "conpet"
_HERE = "conpet.register in this process"


class Registry(Mapping[str, Any]):
    """A mapping from a name to a class or function, imported on first access: listing names costs nothing.

    Entries have three sources: conpet, the entry points of installed packages, and `register` in this process. A name
    can be registered only once; an entry point whose name is taken is ignored with a warning.

    Args:
        kind: The kind of entries, for messages ("selector").
        group: Name of the entry point group of other packages ("conpet.selectors").
        builtin: `module:attribute` paths by name.
        base: `module:attribute` path of the class that every component must be derived from; None for functions.
        configs: `module:attribute` paths of the settings classes of conpet's own components, where they have one.
        key: Turns a name as it is given into the name that is stored.
    """

    def __init__(
        self,
        kind: str,
        group: str,
        builtin: Mapping[str, str],
        base: str | None = None,
        configs: Mapping[str, str] | None = None,
        key: Callable[[str], str] = str,
    ) -> None:
        self.kind = kind
        self.group = group
        self.base = base
        self._configs = dict(configs or {})
        self._key = key
        self._entries: dict[str, Any] = dict(builtin)
        self._sources: dict[str, str] = dict.fromkeys(builtin, _CONPET)
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
        name = self._key(name)
        if isinstance(target, str) and not all(target.partition(":")):
            raise ConfigError(f"{self.kind} {name!r}: {target!r} is not a path of the form 'package.module:attribute'")
        self._discover()
        with self._lock:
            known = self._entries.get(name, target)
            if known is not target and path_of(known) != path_of(target):
                raise ConfigError(
                    f"{self.kind} {name!r} is already registered as {path_of(known)}; choose another name"
                )
            self._entries[name] = target
            self._sources.setdefault(name, _HERE)

    def unregister(self, name: str) -> None:
        """Remove a name, for example in tests; unknown names are ignored."""
        with self._lock:
            self._entries.pop(self._key(name), None)
            self._sources.pop(self._key(name), None)

    def refresh(self) -> None:
        """Look for entry points again, after a package was installed into the running process."""
        self._discovered = False

    def require(self, name: str) -> None:
        """Raise `UnknownNameError` unless the name is known; imports nothing."""
        if name not in self:
            meant = did_you_mean(name.lower(), self)
            hint = "" if meant else "; a package that brought it may not be installed"
            raise UnknownNameError(f"no {self.kind} {name!r}{meant}; have: {', '.join(sorted(self))}{hint}")

    @property
    def added(self) -> dict[str, str]:
        """What `register` added in this process, as import paths by name."""
        return {name: path_of(self._entries[name]) for name, source in self._sources.items() if source == _HERE}

    def loadable(self) -> Iterator[tuple[str, Any]]:
        """Yield every name and its component; one that cannot be loaded is left out, with a warning."""
        for name in self:
            try:
                component = self[name]
            except PluginError as error:
                warnings.warn(f"{error} Left out here.", stacklevel=2)
            else:
                yield name, component

    def config(self, name: str, default: type) -> Any:
        """Return a component's settings class, or `default` if it has none; imports no component of conpet itself."""
        if not self.is_builtin(name):
            return getattr(self[name], "Config", default)
        return _imported(self._configs[name]) if name in self._configs else default

    def describe(self, name: str) -> str:
        """Return a component's kind, name, path and source, for messages."""
        source = self._sources[name]
        return f"{self.kind} {name!r} ({path_of(self._entries[name])}, from {source})"

    def is_builtin(self, name: str) -> bool:
        """Return whether conpet itself brings the name."""
        return self._sources.get(name) == _CONPET

    def __getitem__(self, name: str) -> Any:
        self.require(name)
        target = self._entries[name]
        if self.is_builtin(name):
            return _imported(target)
        component = self._load(name, target) if isinstance(target, str) else target
        self._check(name, component)
        return component

    def __contains__(self, name: object) -> bool:
        return name in self._discover()

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._discover()))

    def __len__(self) -> int:
        return len(self._discover())

    def _load(self, name: str, target: str) -> Any:
        try:
            return _imported(target)
        except Exception as error:
            check_memory(error, f"importing {target}")
            advice = "uninstall the package" if self._sources[name] != _HERE else "remove the call of conpet.register"
            raise PluginError(
                f"{self.describe(name)} cannot be imported: {type(error).__name__}: {error}. Install what is missing, "
                f"repair {target.partition(':')[0]}, or {advice}."
            ) from error

    def _check(self, name: str, component: Any) -> None:
        """Raise `PluginError` unless a component is of the right type."""
        if self.base is None:
            if not callable(component):
                raise PluginError(f"{self.describe(name)} is not a function: register a function.")
            return
        base = _imported(self.base)
        if not (isinstance(component, type) and issubclass(component, base)):
            what = "a class of another base" if isinstance(component, type) else f"a {type(component).__name__}"
            raise PluginError(
                f"{self.describe(name)} is {what}: a {self.kind} must be a class derived from "
                f"{self.base.replace(':', '.')}."
            )

    def _discover(self) -> Mapping[str, Any]:
        """Add the entry points of installed packages, once; return all entries."""
        if not self._discovered:
            ignored = []
            with self._lock:
                for point in () if self._discovered else entry_points(group=self.group):
                    name, source = self._key(point.name), _package(point)
                    known = self._entries.setdefault(name, point.value)
                    if path_of(known) != point.value:
                        ignored.append(
                            f"{self.kind} {name!r} ({point.value}, from {source}) is ignored: the name is taken by "
                            f"{path_of(known)}, from {self._sources[name]}. Rename one of them in its package, or "
                            "uninstall a package."
                        )
                    self._sources.setdefault(name, source)
                self._discovered = True
            for message in ignored:
                warnings.warn(message, stacklevel=3)
        return self._entries


def path_of(target: Any) -> str:
    """Return the `module:attribute` path of a class or function; a path stays as it is."""
    if isinstance(target, str):
        return target
    named = target if hasattr(target, "__qualname__") else type(target)
    return f"{named.__module__}:{named.__qualname__}"


def _imported(path: str) -> Any:
    module, _, attribute = path.partition(":")
    found = import_module(module)
    for part in attribute.split("."):
        found = getattr(found, part)
    return found


def _package(point: EntryPoint) -> str:
    name = point.dist.name if point.dist else None
    return f"package {name}" if name else "an installed package"
