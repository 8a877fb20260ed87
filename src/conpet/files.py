"""Atomic file writes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from conpet.errors import ConfigError


@contextmanager
def written_aside(path: Path) -> Iterator[TextIO]:
    """Yield a stream that replaces `path` at the end, or is discarded on an error; missing folders are created.

    Raises:
        ConfigError: The path cannot be written.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = aside.open("w", encoding="utf-8", newline="")
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}; name another file") from error
    try:
        with stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
