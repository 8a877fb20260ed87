"""How the commands' help reads: whole sentences on a line, short names for values, limits in words."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

_PLACEHOLDERS = {int: "N", float: "NUMBER", Path: "PATH"}
"""Placeholders of the values of options that have none of their own; for all other types it is NAME."""
_NUMBERS = {"int_parsing": "a whole number", "int_from_float": "a whole number", "float_parsing": "a number"}
"""What a value should have been, by Pydantic's type of the error."""
_WITHIN_SENTENCE = re.compile(r"(?<![.:!?\n])\n[ \t]*(?=\S)")
_BRACED = re.compile(r"\{(.*?)(\.\.\.)?\}(\.\.\.)?")


class App(typer.Typer):
    """A group of commands whose help is readable."""

    def __init__(self, **options: Any) -> None:
        super().__init__(cls=_Group, **options)

    def command(self, name: str | None = None, **options: Any) -> Callable[[Decorated], Decorated]:
        """Return a decorator that makes a function a command; arguments as those of `typer.Typer.command`."""
        return super().command(name, cls=_Command, **options)


class _Readable:
    """Adapts the help text, parameters and usage line of a command."""

    params: list[Any]

    def __init__(self, *args: Any, help: str | None = None, **options: Any) -> None:  # noqa: A002 - typer's name
        joined = _WITHIN_SENTENCE.sub(" ", help) if help else help
        super().__init__(*args, help=joined, **options)  # type: ignore[call-arg]
        for parameter in self.params:
            _describe(parameter)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse arguments; a wrong number is reported in the words of this program."""
        try:
            return super().parse_args(ctx, args)  # type: ignore[misc, no-any-return]
        except typer.BadParameter as error:
            if message := _number_message(error):
                error.message = message
            raise

    def get_help_option(self, ctx: Any) -> Any:
        """Return the option --help."""
        option = super().get_help_option(ctx)  # type: ignore[misc]
        if option is not None:
            _describe(option)
        return option

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the parts of the usage line, with required arguments as plain words."""
        pieces: list[str] = super().collect_usage_pieces(ctx)  # type: ignore[misc]
        return [_BRACED.sub(lambda found: found[1] + (found[2] or found[3] or ""), piece) for piece in pieces]


class _Command(_Readable, TyperCommand):
    pass


class _Group(_Readable, TyperGroup):
    pass


def _describe(parameter: Any) -> None:
    """Give a parameter a placeholder and say its limits in its help; a flag and an argument show no type."""
    least, most = getattr(parameter, "min", None), getattr(parameter, "max", None)
    if limits := _limits(least, most):
        parameter.help = f"{parameter.help or ''} {limits}".lstrip()
    parameter._get_number_range_help_str = lambda: None
    if parameter.param_type_name == "argument" or parameter.is_flag:
        parameter.display_type_rich = lambda ctx: None
    elif parameter.metavar is None:
        parameter.metavar = _PLACEHOLDERS.get(parameter.type_descriptor.annotation, "NAME")


def _number_message(error: typer.BadParameter) -> str | None:
    """Return what is wrong with a number, or None if the error has another reason."""
    from pydantic import ValidationError

    causes = error.__cause__.errors() if isinstance(error.__cause__, ValidationError) else []
    if len(causes) != 1:
        return None
    given, kind = causes[0]["input"], causes[0]["type"]
    if kind in _NUMBERS:
        return f"{given!r} is not {_NUMBERS[kind]}"
    if kind not in ("greater_than_equal", "less_than_equal"):
        return None
    least, most = getattr(error.param, "min", None), getattr(error.param, "max", None)
    limits = _limits(least, most) or "0 or more."
    return f"{given} is out of range: {limits[0].lower()}{limits[1:-1]}"


def _limits(least: float | None, most: float | None) -> str:
    """Return the limits of a number as a sentence; nothing for "0 or more", which goes without saying."""
    if least is not None and most is not None:
        return f"From {least:g} to {most:g}."
    if most is not None:
        return f"At most {most:g}."
    return f"At least {least:g}." if least else ""
