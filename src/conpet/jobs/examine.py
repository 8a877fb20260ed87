"""Examine a file that is to be learned, in a process of its own; see `conpet.jobs.uploads`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from conpet.commands.check_data import backbone_reading, backbone_to_read, stored_rows, with_recognised
from conpet.data.quality.examination import Examination, Reading, examine
from conpet.data.quality.loading import Known, load_data
from conpet.data.quality.rows import Data, Mode, Row
from conpet.data.raw import ReadOptions
from conpet.jobs.intake import limit_memory, outcome_of
from conpet.jobs.uploads import REPORT, ROWS, ExamineOptions
from conpet.store import Snapshot, Store

_BASE_BYTES, _BYTES_PER_BYTE, _BYTES_PER_PARAMETER = 6 << 30, 24, 16
_PARAMETERS = 500_000_000
"""Largest backbone that is loaded to judge labels and lengths."""
_ROWS = 5_000
"""Most rows that are judged by it."""


def main() -> None:
    """Read a request from standard input, and answer on standard output."""
    request = json.load(sys.stdin)
    folder = Path(request.pop("folder"))
    options = ExamineOptions(**request)
    with Store.open(options.workspace).snapshot() as snapshot:
        parameters = int(snapshot.header.backbone["parameters"])
        small = parameters if parameters <= _PARAMETERS else 0
        limit_memory(_BASE_BYTES + _BYTES_PER_BYTE * options.limit + _BYTES_PER_PARAMETER * small)
        answer = outcome_of(lambda: examine_file(folder, options, snapshot, judged=bool(small)))
    json.dump(json.loads(_named(json.dumps(answer, ensure_ascii=False), folder, options)), sys.stdout)


def examine_file(folder: Path, options: ExamineOptions, snapshot: Snapshot, *, judged: bool) -> dict[str, Any]:
    """Examine a file; write the report and the rows beside it, and return how its labels can be learned (`mode`).

    Args:
        folder: The folder with the file.
        options: What to look at.
        snapshot: The workspace.
        judged: Whether the backbone may be loaded to judge labels and lengths.

    Raises:
        DataError: The file cannot be read.
    """
    into = options.name if options.name in snapshot.owners.values() else None  # where new labels go, beside known ones
    known = Known(snapshot.owners, stored_rows(snapshot), mode=None, into=into)
    reading = ReadOptions(options.columns, options.encoding, sheet=options.sheet)
    data, _ = load_data([folder / options.file], name=options.name, options=reading, known=known)
    number = sum(1 for task in data.tasks for _ in task.rows)
    judge: Reading | None = None
    if judged and number <= _ROWS:
        backbone, own = backbone_to_read(snapshot, options.backbone, "cpu")
        judge = backbone_reading(backbone, snapshot if own else None)
        data = with_recognised(data, snapshot, backbone) if own else data
    done = examine(data, judge)
    if judge is None:
        done.skipped.append("mislabelled rows, close labels and cut inputs: too many rows, or too large a backbone")
    report = done.report(None, judge.backbone if judge else None)
    (folder / REPORT).write_text(_named(report.model_dump_json(), folder, options), encoding="utf-8")
    (folder / ROWS).write_text(json.dumps(list(_rows(data, done)), ensure_ascii=False), encoding="utf-8")
    return {"mode": str(next((task.mode for task in data.tasks), Mode.NEW))}


def _named(document: str, folder: Path, options: ExamineOptions) -> str:
    """Return a JSON document in which the file has the name that its sender knows."""
    path, shown = (json.dumps(name, ensure_ascii=False)[1:-1] for name in (str(folder / options.file), options.shown))
    return document.replace(path, shown).replace(str(folder), "")


def _rows(data: Data, done: Examination) -> Iterator[Mapping[str, Any]]:
    """Yield the rows, with what the fix makes of them."""
    for task in data.tasks:
        for subset, rows in task.subsets.items():
            for row in rows:
                new, _ = done.changes.get(row, (row, None))
                yield {
                    "subset": subset,
                    "number": row.number,
                    "row": _fields(row),
                    "fixed": None if new is None else _fields(new),
                }


def _fields(row: Row) -> dict[str, Any]:
    return {name: value for name, value in row.example.to_json().items() if name != "kind"}


if __name__ == "__main__":
    main()
