"""What each of several server processes runs. It imports torch only there, not in the supervisor."""

from __future__ import annotations

import os
import signal
import socket
import threading
from multiprocessing import parent_process
from multiprocessing.process import BaseProcess

from conpet.serve.logs import forward_standard_logs, make_log
from conpet.serve.settings import ServeSettings

CANNOT_LOAD = 3
"""Exit status of a process that cannot load the workspace."""


def work(settings: ServeSettings, listening: socket.socket) -> None:
    """Be one of several processes; stop when the supervisor is gone."""
    from conpet.serve.process import serve_on

    forward_standard_logs(make_log(settings.log_level))
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_stop_with, args=(parent,), name="conpet-parent", daemon=True).start()
    if serve_on(settings, listening) is not None:
        raise SystemExit(CANNOT_LOAD)


def _stop_with(parent: BaseProcess) -> None:
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
