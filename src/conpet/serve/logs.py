"""Logs as JSON lines on standard error. Whatever comes from outside is escaped, so a line is one entry."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from contextlib import suppress
from typing import Any, TextIO

import structlog

Log = structlog.typing.FilteringBoundLogger


def make_log(level: str, stream: TextIO | None = None) -> Log:
    """Return a log that writes entries of a level and above as JSON, one a line."""
    log: Log = structlog.wrap_logger(
        structlog.WriteLogger(_JoinedWrites(stream or sys.stderr)),  # type: ignore[arg-type]
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
    )
    return log


class _JoinedWrites:
    """Writes what is logged in one turn of an event loop at once, and everything else immediately.

    Each write gives up the interpreter's lock, and getting it back from the thread that answers takes longer than the
    write itself.

    Args:
        stream: Where to write; what it cannot take is lost, because a log must not stop answers.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._waiting: list[str] = []

    def write(self, line: str) -> None:
        """Write a line now or at the end of the event loop's turn."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            loop = None
        with self._lock:
            self._waiting.append(line)
            first = len(self._waiting) == 1
        if loop is None:
            self._write_waiting()
        elif first:
            loop.call_soon(self._write_waiting)

    def flush(self) -> None:
        """Do nothing: `write` decides when to write."""

    def _write_waiting(self) -> None:
        with self._lock, suppress(OSError, ValueError):
            lines, self._waiting = self._waiting, []
            self._stream.write("".join(lines))
            self._stream.flush()


class _Forward(logging.Handler):
    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        entry: dict[str, Any] = {"logger": record.name}
        if record.exc_info:
            entry["exc_info"] = record.exc_info
        self._log.log(record.levelno, record.getMessage(), **entry)


def forward_standard_logs(log: Log) -> None:
    """Send the warnings and errors of uvicorn and other libraries to a log; for a process of its own."""
    logging.captureWarnings(True)
    root = logging.getLogger()
    root.handlers = [_Forward(log)]
    root.setLevel(logging.WARNING)
    logging.getLogger("conpet").setLevel(logging.INFO)
