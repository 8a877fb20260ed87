"""Base classes of frozen, typed settings, and their error messages."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import NoneType
from typing import Annotated, Any, ClassVar, Self, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from conpet.errors import ConfigError, did_you_mean

Positive = Annotated[int, Field(ge=1)]
Width = Annotated[int, Field(ge=1, le=4096)]
"""Size of a trained part, such as a rank: bounded, so that a task from elsewhere cannot exhaust the memory."""
Epochs = Annotated[int, Field(ge=1, le=10_000)]
Item = TypeVar("Item")
NonEmpty = Annotated[tuple[Item, ...], Field(min_length=1)]
Parsed = TypeVar("Parsed", bound="StrictModel")


class StrictModel(BaseModel):
    """Typed and frozen values from a user; unknown keys are refused.

    Attributes:
        noun: Name of a field in messages.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    noun: ClassVar[str] = "setting"

    @field_validator("*", mode="before")
    @classmethod
    def _as_meant(cls, value: Any, info: ValidationInfo) -> Any:
        """Take `none` as it is shown for None, and refuse true and false where a number is expected."""
        if not isinstance(value, (bool, str)):
            return value
        kinds = _kinds(cls.model_fields[str(info.field_name)].annotation)
        if value == "none" and NoneType in kinds and str not in kinds:
            return None
        if isinstance(value, bool) and kinds & {int, float} and bool not in kinds:
            raise ValueError(f"must be a number (got {value!r})")
        return value

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """Parse values from a user; dotted keys (`{"module.rank": 4}`) mean nested ones.

        Raises:
            ConfigError: A value is unknown or out of range; the message names every such value.
            UnknownNameError: A component of that name does not exist.
        """
        return parse(cls, nested(values))


def _kinds(annotation: Any) -> set[Any]:
    """Return the classes that a type annotation is made of."""
    parts = get_args(annotation)
    return set().union(*map(_kinds, parts)) if parts else {annotation}


def parse(cls: type[Parsed], values: Mapping[str, Any]) -> Parsed:
    """Parse nested values; see `StrictModel.parse`."""
    try:
        return cls.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError(explain(error, cls, values)) from None


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values with dotted keys expanded: `{"module.rank": 4}` becomes `{"module": {"rank": 4}}`.

    Raises:
        ConfigError: A key is given twice, or a section in conflicting parts.
    """
    result: dict[str, Any] = {}
    for key, value in values.items():
        section, dot, rest = str(key).partition(".")
        if not dot:
            given: Any = nested(value) if isinstance(value, Mapping) else value
        else:
            given = nested({rest: value})
        result[section] = _combined(section, result[section], given) if section in result else given
    return result


def _combined(key: str, first: Any, second: Any) -> Any:
    if isinstance(first, Mapping) and isinstance(second, Mapping) and not first.keys() & second.keys():
        return {**first, **second}
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        shared = next(iter(first.keys() & second.keys()))
        return {**first, **second, shared: _combined(f"{key}.{shared}", first[shared], second[shared])}
    raise ConfigError(f"{key!r} is given twice: {first!r} and {second!r}; give it once")


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values by their dotted keys; the inverse of `nested`."""
    dotted: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            dotted |= flat(value, f"{prefix}{name}.")
        else:
            dotted[f"{prefix}{name}"] = value
    return dotted


def explain(error: ValidationError, cls: type[StrictModel], values: Any) -> str:
    """Return a one-line message with the dotted name of every wrong setting."""
    lines = []
    for detail in error.errors():
        path = detail["loc"]
        name = ".".join(str(part) for part in path)
        if detail["type"] == "extra_forbidden":
            lines.append(_unknown(cls, path, values))
        elif not name or detail["type"] == "value_error":
            message = detail["msg"].removeprefix("Value error, ")
            lines.append(f"{name}: {message}" if name and not message.startswith(name) else message)
        else:
            lines.append(f"{cls.noun} {name!r}{worded(detail['msg'])} (got {detail['input']!r})")
    return "; ".join(dict.fromkeys(lines))


_PLAIN = {"Field required": " is missing", "Extra inputs are not permitted": ": unknown field"}
_SUBJECT = re.compile(r"(Input|Value|String|List|Tuple|Dictionary) should ")
_COUNTED = re.compile(r" after validation, not \d+$")


def worded(message: str) -> str:
    """Return a message of Pydantic as it follows the name of the value that is wrong."""
    if message in _PLAIN:
        return _PLAIN[message]
    if (subject := _SUBJECT.match(message)) is None:
        return f": {message}"
    return f" must {_COUNTED.sub('', message[subject.end() :])}"


def _unknown(cls: type[StrictModel], path: Sequence[int | str], values: Any) -> str:
    *above, key = path
    holder = class_at(cls, above, values) or cls
    known = sorted(holder.model_fields)
    message = holder.about_unknown(str(key)) if isinstance(holder, type) and issubclass(holder, Sectioned) else None
    if message:
        return message
    prefix = "".join(f"{part}." for part in above)
    hint = did_you_mean(str(key), known, prefix)
    return f"unknown {holder.noun} {prefix + str(key)!r}{hint}; have: {', '.join(known) or 'none'}"


class Sectioned(StrictModel):
    """Settings made of sections."""

    @classmethod
    def about_unknown(cls, key: str) -> str | None:
        """Return a specific message for an unknown key, or None for the general one."""
        return None


class Choice:
    """Marks a field whose class depends on a name in its value, see `conpet.config.components`."""

    def class_for(self, value: Any) -> type[StrictModel] | None:
        """Return the settings class of a value, or None if the value names no component."""
        raise NotImplementedError


def class_at(kind: Any, path: Sequence[int | str], values: Any) -> type[StrictModel] | None:
    """Return the settings class at a path of keys below a value."""
    if isinstance(kind, type) and issubclass(kind, StrictModel):
        if not path:
            return kind
        field = kind.model_fields.get(str(path[0]))
        if field is None:
            return None
        value = values.get(path[0]) if isinstance(values, Mapping) else None
        chosen = next((mark.class_for(value) for mark in field.metadata if isinstance(mark, Choice)), None)
        return class_at(chosen or field.annotation, path[1:], value)
    if get_origin(kind) is tuple and path and isinstance(path[0], int):
        items = values if isinstance(values, Sequence) and path[0] < len(values) else ()
        return class_at(get_args(kind)[0], path[1:], items[path[0]] if items else None)
    if get_origin(kind) is Mapping:
        value = values.get(path[0]) if isinstance(values, Mapping) else None
        return class_at(get_args(kind)[1], path[1:], value)
    return next(filter(None, (class_at(option, path, values) for option in get_args(kind))), None)
