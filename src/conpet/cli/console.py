"""Printing: results to standard output, everything else to standard error."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from time import monotonic
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.measure import Measurement
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

from conpet.cost import RESUMED
from conpet.errors import ConpetError, DataError, reason_of
from conpet.report.text import with_short_labels

if TYPE_CHECKING:
    from rich.table import Table

    from conpet.data.prediction_files import Predictor
    from conpet.data.truncation import CutInputs

Stages = Callable[[str, float], None]
Watch = Callable[[str], Any]

INTERRUPTED = 130
"""Exit status after Ctrl-C."""
_PLAIN_SECONDS = 10.0
"""Seconds between lines while a stage runs and standard error is not a terminal."""
_NO_LIMIT = 10_000
"""Columns of what is no terminal."""
_STAGE_NAMES = {
    "prefix": "reading examples",
    "module": "training the module",
    "evaluation": "evaluating",
    "search": "trying designs",
    "consolidation": "tuning the backbone",
    "validation": "comparing on validation examples",
    "gate": "comparing earlier answers",
}


def output() -> Console:
    """Return the console for results. In a file or a pipe, tables are as wide as they need."""
    console = Console(highlight=False)
    return console if console.is_terminal or "COLUMNS" in os.environ else Console(highlight=False, width=_NO_LIMIT)


def messages() -> Console:
    """Return the console for progress, notes and errors."""
    return Console(stderr=True, highlight=False)


def escape_unprintable() -> None:
    """Let standard output escape what its encoding does not know, as standard error does, instead of failing."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def line(text: str, console: Console | None = None, style: str | None = None) -> None:
    """Print one line verbatim: no markup, and no line breaks at the width of the terminal."""
    (console or output()).print(text, style=style, markup=False, soft_wrap=True)


def print_table(table: Table) -> None:
    """Print a table whose cells are never cut: on a narrow terminal, its rows go on in the next line."""
    out = output()
    needed = Measurement.get(out, out.options.update(max_width=_NO_LIMIT), table).maximum
    if needed > out.width:
        out = Console(highlight=False, width=needed)
    out.print(table, soft_wrap=True)


def print_json(value: Any) -> None:
    """Print a value as indented JSON, without escaping non-ASCII text."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def shows_tables() -> bool:
    """Return whether results are read as they come: on a terminal, not in a file or another program."""
    return output().is_terminal


def print_error(error: Exception, *, everything: bool = False) -> None:
    """Print an error message; list every wrong row of a `DataError` if `everything`."""
    console = messages()
    text = reason_of(error)
    if isinstance(error, DataError):
        if everything or not console.is_terminal:
            text = "\n".join([error.summary, *error.lines()])
        elif text.rpartition("\n")[2].startswith("  ... and "):
            text = f"{text} (redirect standard error to a file to see all)"
        text = with_short_labels(text)
    if isinstance(error, ConpetError) and error.request_id:
        text = f"{text}\n(request {error.request_id})"
    console.print("error:", style="bold red", end=" ")
    line(text, console)


def print_cut(workspace: Predictor, cut: CutInputs, what: str) -> None:
    """Print how many inputs were cut because they are too long, if any were."""
    if note := workspace.cut_note(cut, what):
        line(f"note: {note}", messages(), "yellow")


@contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Print each Python warning as one line, without its source line."""

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
        warnings.showwarning = show  # type: ignore[assignment] # the last parameter is named `line` there
        yield


@contextmanager
def stages(title: str) -> Iterator[Stages]:
    """Show the progress of each stage: a bar on a terminal, otherwise a line every few seconds.

    Args:
        title: Shown before the name of each stage.
    """
    console = messages()
    if not console.is_terminal:
        yield _plain_stages(title, console)
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(24), TaskProgressColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
        bar = progress.add_task(title, total=1.0)

        def show(stage: str, share: float) -> None:
            if stage == RESUMED:
                line(_resuming(title, share), progress.console)
                return
            progress.update(bar, description=f"{title}: {_STAGE_NAMES.get(stage, stage)}", completed=share)

        yield show


def _resuming(title: str, share: float) -> str:
    return f"{title}: resuming at {share:.0%}"


def _plain_stages(title: str, console: Console) -> Stages:
    printed: tuple[str, float] = ("", 0.0)

    def show(stage: str, share: float) -> None:
        nonlocal printed
        if stage == RESUMED:
            line(_resuming(title, share), console)
            return
        last, when = printed
        name = _STAGE_NAMES.get(stage, stage)
        if stage != last:
            line(f"{title}: {name}", console)
        elif monotonic() - when >= _PLAIN_SECONDS:
            line(f"{title}: {name}, {share:.0%}", console)
        else:
            return
        printed = (stage, monotonic())

    return show


@contextmanager
def counting(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show how many items are done: a bar on a terminal, otherwise a line every few seconds."""
    console = messages()
    if not console.is_terminal:
        yield _plain_counting(title, total, console)
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(24), MofNCompleteColumn())
    times = (TimeElapsedColumn(), TimeRemainingColumn())
    # Results go to standard output as they are: redirected, long lines would be broken.
    with Progress(*columns, *times, console=console, transient=True, redirect_stdout=False) as progress:
        bar = progress.add_task(title, total=total)
        yield lambda done: progress.update(bar, advance=done)


def _plain_counting(title: str, total: int | None, console: Console) -> Callable[[int], None]:
    done, printed = 0, monotonic()

    def count(more: int) -> None:
        nonlocal done, printed
        done += more
        if monotonic() - printed >= _PLAIN_SECONDS:
            of_all = "" if total is None else f" of {total:,}"
            line(f"{title}: {done:,}{of_all}", console)
            printed = monotonic()

    return count
