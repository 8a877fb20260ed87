"""A file while it is read: opened, decompressed, decoded."""

from __future__ import annotations

import codecs
import gzip
import io
import re
import shutil
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from conpet.data.encoding import encoding_of, likely_encoding
from conpet.data.raw import ReadOptions
from conpet.errors import ConfigError, Problem, Scope

STDIN = "-"
_UTF8 = "utf-8"
Binary = Any
"""A binary stream, whatever module has opened it."""
READ_ERRORS = (OSError, EOFError, zlib.error)
"""Raised for a file that cannot be read or decompressed."""
NOT_UTF8 = "is not UTF-8 text; save it as UTF-8"
_HEAD = 64
"""Number of bytes looked at for a byte order mark, and for the zero bytes of UTF-16 without one."""
_ESCAPED = re.compile("[\udc80-\udcff]")
"""What undecodable bytes become (error handler `surrogateescape`)."""
_SAMPLE = 1 << 16
"""Most bytes looked at to guess an encoding."""


@dataclass(frozen=True)
class Source:
    """A file, or standard input, to be read.

    Attributes:
        path: Its path; "-" for standard input.
        options: How to read it.
        labelled: Whether labels are read.
        optional: Whether a file may also have none.
        copy: A copy of standard input, for readers that read more than once.
    """

    path: Path
    options: ReadOptions
    labelled: bool = False
    optional: bool = False
    copy: Path | None = None

    @property
    def from_stdin(self) -> bool:
        """Whether it is standard input."""
        return is_stdin(self.path)

    @property
    def file(self) -> str:
        """Its name in messages."""
        return source_name(self.path)

    def sibling(self, path: Path) -> Source:
        """Return another file that is read with the same options."""
        return replace(self, path=path)

    @contextmanager
    def copied(self) -> Iterator[Source]:
        """Yield standard input as a source that can be read more than once, from a temporary file."""
        with TemporaryDirectory(prefix="conpet-stdin-") as folder:
            copy = Path(folder) / "input"
            with self.binary() as stream, copy.open("wb") as file:
                shutil.copyfileobj(stream, file)
            yield replace(self, copy=copy)

    def problem(self, row: int | None, reason: str, scope: Scope = Scope.ROW) -> Problem:
        """Return a problem of this file."""
        return Problem(self.file, row, reason, scope=scope)

    def stopped(self, row: int, reason: str) -> Problem:
        """Return a problem of a row after which the rest of this file cannot be read."""
        return self.problem(row, f"{reason}; reading stopped here", Scope.REST)

    @contextmanager
    def binary(self) -> Iterator[Binary]:
        """Open the decompressed bytes."""
        if self.copy is not None:
            with self.copy.open("rb") as stream:
                yield stream
            return
        if self.from_stdin:
            yield sys.stdin.buffer
            return
        with _OPENERS.get(self.path.suffix.lower(), _plain)(self.path) as stream:
            yield stream

    @contextmanager
    def text(self, newline: str | None = None) -> Iterator[io.TextIOWrapper]:
        """Open the decoded text.

        Bytes that are not UTF-8 become lone surrogates, so that their row can be reported: see `undecodable`.

        Args:
            newline: As for `open`.
        """
        with self.binary() as stream:
            peekable = stream if isinstance(stream, io.BufferedReader) else io.BufferedReader(stream)
            head = peekable.peek(_HEAD)[:_HEAD]
            self._require_text(head)
            encoding = encoding_of(head) or self.options.encoding or _UTF8
            if encoding == _UTF8 and 4 * head.count(0) > len(head):
                raise UnicodeDecodeError(_UTF8, head, head.index(0), head.index(0) + 1, "zero bytes")
            errors = "surrogateescape" if encoding.startswith(_UTF8) else "strict"
            text = io.TextIOWrapper(peekable, encoding=encoding, errors=errors, newline=newline)
            try:
                yield text
            finally:
                text.detach()  # standard input stays open

    def _require_text(self, head: bytes) -> None:
        """Raise `OSError` if a file begins with the mark of one that is no text."""
        for suffix, (mark, program) in _COMPRESSION.items():
            if head.startswith(mark):
                of_stdin = f"decompress it first: {program} FILE | conpet ..."
                how = of_stdin if self.from_stdin else f"give its name the ending {suffix}"
                raise OSError(f"it is compressed; {how}")
        if what := foreign_content(head):
            raise OSError(what)

    def lines(self) -> Iterator[tuple[int, str]]:
        """Yield the numbered lines of the text, without their ends."""
        with self.text() as text:
            for number, line in enumerate(text, start=1):
                yield number, line.removesuffix("\n")

    def undecodable(self, text: str, row: int | None = None) -> Problem | None:
        """Return the problem of decoded text, of a row or the whole file, or None if all its bytes were decoded."""
        if text.isascii() or not _ESCAPED.search(text):
            return None
        return self.problem(row, self.not_utf8, Scope.PARSING)

    @cached_property
    def not_utf8(self) -> str:
        """The message on bytes that are not UTF-8, with the encoding that they look like."""
        likely = likely_encoding(self._not_utf8_sample())
        if likely is None:
            return f"{NOT_UTF8}, or name its encoding (--encoding)"
        return f"is not UTF-8 text; it looks like {likely}: save it as UTF-8, or read it with --encoding {likely}"

    def _not_utf8_sample(self) -> bytes:
        """Return a piece of the file that is not UTF-8; standard input cannot be read again."""
        decoder = codecs.getincrementaldecoder(_UTF8)()
        if not self.from_stdin or self.copy is not None:
            with self.binary() as stream:
                while chunk := stream.read(_SAMPLE):
                    try:
                        if b"\0" in chunk:
                            return bytes(chunk)
                        decoder.decode(chunk)
                    except UnicodeDecodeError as error:
                        return bytes(error.object)
        return b""


def foreign_content(head: bytes) -> str | None:
    """Return what a file is that begins with these bytes, and what to do, if it is no text; otherwise None."""
    return next((what for mark, what in _FOREIGN.items() if head.startswith(mark)), None)


def is_stdin(path: str | Path) -> bool:
    """Return whether a path means standard input."""
    return str(path) == STDIN


def source_name(path: str | Path) -> str:
    """Return the name of a file, or of standard input, in messages."""
    return "standard input" if is_stdin(path) else str(path)


def check_encoding(name: str | None) -> None:
    """Check the name of an encoding.

    Raises:
        ConfigError: Python knows no text encoding of this name.
    """
    try:
        if name is not None:
            "".encode(name)
    except LookupError:
        raise ConfigError(
            f"encoding {name!r} is unknown; examples: utf-8, utf-16, cp1252, latin-1, shift_jis"
        ) from None


def decoding_problem(source: Source, error: UnicodeDecodeError) -> Problem:
    """Return the problem of a file that is not text in the encoding it is read with."""
    if error.encoding == _UTF8:
        return source.problem(None, source.not_utf8)
    return source.problem(None, f"is not {error.encoding} text (byte {error.start + 1}); give another --encoding")


def _plain(path: Path) -> AbstractContextManager[Binary]:
    return path.open("rb")


def _gzip(path: Path) -> AbstractContextManager[Binary]:
    return gzip.open(path, "rb")


@contextmanager
def _zstd(path: Path) -> Iterator[Binary]:
    try:
        from compression import zstd  # type: ignore[import-not-found] # Python 3.14
    except ImportError:
        try:
            from backports import zstd
        except ImportError:
            raise ConfigError(f"{path}: reading .zst needs backports.zstd: pip install 'conpet[zst]'") from None
    try:
        with zstd.open(path, "rb") as stream:
            yield stream
    except zstd.ZstdError as error:
        raise OSError(str(error)) from error


_OPENERS: Mapping[str, Callable[[Path], AbstractContextManager[Binary]]] = {".gz": _gzip, ".zst": _zstd}
COMPRESSED = tuple(_OPENERS)
"""Suffixes of compressed text files."""
_COMPRESSION = {".gz": (b"\x1f\x8b", "gzip -dc"), ".zst": (b"\x28\xb5\x2f\xfd", "zstd -dc")}
"""First bytes of a compressed file, with which no text begins, and a program that decompresses it, by suffix."""
GIT_LFS = b"version https://git-lfs"
"""How a file begins that stands for one in Git LFS."""
_FOREIGN: Mapping[bytes, str] = {
    GIT_LFS: "it only stands for a file in Git LFS; get the file itself: git lfs pull",
    b"PAR1": "it is a Parquet file; give its name the ending .parquet, or use --input-format parquet",
    b"ARROW1": "it is an Arrow or Feather file; give its name the ending .arrow, or use --input-format arrow",
    b"PK\3\4": "it is an Excel workbook or a zip archive; give a workbook the ending .xlsx, unpack an archive",
    bytes.fromhex("d0cf11e0a1b11ae1"): "it is an old Excel workbook (.xls) or another old document; save it as .xlsx "
    "or CSV",
    b"%PDF-": "it is a PDF document; copy its texts into a text file",
    b"\x89PNG\r": "it is a picture, not text",
    b"\xff\xd8\xff": "it is a picture, not text",
    b"SQLite format 3\0": "it is an SQLite database; export a table as CSV",
    b"BZh": "it is compressed (bzip2); decompress it: bunzip2",
    b"\xfd7zXZ\0": "it is compressed (xz); decompress it: unxz",
    b"\x80\x04\x95": "it is a Python pickle; save its rows as JSON lines or CSV",
}
"""First bytes of files that are no text, with what they are and what to do."""
