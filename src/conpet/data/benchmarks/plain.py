"""Labelled data in conpet's own row format: the shipped data sets and users' files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from conpet.data.benchmarks.reading import Reading
from conpet.data.example import Example
from conpet.data.files import data_suffix
from conpet.data.held_out import TEST_SHARE, VALIDATION_SHARE, split_off
from conpet.data.labelled import Grouping, LabelledData, by_named_subset
from conpet.data.raw import ReadOptions, named_subset
from conpet.data.rows import RowError, parse_row
from conpet.data.stream_layout import find_task

OUT_OF_SCOPE = "out_of_scope_test"


def read_plain(name: str | None, path: Path, options: ReadOptions | None = None) -> LabelledData:
    """Read labelled rows.

    Args:
        name: The data set's name; None for the name of the file or folder.
        path: A file, or a folder with a train file and, if there are any, validation and test files, in any format
            `conpet.data.read_task` reads. If there is only a train file, its rows may name their subsets (`split`).
            Missing sets are split off with seed 0. A file `out_of_scope_test` holds inputs that no label fits. A field
            `group` names the group of the row's label.
        options: How to read the files.

    Raises:
        DataError: The data has errors; `problems` lists all of them.
        ConfigError: A Parquet file is read where pyarrow is not installed.
    """
    options = options or ReadOptions()
    source = find_task(path, name, options=options)
    reading = Reading(source.name, path)
    reading.problems += source.problems
    outside = [file for file in path.iterdir() if _stem(file) == OUT_OF_SCOPE] if path.is_dir() else []
    reading.notes += [note for note in source.notes if not any(note.startswith(file.name) for file in outside)]
    group_of: dict[str, str] = {}
    named: list[str | None] = []

    def labelled(row: Mapping[str, Any]) -> Iterable[Example]:
        example = parse_row(row, inclusive_ends=options.inclusive_ends)
        if example.label is None:
            raise RowError("missing label")
        group = row.get("group")
        if group not in (None, "") and group_of.setdefault(example.label, str(group)) != str(group):
            raise RowError(
                f"label {example.label!r} is in group {group_of[example.label]!r} in an earlier row, here in {group!r}"
            )
        named.append(named_subset(row))
        return [example]

    subsets = {"train": ()} | {
        subset: reading.examples(file, reading.table(file, options, labelled=True), labelled)
        for subset, file in source.files.items()
    }
    if source.files.keys() == {"train"}:
        divided, note = by_named_subset(subsets["train"], named)
        if divided:
            subsets = {subset: tuple(examples) for subset, examples in divided.items()}
            reading.notes.append(note)
    for subset, share in (("test", TEST_SHARE), ("validation", VALIDATION_SHARE)):
        if subset not in subsets:
            subsets["train"], subsets[subset] = split_off(subsets["train"], share, seed=0)
            reading.notes.append(f"no {subset} set: {len(subsets[subset]):,} training rows were split off with seed 0")
    out_of_scope = [
        example.labelled(None)
        for file in outside
        for example in reading.examples(file, reading.table(file, options), _unlabelled)
    ]
    return reading.data(subsets, {"groups": _groups(group_of)} if group_of else {}, out_of_scope)


def _unlabelled(row: Mapping[str, Any]) -> Iterable[Example]:
    return [parse_row(row)]


def _stem(path: Path) -> str:
    return path.name.removesuffix(data_suffix(path) or "")


def _groups(group_of: Mapping[str, str]) -> Grouping:
    labels: dict[str, list[str]] = defaultdict(list)
    for label, group in group_of.items():
        labels[group].append(label)
    return {group: tuple(sorted(members)) for group, members in labels.items()}
