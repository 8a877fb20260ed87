"""Settings of components chosen by name: each registered class has its own settings class, `Config`."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, ClassVar

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from conpet.config.base import Choice, Positive, StrictModel
from conpet.errors import ConfigError
from conpet.registry import Registry


class ComponentConfig(StrictModel):
    """Base of the settings of a component chosen by name.

    Attributes:
        key: Name of the field that holds the component's name.
        budget: Fields that limit how much is trained or stored; an experiment keeps them equal for all learners.
    """

    key: ClassVar[str] = "name"
    budget: ClassVar[frozenset[str]] = frozenset()


class MethodConfig(ComponentConfig):
    """The method and its own options.

    Attributes:
        name: Learning method: a name in `conpet.methods.METHODS`.
    """

    name: str = "dynamic"


class ModuleConfig(ComponentConfig):
    """The PET modules.

    Attributes:
        kind: Kind of PET module: a name in `conpet.modules.kinds.MODULE_KINDS`.
    """

    key = "kind"

    kind: str = "lora"

    @property
    def shape(self) -> dict[str, Any]:
        """The settings that determine the parameters of a module, by name."""
        return {name: getattr(self, name) for name in type(self).model_fields if name not in self.budget}


class HeadConfig(ComponentConfig):
    """The head of a task.

    Attributes:
        name: The head: a name in `conpet.heads.HEADS`.
    """

    name: str = "labels"


class SelectorConfig(ComponentConfig):
    """How the candidate tasks of an input are found.

    Attributes:
        name: The selector: a name in `conpet.selectors.SELECTORS`.
        top_k: Number of pre-selected tasks per input, whose modules are run.
    """

    name: str = "linear"
    top_k: Positive = 1


class FusionConfig(ComponentConfig):
    """How the scores of selector, modules and classifiers are combined into one ranking over all labels.

    Attributes:
        name: The fusion: a name in `conpet.fusion.FUSIONS`.
        calibration_examples: Held-out examples per task for fitting its weights, half of them from older tasks.
    """

    budget = frozenset({"calibration_examples"})

    name: str = "calibrated"
    calibration_examples: Positive = 400


class ScheduleConfig(ComponentConfig):
    """How past examples are selected for replay.

    Attributes:
        name: The schedule: a name in `conpet.replay.SCHEDULES`.
    """

    name: str = "dynamic"


class ChosenBy(Choice):
    """Marks a field as the settings of a component chosen by name.

    A string means only the name. The `Config` of the registered class defines the other settings.

    Args:
        registry: `module:attribute` path of the registry.
        base: The common settings of all components in the registry.
    """

    def __init__(self, registry: str, base: type[ComponentConfig]) -> None:
        self._path = registry
        self.base = base

    @property
    def registry(self) -> Registry:
        """The registry."""
        module, _, attribute = self._path.partition(":")
        registry: Registry = getattr(import_module(module), attribute)
        return registry

    def default(self) -> Any:
        """Return the default settings."""
        return self.resolve({})

    def class_for(self, value: Any) -> type[ComponentConfig] | None:
        """Return the settings class of a value: a mapping, a name, or None for the default component."""
        name = value.get(self.base.key) if isinstance(value, Mapping) else value
        name = self.base.model_fields[self.base.key].default if name is None else name
        return self.config_of(name) if isinstance(name, str) and name in self.registry else None

    def config_of(self, name: str) -> type[ComponentConfig]:
        """Return the settings class of a component.

        Raises:
            UnknownNameError: No component of that name is registered.
            ConfigError: Its `Config` is not a subclass of `base`.
        """
        config: type[ComponentConfig] = self.registry.config(name, self.base)
        if not issubclass(config, self.base):
            raise ConfigError(f"{self.registry.kind} {name!r}: its Config must be a subclass of {self.base.__name__}")
        return config

    def resolve(self, value: Any) -> Any:
        """Return the settings of a component from a mapping, a name, or settings."""
        if isinstance(value, ComponentConfig):
            return value
        given = {self.base.key: value} if isinstance(value, str) else value
        if not isinstance(given, Mapping):
            return given  # pydantic reports the error
        name = given.get(self.base.key, self.base.model_fields[self.base.key].default)
        if not isinstance(name, str):
            raise ValueError(f"{self.base.key} must be a name, not {name!r}")  # noqa: TRY004 - pydantic's protocol
        return self.config_of(name).model_validate({**given, self.base.key: name})

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Resolve the value before the field validates it."""
        return core_schema.no_info_before_validator_function(self.resolve, handler(source))
