"""Names to classes that are imported only when asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from conpet.errors import UnknownNameError, did_you_mean


@dataclass(frozen=True, slots=True)
class Registry(Mapping[str, Any]):
    """A read-only mapping from a name to the object at a `package.module:attribute` path.

    Adding a method is one file and one line in `entries`. The object is imported on first access,
    so listing names costs nothing.

    Args:
        kind: What the names stand for, for messages ("selector").
        entries: Name to `module:attribute`.
    """

    kind: str
    entries: Mapping[str, str]

    def require(self, name: str) -> None:
        """Raise `UnknownNameError` unless the name is known; imports nothing."""
        if name not in self.entries:
            meant = did_you_mean(name.lower(), self.entries)
            raise UnknownNameError(f"no {self.kind} {name!r}{meant}; have: {', '.join(sorted(self.entries))}")

    def __getitem__(self, name: str) -> Any:
        self.require(name)
        module, _, attribute = self.entries[name].partition(":")
        return getattr(import_module(module), attribute)

    def __contains__(self, name: object) -> bool:
        return name in self.entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)
