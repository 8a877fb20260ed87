"""The command line: thin commands over the library. Heavy imports (torch) wait until a command runs."""

from conpet.cli.app import main

__all__ = ["main"]
