"""Forms with a file are read as browsers send them, and refused if they are damaged."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from fastapi import Request

from conpet.dashboard.forms import Form, read_upload
from conpet.problem_details import ApiProblem

BODY = (
    b'--limit\r\nContent-Disposition: form-data; name="csrf"\r\n\r\nabc\r\n'
    b'--limit\r\nContent-Disposition: form-data; name="file"; filename="C:\\data\\\xe8\xa1\xa8.csv"\r\n'
    b"Content-Type: text/csv\r\n\r\ntext,label\r\n--limi\r\n\r\n\r\n"
    b'--limit\r\nContent-Disposition: form-data; name="name"\r\n\r\n\xe8\xa1\xa8 a\r\n--limit--'
)
CONTENT = b"text,label\r\n--limi\r\n\r\n"


def read(body: bytes, file: Path, size: int = 1 << 20, kind: str = "multipart/form-data; boundary=limit") -> Form:
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    return asyncio.run(read_upload(_request(parts, kind), file))


def _request(parts: Sequence[bytes], kind: str) -> Request:
    messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    messages.append({"type": "http.request", "body": b"", "more_body": False})

    async def receive() -> Any:
        return messages.pop(0)

    return Request({"type": "http", "method": "POST", "headers": [(b"content-type", kind.encode())]}, receive)


@pytest.mark.parametrize("size", [1, 2, 7, 64, 10_000])
def test_fields_and_file_do_not_depend_on_how_the_body_arrives(size: int, tmp_path: Path) -> None:
    form = read(BODY, tmp_path / "file", size)
    assert (form["csrf"], form["name"], form.file_name) == ("abc", "表 a", "表.csv")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_no_file_is_made_if_none_was_chosen(tmp_path: Path) -> None:
    body = b'--limit\r\nContent-Disposition: form-data; name="file"; filename=""\r\n\r\n\r\n--limit--\r\n'
    assert read(body, tmp_path / "file").file_name == ""
    assert not (tmp_path / "file").exists()


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (BODY[:-20], None, 400),
        (b"", None, 400),
        (b"--limit--", None, None),
        (b"--limit\r\nno: disposition\r\n\r\nx\r\n--limit--", None, 400),
        (b"--limit\r\n" + b"x" * 20_000, None, 400),
        (BODY.replace(b"abc", b"x" * 2_000_000), None, 413),
        (BODY, "multipart/form-data", 415),
        (BODY, "text/plain; boundary=limit", 415),
        (BODY.replace(b'name="name"', b'name="b"; filename="b"'), None, 422),
    ],
)
def test_damaged_forms_are_refused(body: bytes, kind: str | None, status: int | None, tmp_path: Path) -> None:
    def attempt() -> Form:
        return read(body, tmp_path / "file", kind=kind or "multipart/form-data; boundary=limit")

    if status is None:
        assert attempt() == Form([], "")
        return
    with pytest.raises(ApiProblem) as problem:
        attempt()
    assert problem.value.status == status


@pytest.mark.parametrize(("given", "found"), [("7", 7), ("", None), (" 3 ", 3)])
def test_numbers_in_fields(given: str, found: int | None) -> None:
    assert Form([("n", given)]).number("n", high=10) == found


@pytest.mark.parametrize("given", ["x", "11", "-1", "1.5"])
def test_wrong_numbers_in_fields_are_refused(given: str) -> None:
    with pytest.raises(ApiProblem, match="from 0 to 10"):
        Form([("n", given)]).number("n", high=10)
