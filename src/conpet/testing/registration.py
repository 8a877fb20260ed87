"""Register components under test, given as names, classes or instances."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from conpet.plugins import REGISTRIES
from conpet.registry import path_of
from conpet.testing.checks import ContractError


def registrations() -> list[tuple[str, str, str]]:
    """Return the arguments of `conpet.register` by which another process knows what this one has registered."""
    return [(kind, name, path) for kind, registry in REGISTRIES.items() for name, path in registry.added.items()]


@contextmanager
def registered(kind: str, component: Any) -> Iterator[str]:
    """Register a component during the block, unless it is already registered.

    Args:
        kind: As in `conpet.register`.
        component: Its name, its class, or an instance.

    Yields:
        Its name.

    Raises:
        UnknownNameError: No component of that name is registered.
        ContractError: The class has no name, or another process cannot import it.
    """
    registry = REGISTRIES[kind]
    if isinstance(component, str):
        registry.require(component)
        if component in registry.added:
            _check_importable(registry.added[component])
        yield component
        return
    cls = component if isinstance(component, type) else type(component)
    name = getattr(cls, "name", None)
    if not isinstance(name, str) or not name:
        raise ContractError(f"{cls.__name__} has no `name`; set it to the name used in the settings")
    _check_importable(path_of(cls))
    if name in registry and registry[name] is cls:
        yield name
        return
    registry.register(name, cls)
    try:
        yield name
    finally:
        registry.unregister(name)


def _check_importable(path: str) -> None:
    """Raise `ContractError` if another process cannot import what is at a `module:attribute` path."""
    module, _, attribute = path.partition(":")
    if module == "__main__":
        raise ContractError(
            f"{attribute} is defined in __main__, the script or notebook that runs; another process cannot import it "
            "from there: move the class to an importable module"
        )
    if "<locals>" in attribute:
        raise ContractError(
            f"{attribute} is defined inside a function; another process cannot import it: move it to the top level of "
            "an importable module"
        )
