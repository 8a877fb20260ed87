"""One server process."""

from __future__ import annotations

import signal
import socket
import sys
from types import FrameType

import uvicorn

from conpet.serve.app import create_app
from conpet.serve.connections import server_options
from conpet.serve.context import ServerContext
from conpet.serve.settings import ServeSettings

_SWITCH_SECONDS = 0.0003
"""How long the thread that handles requests may keep the thread that answers from going on after a computation."""


class Server(uvicorn.Server):
    """Uvicorn's server of the application; on a stop it first tells that it is not ready, and it ends with status 0.

    Args:
        settings: The server's settings.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self.failure: Exception | None = None
        app = create_app(settings, self._fail)
        self.context: ServerContext = app.state.context
        super().__init__(uvicorn.Config(app, **server_options(settings, self.context.buffer)))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop after a signal; at once after a second Ctrl-C."""
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.stop()

    def stop(self) -> None:
        """Accept nothing more, finish what was accepted, and stop."""
        self.context.stopping = True
        self.should_exit = True

    def _fail(self, error: Exception) -> None:
        self.failure = error
        self.stop()


def serve_on(settings: ServeSettings, listening: socket.socket) -> Exception | None:
    """Serve on a socket in this process until a stop is requested; return why the workspace could not be loaded."""
    sys.setswitchinterval(_SWITCH_SECONDS)
    server = Server(settings)
    server.run(sockets=[listening])
    server.context.log.info("stopped")
    return server.failure
