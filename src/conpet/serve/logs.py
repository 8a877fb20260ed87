"""Logs as JSON lines on standard error. Whatever comes from outside is escaped, so a line is one entry."""

from __future__ import annotations

import logging
import sys
from typing import Any, TextIO

import structlog

Log = structlog.typing.FilteringBoundLogger


def make_log(level: str, stream: TextIO | None = None) -> Log:
    """Return a log that writes entries of a level and above as JSON, one a line."""
    log: Log = structlog.wrap_logger(
        structlog.WriteLogger(stream or sys.stderr),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
    )
    return log


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
