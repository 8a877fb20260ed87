"""The `conpet` program."""

from __future__ import annotations

import os
import sys

_INTERRUPTED = 130


def run() -> None:
    """Run the command line and end the process, also if Ctrl-C comes while the program is still being loaded."""
    try:
        from conpet.cli import main

        status = main()
    except KeyboardInterrupt:
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, b"stopped\n")
        status = _INTERRUPTED
    sys.exit(status)


if __name__ == "__main__":
    run()
