"""What Schemathesis needs to know beside the description of the API. Schemathesis' own interpreter imports it."""

from __future__ import annotations

import os
from typing import Any

import schemathesis

SECRETS = tuple(filter(None, os.environ.get("CONPET_FUZZ_SECRETS", "").split("\n")))
"""Texts that no answer may have: paths of the server, traces of Python."""
STORED = tuple(filter(None, os.environ.get("CONPET_FUZZ_STORED", "").split("\n")))
"""Stored examples, which an answer may have only if it was asked to explain."""


@schemathesis.serializer("application/x-ndjson", "text/csv", "application/vnd.apache.parquet")
def as_it_is(_: Any, value: Any) -> Any:
    """Send files as the bytes that were made up for them."""
    return getattr(value, "data", None) or str(value).encode(errors="surrogatepass")


@schemathesis.check
def nothing_leaks(_: Any, response: Any, case: Any) -> None:
    """Check that an answer has no secret."""
    explains = isinstance(case.body, dict) and case.body.get("explain")
    found = [secret for secret in (SECRETS if explains else SECRETS + STORED) if secret.encode() in response.content]
    assert not found, f"the answer has {found}"


@schemathesis.hook
def after_call(_: Any, __: Any, response: Any) -> None:
    """Count 429 as the refusal of a wrong key that it is: after some wrong keys, an address may try no more."""
    if response.status_code == 429 and b"too-many-failures" in response.content:
        response.status_code = 401
