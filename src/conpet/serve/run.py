"""Run the server: one process, or a supervisor and several that listen on one socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

from conpet.errors import ConfigError
from conpet.serve.keys import KeyStore
from conpet.serve.logs import forward_standard_logs, make_log
from conpet.serve.settings import ServeSettings
from conpet.serve.supervisor import Supervisor
from conpet.store import Store

BACKLOG = 2048
"""Connections that wait to be accepted."""


def run(settings: ServeSettings, announce: Callable[[str], None] | None = None) -> None:
    """Serve until a stop is requested (SIGTERM, Ctrl-C), then finish what was accepted.

    Args:
        settings: The server's settings.
        announce: Called with the server's address when it listens.

    Raises:
        ConfigError: The address is not loopback and there are no keys, or it cannot be listened on.
        WorkspaceNotFoundError: There is no workspace.
        ConpetError: The workspace cannot be loaded.
    """
    Store.open(settings.workspace)
    check_exposure(settings)
    with listen(settings) as listening:
        host, port = listening.getsockname()[:2]
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        log = make_log(settings.log_level)
        if announce is not None:
            announce(url)
        log.info("listening", url=url, workspace=str(settings.workspace), processes=settings.workers)
        if settings.workers > 1:
            Supervisor(settings, listening).run()
            return
        from conpet.serve.process import serve_on

        forward_standard_logs(log)
        if (error := serve_on(settings, listening)) is not None:
            raise error


def check_exposure(settings: ServeSettings) -> None:
    """Refuse an address that others can reach if anyone could then do everything.

    Raises:
        ConfigError: There are no keys, and `insecure` is not set.
    """
    if settings.loopback or settings.insecure or KeyStore(settings.keys).required:
        return
    raise ConfigError(
        f"host={settings.host}: other machines could reach this server, and it has no API keys. Make one with "
        f"`conpet keys create {settings.workspace} --role predict`, or serve anyone with --insecure"
    )


def listen(settings: ServeSettings) -> socket.socket:
    """Return a socket that listens on the address of the settings.

    Raises:
        ConfigError: The address is unknown or in use.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except OSError as error:
        # Python adds the address in its own notation to the errors of sockets, but not to those of names.
        named = error.errno is None or isinstance(error, socket.gaierror)
        reason = error.strerror if named else os.strerror(error.errno or 0)
        raise ConfigError(
            f"cannot listen on {settings.host} port {settings.port}: {reason or error}; choose another --host or --port"
        ) from error
