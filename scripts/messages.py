"""Compare the catalogues of the dashboard with the messages in its code: `python scripts/messages.py`.

It prints an entry for each message that a language lacks, ready to be filled in and added to a catalogue
(`src/conpet/dashboard/locale/LANGUAGE/LC_MESSAGES/*.po`), and names entries that are no longer needed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from babel.messages.catalog import Catalog, Message
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po, write_po

from conpet.dashboard.messages import CATALOGUES, LANGUAGES

SOURCE = CATALOGUES.parent
_KEYWORDS = {"_": None, "gettext": None, "ngettext": (1, 2), "marked": None}
_METHODS = [("**.py", "python"), ("**.html", "jinja2")]
_TRANSLATED = list(LANGUAGES)[1:]

Id = str | tuple[str, str]


class Entry(NamedTuple):
    """An entry of a catalogue, and the file it is in."""

    file: Path
    message: Message


@cache
def extracted() -> dict[Id, list[str]]:
    """Return the messages in the code and the templates, and where they are."""
    found: dict[Id, list[str]] = {}
    options = {"**.html": {"trimmed": "true", "silent": "false", "newstyle_gettext": "true"}}
    for file, line, message, *_ in extract_from_dir(SOURCE, _METHODS, options, _KEYWORDS):
        key = tuple(message[:2]) if isinstance(message, tuple | list) else message
        found.setdefault(key, []).append(f"{file}:{line}")
    return found


def entries(language: str) -> Iterator[Entry]:
    """Yield the entries of all catalogues of a language."""
    for file in sorted((CATALOGUES / language / "LC_MESSAGES").glob("*.po")):
        with file.open("rb") as stream:
            yield from (Entry(file, message) for message in read_po(stream, locale=language) if message.id)


def missing(language: str) -> dict[Id, list[str]]:
    """Return the messages without an entry in a language, and where they are."""
    known = {key_of(entry.message) for entry in entries(language)}
    return {key: places for key, places in extracted().items() if key not in known}


def key_of(message: Message) -> Id:
    """Return what identifies a message: its text, or both its forms."""
    return (message.id[0], message.id[1]) if isinstance(message.id, tuple | list) else message.id


def main() -> None:
    """Print what is missing and what is no longer needed."""
    for language in _TRANSLATED:
        lacking = missing(language)
        catalogue = Catalog(locale=language)
        for key, places in lacking.items():
            catalogue.add(key, locations=[(place.rpartition(":")[0], 0) for place in places[:1]])
        written = BytesIO()
        write_po(written, catalogue, omit_header=True, include_lineno=False, width=0)
        sys.stdout.write(written.getvalue().decode())
        needed = extracted()
        for entry in entries(language):
            if key_of(entry.message) not in needed:
                sys.stdout.write(f"# no longer needed, in {entry.file.name}: {entry.message.id!r}\n")


if __name__ == "__main__":
    main()
