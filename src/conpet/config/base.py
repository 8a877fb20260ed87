"""Frozen, typed settings that refuse unknown keys, and messages that say what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Self, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from conpet.errors import ConfigError, did_you_mean

Positive = Annotated[int, Field(ge=1)]
Item = TypeVar("Item")
NonEmpty = Annotated[tuple[Item, ...], Field(min_length=1)]
Parsed = TypeVar("Parsed", bound="StrictModel")


class StrictModel(BaseModel):
    """Values a user gives: typed and frozen; unknown keys are refused.

    Attributes:
        noun: What messages call a field.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    noun: ClassVar[str] = "setting"

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """Check values given by a user; dotted keys (`{"module.rank": 4}`) stand for nested ones.

        Raises:
            ConfigError: A value is unknown or out of range; the message names every such value.
            UnknownNameError: A component of that name does not exist.
        """
        return parse(cls, nested(values))


def parse(cls: type[Parsed], values: Mapping[str, Any]) -> Parsed:
    """Check nested values; see `StrictModel.parse`."""
    try:
        return cls.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError(explain(error, cls, values)) from None


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values with dotted keys taken apart: `{"module.rank": 4}` becomes `{"module": {"rank": 4}}`.

    Raises:
        ConfigError: A key is given twice, or a section both as a whole and in parts that do not fit together.
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
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def explain(error: ValidationError, cls: type[StrictModel], values: Any) -> str:
    """Say in one line what is wrong, every setting by its dotted name."""
    lines = []
    for one in error.errors():
        path = one["loc"]
        name = ".".join(str(part) for part in path)
        if one["type"] == "extra_forbidden":
            lines.append(_unknown(cls, path, values))
        elif not name or one["type"] == "value_error":
            message = one["msg"].removeprefix("Value error, ")
            lines.append(f"{name}: {message}" if name and not message.startswith(name) else message)
        else:
            lines.append(f"{cls.noun} {name!r}: {one['msg']} (got {one['input']!r})")
    return "; ".join(dict.fromkeys(lines))


def _unknown(cls: type[StrictModel], path: Sequence[int | str], values: Any) -> str:
    *above, key = path
    holder = class_at(cls, above, values) or cls
    known = sorted(holder.model_fields)
    told = holder.about_unknown(str(key)) if isinstance(holder, type) and issubclass(holder, Sectioned) else None
    if told:
        return told
    name = ".".join(map(str, path))
    return f"unknown {holder.noun} {name!r}{did_you_mean(str(key), known)}; have: {', '.join(known) or 'none'}"


class Sectioned(StrictModel):
    """Settings made of sections."""

    @classmethod
    def about_unknown(cls, key: str) -> str | None:
        """Return a message about an unknown key where there is more to say than that; else None."""
        return None


class Choice:
    """Marks a field whose class depends on a name in its value; see `conpet.config.components`."""

    def class_for(self, value: Any) -> type[StrictModel] | None:
        """Return the class of a value's settings, or None where the value names none."""
        raise NotImplementedError


def class_at(kind: Any, path: Sequence[int | str], values: Any) -> type[StrictModel] | None:
    """Return the class of the settings at a path of keys below a value of a kind."""
    if isinstance(kind, type) and issubclass(kind, StrictModel):
        if not path:
            return kind
        field = kind.model_fields.get(str(path[0]))
        if field is None:
            return None
        value = values.get(path[0]) if isinstance(values, Mapping) else None
        chosen = next((mark.class_for(value) for mark in field.metadata if isinstance(mark, Choice)), None)
        return class_at(chosen or field.annotation, path[1:], value)
    if get_origin(kind) is Mapping:
        value = values.get(path[0]) if isinstance(values, Mapping) else None
        return class_at(get_args(kind)[1], path[1:], value)
    return next(filter(None, (class_at(one, path, values) for one in get_args(kind))), None)
