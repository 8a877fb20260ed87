"""Where a client connects to, and how."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import httpx2

from conpet.client.calls import Call
from conpet.errors import ConfigError

KEY = "CONPET_KEY"
"""Environment variable of the API key."""


@dataclass(frozen=True, slots=True)
class Connection:
    """Where a client connects to, and how.

    Attributes:
        url: Address of the server.
        retries: How often a request is tried again.
        timeout: Most seconds for connecting, and for waiting for an answer.
        options: Arguments of the HTTP client.
    """

    url: str
    retries: int
    timeout: float
    options: Mapping[str, Any]

    @classmethod
    def of(cls, url: str, key: str | None, timeout: float, retries: int) -> Connection:
        """Return the connection of a client; arguments as in `Client`."""
        if timeout <= 0 or retries < 0:
            raise ConfigError(f"timeout={timeout}, retries={retries}: give a timeout above 0, and 0 or more retries")
        try:
            parsed = httpx2.URL(url)
        except (httpx2.InvalidURL, TypeError) as error:
            raise ConfigError(f"{url!r} is not the address of a server: {error}") from error
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise ConfigError(f"{url!r} is not the address of a server; give, for example, http://127.0.0.1:8000")
        chosen = key or os.environ.get(KEY)
        headers = {"User-Agent": f"conpet/{version('conpet')}"}
        if chosen:
            try:
                headers["Authorization"] = f"Bearer {chosen.strip().encode('ascii').decode()}"
            except UnicodeEncodeError:
                raise ConfigError("the API key has characters that no key has; copy it again") from None
        return cls(url, retries, timeout, {"base_url": url, "headers": headers, "timeout": timeout})

    def arguments(self, call: Call[Any]) -> dict[str, Any]:
        """Return the arguments of `request` for a call."""
        return {
            "method": call.method,
            "url": call.path,
            "params": dict(call.params) or None,
            "content": call.content,
            "headers": dict(call.headers),
            "timeout": self.timeout if call.seconds is None else call.seconds + 1.0,
        }
