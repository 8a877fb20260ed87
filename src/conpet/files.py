"""Atomic file writes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from conpet.errors import ConfigError


def require_writable_file(path: Path, source: Path | None = None) -> None:
    """Raise `ConfigError` unless a file can be written at `path`, before the work that fills it begins.

    Args:
        path: The file.
        source: A file that is read meanwhile, which must be another one.
    """
    if path.is_dir():
        raise ConfigError(f"cannot write {path}: it is a folder; name a file")
    if source is not None and path.exists() and source.exists() and path.samefile(source):
        raise ConfigError(f"cannot write {path}: it is also the input, which would be replaced; name another file")
    _require_writable(path)


def require_new_files_in(folder: Path) -> None:
    """Raise `ConfigError` unless files can be written into a folder, which may be missing in an existing one."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"cannot write into {folder}: it is a file; name a folder")
    _require_writable(folder / "file" if folder.is_dir() else folder)


def _require_writable(path: Path) -> None:
    folder = path.parent
    if not folder.is_dir():
        raise ConfigError(f"cannot write {path}: there is no folder {folder}; create it, or name another place")
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise ConfigError(f"cannot write {path}: no permission to write in {folder}; name another place with -o")


@contextmanager
def written_aside(path: Path) -> Iterator[TextIO]:
    """Yield a stream that replaces `path` at the end, or is discarded on an error.

    Half a surrogate pair, which no encoding knows, is written as its escape, which JSON understands.

    Raises:
        ConfigError: The path cannot be written.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        stream = aside.open("w", encoding="utf-8", errors="backslashreplace", newline="")
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
