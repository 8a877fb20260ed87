"""Forms that browsers send: fields, and a file."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from conpet.problem_details import ApiProblem
from conpet.serve.bodies import media_type_of

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

URLENCODED, MULTIPART = "application/x-www-form-urlencoded", "multipart/form-data"
_FIELD_BYTES = 1 << 20
"""Most bytes of a field, and of all fields beside a file."""
_FIELDS = 10_000
"""Most fields."""


@dataclass(frozen=True, slots=True)
class Form:
    """The fields of a form, in their order.

    Attributes:
        fields: Names and values.
        file_name: Name of the file that was sent, or "".
    """

    fields: Sequence[tuple[str, str]] = ()
    file_name: str = ""

    def __getitem__(self, name: str) -> str:
        """Return the value of a field.

        Raises:
            ApiProblem: There is none.
        """
        for key, value in self.fields:
            if key == name:
                return value
        raise ApiProblem(422, "incomplete-form", f"the form has no field {name!r}")

    def get(self, name: str, default: str = "") -> str:
        """Return the value of a field, without blanks around it, or a default."""
        return next((value.strip() for key, value in self.fields if key == name), default)

    def all(self, name: str) -> list[str]:
        """Return all values of a field."""
        return [value for key, value in self.fields if key == name]

    def number(self, name: str, low: int = 0, high: int = 2**31) -> int | None:
        """Return the whole number in a field; None if it is empty or not there.

        Raises:
            ApiProblem: It is none, or out of range.
        """
        given = self.get(name)
        if not given:
            return None
        number = None
        with suppress(ValueError):
            number = int(given)
        if number is None or not low <= number <= high:
            raise ApiProblem(422, "invalid-form", f"the field {name!r} takes a whole number from {low} to {high}")
        return number

    def checked(self, name: str) -> bool:
        """Return whether a box is ticked."""
        return bool(self.get(name))


async def read_form(request: Request) -> Form:
    """Return the fields that a form without a file has sent.

    Raises:
        ApiProblem: It is no such form.
    """
    if media_type_of(request) != URLENCODED:
        raise ApiProblem(415, "unsupported-media-type", f"send the form as `Content-Type: {URLENCODED}`")
    body = b"".join([part async for part in request.stream()])
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=_FIELDS)
    except ValueError:
        raise _broken() from None
    return Form(pairs)


async def read_upload(request: Request, file: Path) -> Form:
    """Return the fields of a form, and write the file that it sends.

    Args:
        request: The request.
        file: Where to write the file; it is not made if the form has none.

    Raises:
        ApiProblem: The form is broken, or has several files or too many fields.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != MULTIPART.encode() or not options.get(b"boundary"):
        raise ApiProblem(415, "unsupported-media-type", f"send the form as `Content-Type: {MULTIPART}`")
    upload = _Upload()
    try:
        parser = MultipartParser(options[b"boundary"], upload.callbacks)
        async for chunk in request.stream():
            parser.write(chunk)
            if upload.content:
                await asyncio.to_thread(_append, file, upload.content)
                upload.content.clear()
    except FormParserError:
        raise _broken() from None
    if not upload.ended:
        raise _broken()
    if upload.file_name:
        await asyncio.to_thread(file.touch)  # it may be empty
    return Form(upload.fields, upload.file_name)


class _Upload:
    """What a parser has found in a form so far.

    Attributes:
        fields: Names and values of the fields that are complete.
        file_name: Name of the file, or "".
        content: Content of the file that is not written yet.
        ended: Whether the form is complete.
    """

    def __init__(self) -> None:
        self.fields: list[tuple[str, str]] = []
        self.file_name = ""
        self.content = bytearray()
        self.ended = False
        self._name = ""
        self._header = b""
        self._disposition = b""
        self._into = self.content
        self._room = _FIELD_BYTES
        self._is_field = False

    @property
    def callbacks(self) -> MultipartCallbacks:
        """What the parser calls."""
        return {
            "on_part_begin": self._begin,
            "on_header_begin": self._begin_header,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_headers_finished": self._begin_content,
            "on_part_data": self._add,
            "on_part_end": self._end_part,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        self._disposition = b""

    def _begin_header(self) -> None:
        self._header = b""

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition += data[start:end]

    def _begin_content(self) -> None:
        _, options = parse_options_header(self._disposition)
        name, file_name = options.get(b"name"), _base(_text(options.get(b"filename", b"")))
        if name is None:
            raise _broken()
        self._name = _text(name)
        if not file_name:  # a field, or a file that was not chosen
            self._into = bytearray()
            self._is_field = b"filename" not in options
        elif self.file_name:
            raise ApiProblem(422, "several-files", "send one file at a time")
        else:
            self._into, self._is_field, self.file_name = self.content, False, file_name

    def _add(self, data: bytes, start: int, end: int) -> None:
        self._into += data[start:end]
        if self._into is not self.content:
            self._room -= end - start
            if self._room < 0:
                limit = f"the fields of a form may have at most {_FIELD_BYTES:,} bytes"
                raise ApiProblem(413, "form-too-large", limit)

    def _end_part(self) -> None:
        if self._is_field:
            self.fields.append((self._name, self._into.decode("utf-8", "replace")))
            if len(self.fields) > _FIELDS:
                raise _broken()

    def _end(self) -> None:
        self.ended = True


def _append(file: Path, content: bytes | bytearray) -> None:
    with file.open("ab") as stream:
        stream.write(content)


def _text(name: bytes) -> str:
    """Return the name of a field or file as browsers write it."""
    return name.decode("utf-8", "replace").replace("%22", '"').replace("%0D", "\r").replace("%0A", "\n")


def _base(name: str) -> str:
    """Return a file name without folders."""
    return re.split(r"[/\\]", name)[-1]


def _broken() -> ApiProblem:
    return ApiProblem(400, "broken-form", "the form is incomplete or damaged; send it again")
