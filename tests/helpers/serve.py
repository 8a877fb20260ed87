"""A server on a free port, in a thread of the test's process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from conpet.serve.context import ServerContext
from conpet.serve.process import Server
from conpet.serve.run import listen
from conpet.serve.settings import ServeSettings

START_SECONDS = 120


@dataclass(frozen=True)
class Served:
    """A running server.

    Attributes:
        port: Its port.
        client: A client of it.
        context: What its endpoints share.
    """

    port: int
    client: httpx2.Client
    context: ServerContext

    def predict(self, inputs: Any, headers: dict[str, str] | None = None, **fields: Any) -> httpx2.Response:
        return self.client.post("/v1/predict", json={"inputs": inputs, **fields}, headers=headers)

    def new_client(self) -> httpx2.Client:
        return httpx2.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60)

    def is_ready(self) -> bool:
        return self.client.get("/readyz").status_code == 200


@contextmanager
def served(workspace: Path, **settings: Any) -> Iterator[Served]:
    """Serve a workspace until the end of the block."""
    chosen = ServeSettings.load({"workspace": workspace, "port": 0, "log_level": "error", **settings}, environment={})
    with listen(chosen) as listening:
        port = listening.getsockname()[1]
        server = Server(chosen)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
                running = Served(port, client, server.context)
                wait_for(running.is_ready)
                yield running
        finally:
            server.stop()
            thread.join(60)
    assert not thread.is_alive()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
