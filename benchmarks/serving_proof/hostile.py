"""Requests that want to do harm: uploads, names, options, and bytes that are not quite HTTP."""

from __future__ import annotations

import gzip
import io
import json
import random
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

MARK = "sesame-7f3a"
"""A word in texts of uploads, which no log may have."""
NAMES = (
    "../../../../etc/passwd",
    "/etc/passwd",
    "..",
    ".",
    "",
    " ",
    "a\0b",
    "\x1b[2J\x1b[31m",
    "line\nbreak",
    "a" * 201,
    "a" * 100_000,
    "\u202egnp.exe",
    "%2e%2e%2fworkspace.sqlite",
    "{0.__class__.__mro__}",
    "%s%n%x",
    "'; DROP TABLE task; --",
    "${jndi:ldap://x}",
    "\ud800",
    "CON",
    "workspace.sqlite",
)
TEMPLATES = (
    "{text.__class__}",
    "{text!r:>1000000000}",
    "{text:1000000000}",
    "{0}",
    "{",
    "{text}" * 2000,
    "no text",
    "{text}{slot}{slot}{slot}",
    "\0",
)
_HUGE: tuple[Any, ...] = (10**9, -1, 0, 1e308, 10**400, "9" * 5000, None, [], {"a": {}}, True, "\ud800")
SETTINGS = (
    "module.rank",
    "training.epochs",
    "training.batch_size",
    "training.learning_rate",
    "module.kind",
    "replay.per_label",
    "backbone.name",
    "seed",
    "no.such.setting",
)
HTTP = (
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET /v1/tasks HTTP/9.9\r\nHost: localhost\r\n\r\n",
    b"GET http://evil.example/v1/tasks HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /%00%0a%0d HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET //etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /v1/../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /v1/tasks HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"TRACE / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"CONNECT evil.example:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n{}",
    b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999\r\n\r\n{}",
    b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
    b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff1\r\n{}",
    b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"GET /v1/tasks HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
    b"GET /v1/tasks HTTP/1.1\r\nHost: localhost\r\n" + b"X: 1\r\n" * 20_000 + b"\r\n",
    b"GET /v1/tasks HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: \x1b[2J\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\0" * 10_000,
)
"""Bytes on a new connection; some are no HTTP, some lie about what follows."""


@dataclass(frozen=True)
class Upload:
    """An upload for `POST /v1/learn`.

    Attributes:
        what: What is wrong with it.
        content: The body.
        kind: Its content type.
        query: The query.
        headers: Further headers.
    """

    what: str
    content: bytes
    kind: str = "application/json"
    query: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)


def uploads(seed: int, most_bytes: int) -> Iterator[Upload]:
    """Yield hostile uploads.

    Args:
        seed: Of the damage that is done at random.
        most_bytes: The server's limit on uploads.
    """
    yield from _names()
    yield from _settings()
    yield from _json()
    yield from _tables()
    yield from _compressed(most_bytes)
    yield from _parquet(most_bytes)
    yield from _damaged(random.Random(seed))


def rows(count: int = 8) -> list[dict[str, Any]]:
    """Return sound rows."""
    return [{"text": f"{MARK} number {number}", "label": f"fuzz-{number % 2}"} for number in range(count)]


def task(**changes: Any) -> bytes:
    """Return a sound task in JSON, with changes."""
    return json.dumps({"name": "fuzz", "rows": rows(), **changes}).encode()


def lines(found: list[dict[str, Any]]) -> bytes:
    """Return rows as JSONL."""
    return "".join(f"{json.dumps(row)}\n" for row in found).encode()


def packed(content: bytes) -> bytes:
    """Return gzip, the same for the same content."""
    return gzip.compress(content, mtime=0)


def table(columns: Any) -> bytes:
    """Return a Parquet file."""
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def _names() -> Iterator[Upload]:
    for name in NAMES:
        shown = repr(name[:20])
        yield Upload(f"task {shown}", task(name=name))
        yield Upload(f"label {shown}", task(rows=[{**row, "label": name} for row in rows()] + rows()))
        if "\ud800" not in name and len(name) < 10_000:
            yield Upload(f"name {shown} in the query", lines(rows()), "application/x-ndjson", {"name": name})
            yield Upload(f"format {shown}", lines(rows()), "application/octet-stream", {"format": name, "name": "x"})
        if name.strip() and name.isascii() and name.isprintable() and len(name) < 10_000:
            headers = {"Idempotency-Key": name, "X-Request-ID": name}
            yield Upload(f"key {shown}", task(name=f"key {len(name)}"), headers=headers)
    for template in TEMPLATES:
        yield Upload(f"template {template[:20]!r}", task(template=template))


def _settings() -> Iterator[Upload]:
    for setting in SETTINGS:
        section, _, field_ = setting.partition(".")
        for value in _HUGE:
            settings = {section: {field_: value}} if field_ else {section: value}
            yield Upload(f"{setting}={value!r:.20}", task(name="settings", settings=settings))
    for query in ({"seed": 10**30}, {"batch": 10**9}, {"batch": -1}, {"seed": "x"}, {"extend": "maybe"}):
        yield Upload(f"query {query}", task(), query=query)


def _json() -> Iterator[Upload]:
    deep = 100_000
    texts = {
        "nested lists": "[" * deep + "]" * deep,
        "nested objects": '{"a":' * deep + "1" + "}" * deep,
        "nested rows": json.dumps({"name": "x", "rows": [{"text": "a", "label": "b", "more": 0}]}).replace(
            "0}", "[" * 5000 + "]" * 5000 + "}"
        ),
        "a number of a million digits": '{"name": "x", "rows": [{"text": ' + "9" * 1_000_000 + ', "label": "a"}]}',
        "infinite numbers": '{"name": "x", "rows": [{"text": 1e999, "label": NaN}, {"text": -Infinity, "label": 0}]}',
        "a key of a megabyte": json.dumps({"name": "x", "rows": [{"k" * 1_000_000: 1}]}),
        "the same key twice": '{"name": "x", "name": "y", "rows": [], "rows": [{"text": "a", "label": "b"}]}',
        "lone surrogates": json.dumps({"name": "x", "rows": [{"text": "\ud800", "label": "\udfff"}, rows(1)[0]]}),
        "control characters": json.dumps(
            {"name": "x", "rows": [{"text": "".join(map(chr, range(32))), "label": "\a"}]}
        ),
        "wrong types": json.dumps({"name": 1, "rows": {"text": []}, "settings": [], "template": 1.5}),
        "rows that are no rows": json.dumps({"name": "x", "rows": [[], None, 1, "a"]}),
        "ten thousand tasks": json.dumps(
            {"tasks": [{"name": f"t{number}", "rows": rows(2)} for number in range(10**4)]}
        ),
        "not complete": '{"name": "x", "rows": [',
        "nothing": "",
        "a word": "null",
    }
    for what, text in texts.items():
        yield Upload(what, text.encode(errors="surrogatepass"))
    whole = task().decode()
    for encoding in ("utf-16", "utf-32", "utf-8-sig", "utf-7", "cp037"):
        yield Upload(f"JSON in {encoding}", whole.encode(encoding))
        yield Upload(
            f"JSONL in {encoding}", lines(rows()).decode().encode(encoding), "application/x-ndjson", {"name": "x"}
        )
    yield Upload("bytes that are no text", bytes(range(256)) * 100, "application/x-ndjson", {"name": "x"})


def _tables() -> Iterator[Upload]:
    texts = {
        "a column twice": "text,text,label\na,b,c\n",
        "a hundred thousand columns": ",".join(["text", "label", *map(str, range(100_000))]) + "\na,b\n",
        "a quote that never ends": 'text,label\n"' + "a" * 500_000,
        "a field of a megabyte": f"text,label\n{'a' * 1_000_000},b\nc,d\n",
        "zero bytes": "text,label\na\0b,c\0\n",
        "formulas": "text,label\n=cmd|' /C calc'!A0,=1+1\n@SUM(1),-1\n",
        "no header": "a,b\nc,d\n",
        "only a header": "text,label\n",
        "ragged rows": "text,label\na\na,b,c,d\n,\n",
    }
    for what, text in texts.items():
        yield Upload(f"CSV: {what}", text.encode(), "text/csv", {"name": "x"})


def _compressed(most_bytes: int) -> Iterator[Upload]:
    bomb = packed(bytes(4 * most_bytes))
    sound = lines(rows())
    several = {
        "a bomb of zeros": bomb,
        "a bomb of rows": packed(sound * (4 * most_bytes // len(sound))),
        "a bomb in a bomb": packed(bomb),
        "a bomb in many parts": packed(bytes(most_bytes // 4)) * 40,
        "half a file": packed(sound)[:-12],
        "something behind it": packed(sound) + b"more",
        "a wrong checksum": packed(sound)[:-8] + bytes(8),
        "a zip file": _zip(),
    }
    for what, content in several.items():
        query = {"name": "x", "format": "jsonl.gz"}
        yield Upload(f"gzip: {what}", content, "application/gzip", query)
        yield Upload(f"gzip as encoding: {what}", content, headers={"Content-Encoding": "gzip"})


def _zip() -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (("../../../../tmp/conpet-was-here", b"x"), ("bomb", bytes(50_000_000))):
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return sink.getvalue()


def _parquet(most_bytes: int) -> Iterator[Upload]:
    wrong: dict[str, Any] = {
        "numbers": {"text": [1, 2], "label": [3, 4]},
        "lists": {"text": [["a"], ["b"]], "label": ["x", "y"]},
        "structures": {"text": [{"a": 1}, {"a": 2}], "label": ["x", "y"]},
        "bytes": {"text": [b"\xff\xfe", b"\0"], "label": ["x", "y"]},
        "nulls": {"text": pa.array([None, None], pa.string()), "label": ["x", "y"]},
        "times": {"text": pa.array([0, 1], pa.timestamp("ns")), "label": ["x", "y"]},
        "truths": {"text": [True, False], "label": [True, False]},
        "no rows": {"text": pa.array([], pa.string()), "label": pa.array([], pa.string())},
        "other columns": {"a": ["b"], "c": ["d"]},
        "strange spans": {"tokens": [["a"], ["b"]], "head": [{"start": -1, "end": 2**40}] * 2, "label": ["x", "y"]},
        "a bomb": {
            "text": pa.DictionaryArray.from_arrays(pa.array([0] * 60_000, pa.int32()), pa.array(["z" * 50_000])),
            "label": ["x"] * 60_000,
        },
        "many rows": {"text": ["a"] * (most_bytes // 8), "label": ["b"] * (most_bytes // 8)},
    }
    for what, columns in wrong.items():
        yield Upload(f"Parquet: {what}", table(columns), "application/vnd.apache.parquet", {"name": "x"})
    yield Upload("Parquet: only its marks", b"PAR1PAR1", "application/vnd.apache.parquet", {"name": "x"})
    yield Upload("Parquet: encrypted", b"PARE" + bytes(100) + b"PARE", "application/vnd.apache.parquet", {"name": "x"})


def _damaged(draw: random.Random) -> Iterator[Upload]:
    """Yield sound files in which some bytes were exchanged."""
    found = rows()
    whole = table({"text": [row["text"] for row in found], "label": [row["label"] for row in found]})
    sound = [
        (whole, "application/vnd.apache.parquet", {"name": "x"}),
        (packed(lines(found)), "application/gzip", {"name": "x", "format": "jsonl.gz"}),
        (lines(found), "application/x-ndjson", {"name": "x"}),
        (task(), "application/json", {}),
    ]
    for content, kind, query in sound:
        for number in range(12):
            damaged = bytearray(content)
            for _ in range(draw.choice([1, 1, 4, 32])):
                damaged[draw.randrange(len(damaged))] = draw.randrange(256)
            yield Upload(f"{kind}, damaged ({number})", bytes(damaged), kind, query)
