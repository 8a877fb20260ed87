"""What the verbs print with: results on the standard output, everything else on the standard error."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from conpet.errors import DataError

Stages = Callable[[str, float], None]
Watch = Callable[[str], Any]

INTERRUPTED = 130
"""Exit status after Ctrl-C."""
_PLAIN_SECONDS = 10.0
"""How long a log that nobody watches goes without a line while one stage runs."""
_STAGE_NAMES = {
    "prefix": "reading examples",
    "module": "training the module",
    "evaluation": "evaluating",
    "search": "trying designs",
}


def output() -> Console:
    """Return the console of results."""
    return Console(highlight=False)


def messages() -> Console:
    """Return the console of progress, notes and errors."""
    return Console(stderr=True, highlight=False)


def line(text: str, console: Console | None = None, style: str | None = None) -> None:
    """Print one line as it is: no markup is read into it, and a terminal's width does not break it."""
    (console or output()).print(text, style=style, markup=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """Print a value as indented JSON, non-ASCII text as it is."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def print_error(error: Exception, *, everything: bool = False) -> None:
    """Print an error's message; of wrong data every row where `everything`, or where nobody watches the screen."""
    console = messages()
    text = str(error)
    if isinstance(error, DataError) and len(error.problems) > error.SHOWN:
        if everything or not console.is_terminal:
            text = "\n".join([error.summary, *(f"  {problem}" for problem in error.problems)])
        else:
            shown = [f"  {problem}" for problem in error.problems[: error.SHOWN]]
            left_out = f"  ... and {len(error.problems) - error.SHOWN} more (redirect the standard error to a file)"
            text = "\n".join([error.summary, *shown, left_out])
    console.print("error:", style="bold red", end=" ")
    line(text, console)


@contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Print Python's warnings as one line each, without the line of code they come from."""

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        source: str | None = None,
    ) -> None:
        line(f"warning: {message}", messages(), "yellow")

    with warnings.catch_warnings():
        warnings.showwarning = show  # type: ignore[assignment] # its last parameter is called `line`
        yield


@contextmanager
def stages(title: str) -> Iterator[Stages]:
    """Show how far each stage of a change is: a bar on a terminal, else a line now and then.

    Args:
        title: What the stages are of.
    """
    console = messages()
    if not console.is_terminal:
        yield _plain_stages(title, console)
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(24), TaskProgressColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
        bar = progress.add_task(title, total=1.0)

        def show(stage: str, share: float) -> None:
            progress.update(bar, description=f"{title}: {_STAGE_NAMES.get(stage, stage)}", completed=share)

        yield show


def _plain_stages(title: str, console: Console) -> Stages:
    said: tuple[str, float] = ("", 0.0)

    def show(stage: str, share: float) -> None:
        nonlocal said
        last, when = said
        name = _STAGE_NAMES.get(stage, stage)
        if stage != last:
            line(f"{title}: {name}", console)
        elif monotonic() - when >= _PLAIN_SECONDS:
            line(f"{title}: {name}, {share:.0%}", console)
        else:
            return
        said = (stage, monotonic())

    return show


@contextmanager
def counting(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show how many of a number of things are done: a bar on a terminal, else a line now and then."""
    console = messages()
    if not console.is_terminal:
        yield _plain_counting(title, total, console)
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(24), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, transient=True) as progress:
        bar = progress.add_task(title, total=total)
        yield lambda done: progress.update(bar, advance=done)


def _plain_counting(title: str, total: int | None, console: Console) -> Callable[[int], None]:
    done, said = 0, monotonic()

    def count(more: int) -> None:
        nonlocal done, said
        done += more
        if monotonic() - said >= _PLAIN_SECONDS:
            of_all = "" if total is None else f" of {total:,}"
            line(f"{title}: {done:,}{of_all}", console)
            said = monotonic()

    return count
