"""Register components under test, given as names, classes or instances."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from conpet.plugins import REGISTRIES
from conpet.testing.checks import ContractError


class Registration(NamedTuple):
    """Arguments of `conpet.register` for another process."""

    kind: str
    name: str
    path: str


@contextmanager
def registered(kind: str, component: Any) -> Iterator[tuple[str, tuple[Registration, ...]]]:
    """Register a component during the block, unless it is already registered.

    Args:
        kind: As in `conpet.register`.
        component: Its name, its class, or an instance.

    Yields:
        Its name, and the registrations that another process needs.

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
        raise ContractError(f"{cls.__name__} has no `name`; set it to the name used in the settings")
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
