"""Which column of a table, or key of a JSON object, holds which field of an example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from conpet.data.rows import FIELDS, id_of
from conpet.errors import ConfigError, ConpetError, did_you_mean

LIKELY: Mapping[str, tuple[str, ...]] = {
    "text": ("utterance", "sentence", "query", "question", "message", "phrase", "input", "content"),
    "label": ("intent", "category", "class", "target", "labels", "tag", "topic", "relation"),
}
"""Common names of columns that hold a field; used if there is exactly one of them."""
OTHERS = ("split", "training", "group", "time", "timestamp")
"""Further columns that are looked at: the subset of a row, the group of its label, and when it came."""
OPTIONS: Mapping[str, str] = {"text": "--text-column", "label": "--label-column", "id": "--id-column"}
_SHOWN = 10


class ColumnError(ConpetError, ValueError):
    """The columns do not tell which one holds the text or the label; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a table, assigned to fields.

    Attributes:
        of: The column of each field that has one.
        assumed: The fields whose column is only likely: none has the field's name.
        names: All columns, in order.
    """

    of: Mapping[str, str]
    assumed: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    def renamed(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Return a row by the names of fields; other columns keep their names."""
        if all(field == column for field, column in self.of.items()):
            return fields
        taken = set(self.of.values())
        others = {name: value for name, value in fields.items() if name not in taken and name not in FIELDS}
        return others | {field: fields[column] for field, column in self.of.items() if column in fields}

    def id_of(self, cells: Sequence[str]) -> str | None:
        """Return the id of a row with too many or too few cells, or None if its place is not sure.

        The text may contain what separates cells: columns before it are counted from the start, others from the end.
        """
        if "id" not in self.of:
            return None
        at, text = self.names.index(self.of["id"]), self.of.get("text", self.of.get("tokens", ""))
        from_end = text in self.names[:at]
        place = at - len(self.names) if from_end else at
        if not -len(cells) <= place < len(cells) or (from_end and len(cells) < len(self.names)):
            return None
        return cells[place] or None

    @property
    def notes(self) -> list[str]:
        """Say which columns were assumed."""
        return [
            f"column {self.of[field]!r} is read as {field} ({OPTIONS[field]} names another)" for field in self.assumed
        ]


def assign_columns(
    names: Sequence[str], given: Mapping[str, str], *, labelled: bool = False, table: bool = True
) -> Columns:
    """Assign columns to fields: as given, else by the field's name in any case, else by a common name.

    Args:
        names: The columns.
        given: Columns given by the user, by field.
        labelled: Whether a column of labels is needed.
        table: Whether these are all columns of a table; otherwise the keys of one JSON object, which may lack some.

    Raises:
        ColumnError: No text is found, or no label although it is needed; or a name could mean several columns.
    """
    by_user = {field: _given(field, column, names, table) for field, column in given.items()}
    of, assumed = {field: column for field, column in by_user.items() if column is not None}, []
    free = [name for name in names if name not in of.values()]
    for field in FIELDS:
        if field not in of and (column := _named(field, free)) is not None:
            of[field] = column
    of |= {other: max(found) for other in OTHERS if (found := [name for name in free if _plain(name) == other])}
    for field in ("text", "label"):
        needed = field == "text" or labelled
        if field in of or (field == "text" and "tokens" in of):
            continue
        likely = [name for name in names if _plain(name) in LIKELY[field] and name not in of.values()]
        if len(likely) == 1:
            of[field] = likely[0]
            assumed.append(field)
        elif needed and (table or likely or field == "text"):
            raise ColumnError(_missing(field, names, likely, table))
    return Columns(of, tuple(assumed), tuple(names))


def id_in(fields: Mapping[str, Any], given: Mapping[str, str]) -> Any:
    """Return the id of a row whose other columns are not known, or None.

    Args:
        fields: The row.
        given: Columns given by the user, by field.
    """
    wanted = _plain(str(given.get("id", "id")))
    values = [value for name, value in fields.items() if isinstance(name, str) and _plain(name) == wanted]
    return id_of({"id": values[0]}) if len(values) == 1 else None


def check_columns(given: Mapping[str, str]) -> None:
    """Check columns given by the user.

    Raises:
        ConfigError: A key is not a field of an example.
    """
    for field in given:
        if field not in FIELDS:
            raise ConfigError(f"columns: no field {field!r}{did_you_mean(field, FIELDS)}; fields: {', '.join(FIELDS)}")


def _plain(name: str) -> str:
    return name.strip().strip("\ufeff").casefold()


def _named(field: str, names: Sequence[str]) -> str | None:
    exact = [name for name in names if name.strip() == field]
    found = exact or [name for name in names if _plain(name) == field]
    if len(found) > 1:
        raise ColumnError(f"the columns name {field} more than once: {', '.join(map(repr, found))}; rename the others")
    return found[0] if found else None


def _given(field: str, column: str, names: Sequence[str], table: bool) -> str | None:
    wanted = str(column)
    found = [name for name in names if name == wanted] or [name for name in names if _plain(name) == _plain(wanted)]
    if len(found) == 1:
        return found[0]
    if not found and not table:
        return None
    problem = "there are several columns" if found else "no column"
    raise ColumnError(f"{problem} {wanted!r}, given for {field}{did_you_mean(wanted, names)}; columns: {_shown(names)}")


def _missing(field: str, names: Sequence[str], likely: Sequence[str], table: bool) -> str:
    if table:
        what = f"no column named {field}{' or tokens' if field == 'text' else ''}; columns: "
    else:
        what = f"missing {field}{' (or tokens with head and tail, or with mention)' if field == 'text' else ''}"
        if all(_plain(name) in FIELDS for name in names):  # none of them could be meant
            return what
        what = f"{what}; fields: "
    meant = f". Likely: {' or '.join(map(repr, likely))}" if likely else ""
    number = "" if likely or not table else f", or its number if the file has no header: {OPTIONS[field]} 1"
    return (
        f"{what}{_shown(names)}{meant}. Name the one to read: {OPTIONS[field]} NAME (columns in Python and stream.yaml)"
        f"{number}"
    )


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return (", ".join(repr(name) for name in names[:_SHOWN]) or "none") + more
