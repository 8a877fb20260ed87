"""What the endpoints of one server process share."""

from __future__ import annotations

from dataclasses import dataclass, field

from fastapi import Request

from conpet.serve.keys import KeyStore
from conpet.serve.rates import RateLimiter
from conpet.serve.settings import ServeSettings

FAILURES_PER_SECOND = 0.2
"""Wrong keys that an address may send, after a burst of `FAILURE_BURST`."""
FAILURE_BURST = 10


@dataclass(eq=False)
class ServerContext:
    """What the endpoints of one server process share; `app.state.context`.

    Attributes:
        settings: The server's settings.
        keys: The API keys.
        rates: The rate limit of each key, or None.
        failures: Limits guesses at keys, by address.
        stopping: Whether a stop was requested: nothing new is accepted.
    """

    settings: ServeSettings
    keys: KeyStore
    rates: RateLimiter | None
    failures: RateLimiter = field(default_factory=lambda: RateLimiter(FAILURES_PER_SECOND, FAILURE_BURST))
    stopping: bool = False

    @classmethod
    def of(cls, settings: ServeSettings) -> ServerContext:
        """Return the context of a new process."""
        rates = None
        if settings.rate_limit is not None:
            rates = RateLimiter(settings.rate_limit / settings.workers, settings.rate_burst)
        return cls(settings, KeyStore(settings.keys), rates)


def context_of(request: Request) -> ServerContext:
    """Return the context of the process that handles a request."""
    context: ServerContext = request.app.state.context
    return context
