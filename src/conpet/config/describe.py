"""List all settings with defaults and meanings from the settings classes, for help and documentation."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

from conpet.config.base import StrictModel
from conpet.config.components import ChosenBy, ComponentConfig
from conpet.config.settings import Settings, TaskSettings
from conpet.errors import ConfigError, PluginError


class SettingRow(NamedTuple):
    """A setting.

    Attributes:
        name: Its dotted name.
        default: Its default, as written in YAML.
        meaning: Its meaning, in plain text.
        component: Names of the components that have it; None if all components of its section do.
        per_task: Whether it can be set per task.
    """

    name: str
    default: str
    meaning: str
    component: str | None
    per_task: bool


def describe_settings() -> list[SettingRow]:
    """Return all settings by section, including those of components of other packages."""
    rows: list[SettingRow] = []
    for section in _SECTIONS:
        field = Settings.model_fields[section]
        per_task = section in TaskSettings.model_fields
        choice = _choice(field)
        if choice is not None:
            rows += _component_rows(section, choice, per_task)
        elif isinstance(field.annotation, type) and issubclass(field.annotation, StrictModel):
            rows += _rows(section, field.annotation, per_task)
        else:
            rows.append(SettingRow(section, shown(field.default), _meanings(Settings)[section], None, per_task))
    return rows


_SECTIONS = (
    "backbone",
    "features",
    "method",
    "module",
    "head",
    "training",
    "selector",
    "fusion",
    "replay",
    "consolidation",
    "gate",
    "refusal",
    "prices",
    "log",
    "seed",
)


def _component_rows(section: str, choice: ChosenBy, per_task: bool) -> Iterator[SettingRow]:
    """Yield the common settings of the components of a section, then those of single components."""
    base = choice.base
    configs = dict(_configs(choice))
    own = [f"`{name}`" for name in configs]
    for row in _rows(section, base, per_task):
        chosen = row.name == f"{section}.{base.key}"
        yield row._replace(meaning=f"{row.meaning.partition(':')[0]}: {', '.join(own)}.") if chosen else row
    owners: dict[SettingRow, list[str]] = {}
    for name, config in configs.items():
        for row in _rows(section, config, per_task):
            if row.name.removeprefix(f"{section}.") not in base.model_fields:
                owners.setdefault(row, []).append(name)
    for row, names in owners.items():
        yield row._replace(component=", ".join(names))


def _configs(choice: ChosenBy) -> Iterator[tuple[str, type[ComponentConfig]]]:
    """Yield the settings class of every component that can be loaded; warn of the others."""
    for name in choice.registry:
        try:
            yield name, choice.config_of(name)
        except (ConfigError, PluginError) as error:
            warnings.warn(f"{str(error).removesuffix('.')}. Left out here.", stacklevel=2)


def _rows(section: str, cls: type[StrictModel], per_task: bool) -> Iterator[SettingRow]:
    meanings = _meanings(cls)
    for name, field in cls.model_fields.items():
        key = f"{section}.{name}"
        choice = _choice(field)
        if choice is not None:
            rows = list(_component_rows(key, choice, per_task))
            named = rows[0]._replace(name=key)  # a schedule can be given by its name only
            yield from (named, *rows[1:])
        elif isinstance(field.annotation, type) and issubclass(field.annotation, StrictModel):
            yield from _rows(key, field.annotation, per_task)
        else:
            default = field.get_default(call_default_factory=True)
            yield SettingRow(key, shown(default), meanings.get(name, ""), None, per_task)


def _choice(field: Any) -> ChosenBy | None:
    return next((mark for mark in field.metadata if isinstance(mark, ChosenBy)), None)


def _meanings(cls: type[StrictModel]) -> dict[str, str]:
    """Return the meanings of fields from the docstrings of a settings class and its bases."""
    meanings: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        section = inspect.cleandoc(base.__dict__.get("__doc__") or "").partition("Attributes:")[2]
        for name, text in re.findall(r"^    (\w+): (.*?)(?=^    \w+: |\Z)", section, re.DOTALL | re.MULTILINE):
            meanings[name] = " ".join(text.split())
    return meanings


def shown(value: Any) -> str:
    """Return a value as it is written in YAML."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
