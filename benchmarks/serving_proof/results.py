"""The form of the result files: rows that a page shows as a table."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.provenance import RESULTS, write_result


def row(what: str, value: float | str, unit: str = "", wanted: str | None = None, *, held: bool | None = None) -> Any:
    """Return a row.

    Args:
        what: What was measured.
        value: What it came to.
        unit: Unit of the value.
        wanted: The goal, or None.
        held: Whether it was reached.
    """
    shown = round(value, 3) if isinstance(value, float) else value
    return {"what": what, "value": shown, "unit": unit, "wanted": wanted, "held": held}


def none_of(what: str, value: int) -> Any:
    """Return a row of something that must not happen."""
    return row(what, value, "", "0", held=value == 0)


def write(
    name: str,
    made_by: Mapping[str, Any],
    circumstances: str,
    rows: Sequence[Any],
    notes: Sequence[str],
    *,
    details: Mapping[str, Any] | None = None,
    partial: bool = False,
    **more: Any,
) -> Path:
    """Write `benchmarks/results/NAME.json`.

    Args:
        name: Name of the file.
        made_by: The provenance, as it was before the measurement.
        circumstances: What was done, for the page.
        rows: See `row`.
        notes: Sentences below the table.
        details: What the rows rest on, by name.
        partial: Whether only some rows were measured: the others, with their notes, details and provenance (`earlier`),
            stay in the file.
        more: Further keys.
    """
    file = RESULTS / f"{name}.json"
    former = json.loads(file.read_text(encoding="utf-8")) if partial and file.exists() else None
    earlier: list[Any] = []
    if former is not None:
        new = {one["what"]: one for one in rows}
        kept = [new.pop(one["what"], one) for one in former["rows"]]
        rows, notes = [*kept, *new.values()], list(dict.fromkeys([*former["notes"], *notes]))
        details = {**former["details"], **(details or {})}
        earlier = [*former["earlier"], {key: former[key] for key in ("made_by", "load", *more)}]
    result = {
        "command": made_by["command"],
        **more,
        "load": [made_by["machine"]["load_before"], os.getloadavg()[0]],
        "circumstances": circumstances,
        "rows": list(rows),
        "notes": list(notes),
        "details": dict(details or {}),
        "earlier": earlier,
    }
    return write_result(name, result, dict(made_by))


def show(rows: Sequence[Any]) -> None:
    """Print rows."""
    for one in rows:
        mark = {True: "ok", False: "NOT REACHED", None: ""}[one["held"]]
        print(f"{one['what']:70} {one['value']!s:>10} {one['unit']:4} {one['wanted'] or '':12} {mark}", flush=True)
