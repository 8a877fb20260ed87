"""The errors of conpet: each is a `ConpetError` and also the built-in error that a caller would catch."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from enum import StrEnum
from typing import Any


class ConpetError(Exception):
    """Base class of conpet's errors. Messages say what is wrong, where, and what to do.

    Attributes:
        request_id: Id of the request at a server, for its operator; None for an error of this process.
    """

    request_id: str | None = None


class ConfigError(ConpetError, ValueError):
    """A setting is unknown, out of range, or contradicts another."""


class PluginError(ConpetError, RuntimeError):
    """A component of another package cannot be imported, or does not do what its contract says."""


class DivergedError(ConfigError):
    """Training diverged to infinite or undefined numbers; usually the learning rate is too high."""


class UnknownNameError(ConpetError, LookupError):
    """A name (backbone, method, selector, task, module version, label) is unknown."""


class BackboneError(ConpetError, RuntimeError):
    """A backbone cannot be loaded or used in this way."""


class StoppedError(ConpetError, RuntimeError):
    """A progress callback stopped a change; nothing was committed, and training can resume from a checkpoint."""


class OutOfMemoryError(ConpetError, MemoryError):
    """Memory ran out."""


class BackboneMismatchError(ConpetError, ValueError):
    """A workspace was opened with a backbone that differs from its own."""


class AccuracyBoundError(ConpetError, ValueError):
    """A change would cost more accuracy than its bound allows; nothing was changed."""


class GateRefusedError(AccuracyBoundError):
    """The gate refused a change, because it would make earlier answers worse; it is kept as a candidate.

    Attributes:
        candidate: Number of the candidate.
        report: The comparison (`conpet.types.GateReport`).
    """

    def __init__(self, message: str, candidate: int, report: Any) -> None:
        self.candidate = candidate
        self.report = report
        super().__init__(message)


class CandidateOutdatedError(ConpetError, LookupError):
    """The workspace has changed since a candidate was made, so it cannot be made any more."""


class HiddenLabelsError(ConpetError, PermissionError):
    """Code that learns or chooses tried to read labels of test examples, which only the metrics may read."""


class DownloadError(ConpetError, OSError):
    """An embedded model could not be downloaded, or differs from its pinned version."""


class WorkspaceExistsError(ConpetError, FileExistsError):
    """The path for a new workspace or folder already exists."""


class WorkspaceNotFoundError(ConpetError, FileNotFoundError):
    """There is no workspace at the path."""


class WorkspaceBusyError(ConpetError, TimeoutError):
    """Another process is changing the workspace."""


class ReadOnlyError(ConpetError, PermissionError):
    """A workspace was to be changed by a user without write permission, or on a read-only file system."""


class DiskFullError(ConpetError, OSError):
    """The disk is full, or a quota is used up; nothing was changed."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.errno = errno.ENOSPC


class CorruptionError(ConpetError, OSError):
    """Data on disk differs from what was written: a wrong hash, a missing or extra tensor, another schema."""


class DamagedModuleError(CorruptionError):
    """Some inputs need a module that is damaged on disk; the others can be predicted.

    Attributes:
        inputs: Numbers of the inputs that need it, ascending; `predict` counts from 1.
    """

    def __init__(self, damage: str, inputs: Sequence[int]) -> None:
        self.inputs = tuple(inputs)
        super().__init__(damage)


class TooManyJobsError(ConpetError, TimeoutError):
    """Too many jobs wait already."""


class ReviewConflictError(ConpetError, LookupError):
    """Another reviewer has the item, or its answer can no longer be changed."""


class IdempotencyError(ConpetError, ValueError):
    """An idempotency key was used before, for another request."""


class ServerError(ConpetError, RuntimeError):
    """A server failed, or answered in a way that conpet does not know."""


class ServerBusyError(ConpetError, TimeoutError):
    """A server is overloaded, loading or stopping, or did not answer in time; try again later."""


class ServerUnreachableError(ConpetError, ConnectionError):
    """No connection to a server, or it was lost."""


class AccessError(ConpetError, PermissionError):
    """A server refused the API key, or its role does not allow the request."""


class JobFailedError(ConpetError, RuntimeError):
    """A job failed or was cancelled; the message says why."""


_REASONS = 3
"""Most reasons of problems that are counted one by one."""


class Scope(StrEnum):
    """What a problem with a row concerns.

    Attributes:
        ROW: Only that row.
        PARSING: That row as it was read: with other options, such as the encoding, it may be right.
        REST: The rest of the file, too: nothing after the row was read.
    """

    ROW = "row"
    PARSING = "parsing"
    REST = "rest"


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem in the user's data.

    Attributes:
        file: Path of the file as the user named it, or a description of the source.
        row: Row number counted from 1 as the user sees it (a CSV's header is row 1), or None for the whole file.
        reason: What is wrong and, if it helps, what would be right.
        id: The row's own id, or None.
        scope: What a problem with a row concerns; without a row, it concerns the whole file.
    """

    file: str
    row: int | None
    reason: str
    id: Any = field(default=None, compare=False)
    scope: Scope = field(default=Scope.ROW, compare=False)

    @property
    def ends_reading(self) -> bool:
        """Whether it concerns the whole file or its rest, and not only one row."""
        return self.row is None or self.scope is Scope.REST

    @property
    def concerns_file(self) -> bool:
        """Whether it concerns more than the row, so that dropping the row does not fix it."""
        return self.row is None or self.scope is not Scope.ROW

    def __str__(self) -> str:
        return f"{self.file}: row {self.row}: {self.reason}" if self.row is not None else f"{self.file}: {self.reason}"


class DataError(ConpetError, ValueError):
    """The user's data is wrong, and nothing was learned from it; `problems` lists every wrong row.

    The message shows the first problems, by file and row, and counts the others. What is wrong in many rows of a file
    is one problem, with the numbers of the rows.
    """

    SHOWN = 10

    def __init__(self, summary: str, problems: Sequence[Problem] = ()) -> None:
        self.summary = summary
        self.problems = tuple(problems)
        super().__init__("\n".join([summary, *self.lines(self.SHOWN)]))

    def lines(self, most: int | None = None) -> list[str]:
        """Return the problems as indented lines: at most so many and the number of the others, or all."""
        same: dict[tuple[str, str], list[Problem]] = {}
        for problem in self.problems:
            if problem.row is not None:
                same.setdefault((problem.file, problem.reason), []).append(problem)
        joined = {key: _row_ranges(rows) for key, rows in same.items() if len(rows) > self.SHOWN}
        by_text: dict[str, list[Problem]] = {}
        for problem in self.in_order():
            text = joined.get((problem.file, problem.reason), str(problem))
            by_text.setdefault(text, []).append(problem)
        shown = list(by_text)[:most]
        omitted = [problem for text in list(by_text)[len(shown) :] for problem in by_text[text]]
        lines = [f"  {text}" for text in shown if not self.summary.startswith(text)]
        return [*lines, f"  ... and {_summary(omitted)}"] if omitted else lines

    def in_order(self) -> list[Problem]:
        """Return the problems by file, in the order in which the files are first named, and by row."""
        order = {file: number for number, file in enumerate(dict.fromkeys(problem.file for problem in self.problems))}
        return sorted(self.problems, key=lambda problem: (order[problem.file], problem.row or 0))


def _row_ranges(problems: Sequence[Problem]) -> str:
    """Return the same problem of many rows of a file in one line."""
    numbers = {problem.row or 0 for problem in problems}
    starts = sorted(row for row in numbers if row - 1 not in numbers)
    ends = sorted(row for row in numbers if row + 1 not in numbers)
    ranges = [str(start) if start == end else f"{start}-{end}" for start, end in zip(starts, ends, strict=True)]
    first = problems[0]
    return f"{first.file}: {len(problems):,} rows ({', '.join(ranges)}): {first.reason}"


def _summary(problems: Sequence[Problem]) -> str:
    """Return how many more problems there are, with their reasons if these are few."""
    reasons = Counter(problem.reason for problem in problems)
    number = f"{len(problems):,} more"
    if len(reasons) > _REASONS:
        return number
    return f"{number}: {', '.join(f'{reason} ({count:,})' for reason, count in reasons.most_common())}"


_OUT_OF_MEMORY = ("out of memory", "defaultcpuallocator", "allocate memory", "bad_alloc", "alloc_failed")
"""Parts of out-of-memory messages of torch (CPU and CUDA), the operating system, C++ and cuBLAS."""


LESS_MEMORY = "Free some memory, or use a smaller backbone, bfloat16, smaller batches or another device"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that memory ran out; on a CPU, torch raises a plain `RuntimeError` for that."""
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in _OUT_OF_MEMORY)


_SYSTEM_ERRORS = {
    errno.EACCES: "permission denied; check its owner and its mode (`ls -l`), or run as another user",
    errno.EPERM: "not permitted; check its owner and its mode (`ls -l`), or run as another user",
    errno.ENOENT: "no such file or folder; check the path",
    errno.ENOTDIR: "a part of the path is a file, not a folder; check the path",
    errno.EISDIR: "it is a folder; name a file",
    errno.EEXIST: "it exists already; name another place, or move it away",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.ENOSPC: "the disk is full; free some space, and try again",
    errno.EDQUOT: "the disk quota is used up; free some space, and try again",
    errno.EROFS: "the file system is read-only; use another folder",
    errno.EIO: "the disk reports an error; check the disk",
    errno.EMFILE: "too many files are open; raise the limit (`ulimit -n`)",
    errno.ENFILE: "too many files are open on this machine; end other programs",
}
"""What errors of the system mean, and what to do."""


def reason_of(error: BaseException, named: str | os.PathLike[str] | None = None, *, advice: bool = True) -> str:
    """Return why something failed, for a message: errors of the system in words, with their file.

    Args:
        error: The error.
        named: The file that the message names already.
        advice: Whether to say what to do; not if the message does.
    """
    if not isinstance(error, OSError) or isinstance(error, ConpetError) or error.errno is None:
        return str(error) or type(error).__name__
    standard = os.strerror(error.errno)
    reason = _SYSTEM_ERRORS.get(error.errno, standard.lower())
    if error.strerror and error.strerror != standard:
        reason = error.strerror  # conpet, or Python, says more
    elif not advice:
        reason = reason.partition("; ")[0]
    return reason if error.filename is None or str(error.filename) == str(named) else f"{error.filename}: {reason}"


def is_disk_full(error: BaseException) -> bool:
    """Return whether an error means that the disk is full, or a quota used up."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def check_memory(error: Exception, doing: str) -> None:
    """Raise `OutOfMemoryError`, with advice, if an error means that memory ran out; otherwise do nothing.

    Call it in an `except` block that treats errors as a result ("this model cannot be cut").

    Args:
        error: The caught error.
        doing: The operation, as it continues "memory ran out while".

    Raises:
        OutOfMemoryError: Memory ran out.
    """
    if is_out_of_memory(error):
        raise OutOfMemoryError(f"memory ran out while {doing} ({error}). {LESS_MEMORY}") from error


def plural(number: int, noun: str) -> str:
    """Format a number with its noun: "1 task", "1,000 tasks", "2 addresses"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}{'es' if noun.endswith('s') else 's'}"


def listed(items: Sequence[object], most: int = 20) -> str:
    """Join items with commas; only the first ones if there are many."""
    return ", ".join([*map(str, items[:most]), *(["..."] if len(items) > most else [])])


def did_you_mean(name: str, known: Iterable[str], prefix: str = "") -> str:
    """Return " (did you mean 'x'?)" if a known name is close to an unknown one, otherwise "" (for messages).

    Args:
        name: The unknown name.
        known: The known names.
        prefix: What the message puts before the known name ("module.").
    """
    close = get_close_matches(name, list(known), n=1)
    return f" (did you mean {prefix + close[0]!r}?)" if close else ""
