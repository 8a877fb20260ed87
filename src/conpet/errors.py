"""Every error conpet raises on purpose: a `ConpetError` that is also the built-in a caller would catch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches


class ConpetError(Exception):
    """Base of all errors raised on purpose; its message says what, where and what to do."""


class ConfigError(ConpetError, ValueError):
    """A setting is unknown, out of range, or contradicts another."""


class DivergedError(ConfigError):
    """Training has left the finite numbers: its learning rate is too high."""


class UnknownNameError(ConpetError, LookupError):
    """A name (backbone, method, selector, task, module version, label) is not known here."""


class BackboneError(ConpetError, RuntimeError):
    """A backbone cannot be loaded or used as asked."""


class OutOfMemoryError(ConpetError, MemoryError):
    """Memory ran out."""


class BackboneMismatchError(ConpetError, ValueError):
    """A workspace is opened with another backbone than the one it was made with."""


class AccuracyBoundError(ConpetError, ValueError):
    """A change would cost more accuracy than its bound allows; nothing was changed."""


class HiddenLabelsError(ConpetError, PermissionError):
    """What learns or chooses asked for labels of test examples, which are for the metrics alone."""


class DownloadError(ConpetError, OSError):
    """An embedded model could not be fetched, or what came is not what was pinned."""


class WorkspaceExistsError(ConpetError, FileExistsError):
    """A workspace is created where one, or something else, already stands."""


class WorkspaceNotFoundError(ConpetError, FileNotFoundError):
    """There is no workspace at the path given."""


class WorkspaceBusyError(ConpetError, TimeoutError):
    """Another process is changing the workspace."""


class CorruptionError(ConpetError, OSError):
    """Something on disk is not what was written: a wrong hash, a missing or surplus tensor, another schema."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with the data a user gave.

    Attributes:
        file: Path of the file as the user named it, or a description of the source.
        row: Row number counted from 1 as the user sees it (a CSV's header is row 1), or None for the whole file.
        reason: What is wrong and, where it helps, what would be right.
    """

    file: str
    row: int | None
    reason: str

    def __str__(self) -> str:
        return f"{self.file}: row {self.row}: {self.reason}" if self.row is not None else f"{self.file}: {self.reason}"


class DataError(ConpetError, ValueError):
    """Data given by the user is wrong; `problems` lists every wrong row. Nothing was learned from it.

    The message shows the first of them, file by file in the order of rows.
    """

    SHOWN = 20

    def __init__(self, summary: str, problems: Sequence[Problem] = ()) -> None:
        self.summary = summary
        self.problems = tuple(problems)
        place = {file: number for number, file in enumerate(dict.fromkeys(problem.file for problem in self.problems))}
        by_row = sorted(self.problems, key=lambda problem: (place[problem.file], problem.row or 0))
        shown = [f"  {problem}" for problem in by_row[: self.SHOWN]]
        if len(self.problems) > self.SHOWN:
            shown.append(f"  ... and {len(self.problems) - self.SHOWN} more")
        super().__init__("\n".join([summary, *shown]))


_OUT_OF_MEMORY = ("out of memory", "defaultcpuallocator", "allocate memory", "bad_alloc", "alloc_failed")
"""What messages of memory that ran out contain: torch's of either device, the system's, C++'s, cuBLAS's."""


LESS_MEMORY = "Free some, or use a smaller backbone, bfloat16, smaller batches or another device"


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that memory ran out; torch raises a plain `RuntimeError` for that on a CPU."""
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in _OUT_OF_MEMORY)


def check_memory(error: Exception, doing: str) -> None:
    """Raise an error on, with a message that helps, if it means that memory ran out; else do nothing.

    To be called where errors are taken for an answer ("it cannot be cut"): out of memory is none.

    Args:
        error: What was caught.
        doing: What was under way, after "while".

    Raises:
        OutOfMemoryError: Memory ran out.
    """
    if is_out_of_memory(error):
        raise OutOfMemoryError(f"memory ran out while {doing} ({error}). {LESS_MEMORY}") from error


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return " (did you mean 'x'?)" where a known name is close to one that is not known, else "" (for messages)."""
    close = get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
