"""The data sets that come with conpet's source: rows in the format of conpet's readers, compressed."""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from conpet.data.labelled import SPLITS, Grouping, LabelledData
from conpet.data.rows import parse_row

OUT_OF_SCOPE = "out_of_scope_test"


def read_shipped(name: str, folder: Path) -> LabelledData:
    """Read a data set that comes with conpet's source.

    Args:
        name: The data set's name.
        folder: Its folder: `train.jsonl.gz`, `validation.jsonl.gz`, `test.jsonl.gz` and, where there are inputs without
            a label, `out_of_scope_test.jsonl.gz`. A row's `group` is the one its label belongs to.
    """
    rows = {split: list(_rows(folder / f"{split}.jsonl.gz")) for split in SPLITS}
    groups = _groups(rows["train"])
    outside = folder / f"{OUT_OF_SCOPE}.jsonl.gz"
    train, validation, test = (tuple(parse_row(row) for row in rows[split]) for split in SPLITS)
    return LabelledData(
        name,
        train,
        validation,
        test,
        groupings={"groups": groups} if groups else {},
        out_of_scope=tuple(parse_row(row) for row in _rows(outside)) if outside.exists() else (),
    )


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def _groups(rows: list[dict[str, Any]]) -> Grouping:
    labels: dict[str, dict[str, None]] = defaultdict(dict)
    for row in rows:
        if "group" in row:
            labels[row["group"]][row["label"]] = None
    return {group: tuple(sorted(found)) for group, found in labels.items()}
