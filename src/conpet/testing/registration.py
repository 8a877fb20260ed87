"""Components under test: by name, or as classes and instances that are registered meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from conpet.plugins import REGISTRIES
from conpet.testing.checks import ContractError


class Registration(NamedTuple):
    """What another process must register to know a component: arguments of `conpet.register`."""

    kind: str
    name: str
    path: str


@contextmanager
def registered(kind: str, component: Any) -> Iterator[tuple[str, tuple[Registration, ...]]]:
    """Register a component while the block runs, unless it is registered already.

    Args:
        kind: As in `conpet.register`.
        component: Its name, its class, or an instance.

    Yields:
        Its name, and what another process must register to know it.

    Raises:
        UnknownNameError: No component of that name is registered.
        ContractError: The class has no name, or is not at the top level of a module.
    """
    registry = REGISTRIES[kind]
    if isinstance(component, str):
        registry.require(component)
        yield component, ()
        return
    cls = component if isinstance(component, type) else type(component)
    name = getattr(cls, "name", None)
    if not isinstance(name, str) or not name:
        raise ContractError(f"{cls.__name__} has no `name`; give it the one that users are to write in the settings")
    if name in registry and registry[name] is cls:
        yield name, ()
        return
    if "<locals>" in cls.__qualname__:
        raise ContractError(f"{cls.__qualname__} is defined inside a function; another process could not import it")
    path = f"{cls.__module__}:{cls.__qualname__}"
    registry.register(name, cls)
    try:
        yield name, (Registration(kind, name, path),)
    finally:
        registry.unregister(name)
