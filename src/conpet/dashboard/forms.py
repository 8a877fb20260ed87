"""Forms that browsers send: fields, and a file."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from urllib.parse import parse_qsl

from fastapi import Request

from conpet.problem_details import ApiProblem
from conpet.serve.bodies import media_type_of

URLENCODED, MULTIPART = "application/x-www-form-urlencoded", "multipart/form-data"
_HEADER_BYTES = 8 << 10
"""Most bytes of the headers of a part."""
_FIELD_BYTES = 1 << 20
"""Most bytes of a field, and of all fields beside a file."""
_FIELDS = 10_000
"""Most fields."""
_NAME = re.compile(r'(?:^|[;\s])name="([^"]*)"')
_FILE_NAME = re.compile(r'filename="([^"]*)"')


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
    header = Message()
    header["Content-Type"] = request.headers.get("content-type", "")
    boundary = header.get_param("boundary")
    if header.get_content_type() != MULTIPART or not isinstance(boundary, str) or not boundary:
        raise ApiProblem(415, "unsupported-media-type", f"send the form as `Content-Type: {MULTIPART}`")
    fields: list[tuple[str, str]] = []
    file_name, room = "", _FIELD_BYTES
    async for part in _parts(request, boundary.encode()):
        if part.file_name is None:
            content = b"".join([chunk async for chunk in _limited(part.content, room)])
            room -= len(content)
            fields.append((part.name, content.decode("utf-8", "replace")))
            if len(fields) > _FIELDS:
                raise _broken()
        elif part.file_name:
            if file_name:
                raise ApiProblem(422, "several-files", "send one file at a time")
            file_name = part.file_name
            with file.open("xb") as stream:
                async for chunk in part.content:
                    await asyncio.to_thread(stream.write, chunk)
    return Form(fields, file_name)


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of a form: a field, or a file if it has a file name; an empty one if none was chosen."""

    name: str
    file_name: str | None
    content: AsyncIterator[bytes]


async def _limited(content: AsyncIterator[bytes], room: int) -> AsyncIterator[bytes]:
    async for chunk in content:
        room -= len(chunk)
        if room < 0:
            raise ApiProblem(413, "form-too-large", f"the fields of a form may have at most {_FIELD_BYTES:,} bytes")
        yield chunk


class _Buffer:
    """Bytes of a body as they arrive."""

    def __init__(self, request: Request) -> None:
        self._stream = request.stream()
        self.bytes = bytearray(b"\r\n")  # so that the first boundary looks like the others

    async def more(self) -> None:
        """Receive more."""
        async for chunk in self._stream:
            if chunk:
                self.bytes += chunk
                return
        raise _broken()

    async def first(self, number: int) -> bytes:
        """Return the first bytes, and drop them."""
        while len(self.bytes) < number:
            await self.more()
        found = bytes(self.bytes[:number])
        del self.bytes[:number]
        return found

    async def until(self, end: bytes, most: int) -> bytes:
        """Return what is before some bytes, and drop both."""
        while (place := self.bytes.find(end)) < 0:
            if len(self.bytes) > most:
                raise _broken()
            await self.more()
        found = bytes(self.bytes[:place])
        del self.bytes[: place + len(end)]
        return found


async def _parts(request: Request, boundary: bytes) -> AsyncIterator[_Part]:
    """Yield the parts of a form; read the content of each before the next is asked for."""
    buffer, delimiter = _Buffer(request), b"\r\n--" + boundary
    await buffer.until(delimiter, _HEADER_BYTES)
    while (mark := await buffer.first(2)) != b"--":
        if mark != b"\r\n":
            raise _broken()
        head = (await buffer.until(b"\r\n\r\n", _HEADER_BYTES)).decode("utf-8", "replace")
        lines = {name.strip().lower(): value for name, _, value in (line.partition(":") for line in head.split("\r\n"))}
        disposition = lines.get("content-disposition", "")
        name, file_name = _NAME.search(disposition), _FILE_NAME.search(disposition)
        if name is None:
            raise _broken()
        content = _content(buffer, delimiter)
        yield _Part(_unquoted(name[1]), None if file_name is None else _base(_unquoted(file_name[1])), content)
        async for _ in content:  # what was not read
            pass


async def _content(buffer: _Buffer, delimiter: bytes) -> AsyncIterator[bytes]:
    """Yield what is before the next boundary, and drop the boundary."""
    while (place := buffer.bytes.find(delimiter)) < 0:
        if (ready := len(buffer.bytes) - len(delimiter)) > 0:
            chunk = bytes(buffer.bytes[:ready])
            del buffer.bytes[:ready]
            yield chunk
        await buffer.more()
    chunk = bytes(buffer.bytes[:place])
    del buffer.bytes[: place + len(delimiter)]
    if chunk:
        yield chunk


def _unquoted(name: str) -> str:
    return name.replace("%22", '"').replace("%0D", "\r").replace("%0A", "\n")


def _base(name: str) -> str:
    """Return a file name without folders."""
    return re.split(r"[/\\]", name)[-1]


def _broken() -> ApiProblem:
    return ApiProblem(400, "broken-form", "the form is incomplete or damaged; send it again")
