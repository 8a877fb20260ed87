"""How a file is read that people send: the fields of forms for what its name and its header do not say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from conpet.dashboard.forms import Form
from conpet.dashboard.messages import marked
from conpet.dashboard.visit import Visit
from conpet.data.files import TEXT_FORMATS, data_suffix
from conpet.data.raw import ReadOptions
from conpet.data.source import foreign_content
from conpet.errors import ConfigError, DataError

ENCODINGS = {
    "": marked("found automatically (Unicode)"),
    "cp1252": marked("Windows, Western Europe (cp1252)"),
    "cp932": marked("Windows, Japanese: Shift-JIS (cp932)"),
    "euc_jp": marked("Japanese (EUC-JP)"),
    "gb18030": marked("Chinese, simplified (GB 18030)"),
    "big5": marked("Chinese, traditional (Big5)"),
    "cp949": marked("Windows, Korean (cp949)"),
    "cp1250": marked("Windows, Central Europe (cp1250)"),
    "cp1251": marked("Windows, Cyrillic (cp1251)"),
    "mac_roman": marked("Macintosh (Mac Roman)"),
    "utf_16_le": marked("UTF-16 without a byte order mark"),
}
"""Encodings to choose from."""
ENDINGS = (".csv", ".tsv", ".xlsx", ".jsonl", ".json", ".parquet", ".txt", ".conll", ".yml", ".yaml", ".md", ".gz")
"""Endings of the files that browsers offer; `why_unreadable` says it if another cannot be read."""
_HEAD = 64
_SHOWN = 50
"""Most problems of a file that are listed."""


def reading_of(form: Form) -> ReadOptions:
    """Return how to read a file, from the fields of a form."""
    columns = {field: name for field in ("text", "label") if (name := form.get(f"{field}_column"))}
    return ReadOptions(columns, form.get("encoding") or None, sheet=form.get("sheet") or None)


def why_unreadable(visit: Visit, file: Path, name: str) -> str:
    """Return why a file cannot be data, as its name, size and first bytes tell; "" if nothing speaks against it.

    Args:
        visit: The request.
        file: The file.
        name: The name that it has for its sender.
    """
    suffix = data_suffix(Path(name))
    if suffix is None:
        ending = Path(name).suffix or name
        return visit.gettext(
            "Files of the kind “%(ending)s” cannot be read. Save the file as Excel (.xlsx) or CSV.", ending=ending
        )
    if not file.stat().st_size:
        return visit.gettext("The file “%(name)s” is empty.", name=name)
    with file.open("rb") as stream:
        head = stream.read(_HEAD)
    if _is_text(suffix) and foreign_content(head):
        return visit.gettext(
            "The file “%(name)s” is no text, although its name says so: it is a workbook, a document or a picture. "
            "Save it as Excel (.xlsx) or CSV, with the ending that belongs to it.",
            name=name,
        )
    return ""


def error_of(error: DataError | ConfigError | None) -> Mapping[str, Any] | None:
    """Return what an error says, as someone needs it who has sent a file: each reason once, with its rows."""
    if error is None:
        return None
    if isinstance(error, ConfigError):
        return {"summary": str(error), "problems": []}
    rows: dict[str, list[int]] = {}
    for one in error.in_order():
        rows.setdefault(one.reason, []).extend([] if one.row is None else [one.row])
    return {"summary": error.summary, "problems": [(found, reason) for reason, found in rows.items()][:_SHOWN]}


def _is_text(suffix: str) -> bool:
    """Return whether the files of an ending are text that is not compressed."""
    return suffix.removeprefix(".") in TEXT_FORMATS
