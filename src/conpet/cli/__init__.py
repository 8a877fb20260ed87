"""The command line: thin verbs over the library; nothing heavy is imported before a verb runs."""

from conpet.cli.app import main

__all__ = ["main"]
