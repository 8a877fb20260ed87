"""What Schemathesis needs to know beside the description of the API. Schemathesis' own interpreter imports it."""

from __future__ import annotations

import os
from typing import Any

import schemathesis

SECRETS = tuple(filter(None, os.environ.get("CONPET_FUZZ_SECRETS", "").split("\n")))
"""Texts that no answer may have: paths of the server, stored examples, traces of Python."""


@schemathesis.serializer("application/x-ndjson", "text/csv", "application/vnd.apache.parquet")
def as_it_is(_: Any, value: Any) -> Any:
    """Send files as the bytes that were made up for them."""
    return getattr(value, "data", None) or str(value).encode(errors="surrogatepass")


@schemathesis.check
def nothing_leaks(_: Any, response: Any, __: Any) -> None:
    """Check that an answer has no secret."""
    found = [secret for secret in SECRETS if secret.encode() in response.content]
    assert not found, f"the answer has {found}"
