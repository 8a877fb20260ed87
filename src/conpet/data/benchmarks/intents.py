"""CLINC150 and Banking77: user intents, from the authors' files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from conpet.data.benchmarks.plain import read_plain
from conpet.data.benchmarks.reading import Reading, field, json_file, shown
from conpet.data.example import Example
from conpet.data.held_out import VALIDATION_SHARE, split_off
from conpet.data.labelled import Grouping, LabelledData
from conpet.data.raw import ReadOptions
from conpet.data.rows import RowError
from conpet.errors import Problem

CLINC_FILE, CLINC_DOMAINS = "data_full.json", "domains.json"
BANKING_FILES = {"train": "train.csv", "test": "test.csv"}
_CLINC_EXPECTED = 'an object {"train": [[text, intent], ...], "val": ..., "test": ..., "oos_test": ...}'
_CLINC_SPLITS = {"train": "train", "validation": "val", "test": "test", "out_of_scope": "oos_test"}


def read_clinc150(name: str, folder: Path) -> LabelledData:
    """Read CLINC150 (Larson et al., EMNLP 2019) from `data_full.json`, or in the format shipped with conpet.

    `oos_test` holds the inputs out of scope. If there is a `domains.json`, the groups are the domains.

    Raises:
        DataError: A file is missing or wrong.
    """
    path = folder / CLINC_FILE
    if not path.exists():
        return read_plain(name, folder)
    reading = Reading(name, folder)
    content = json_file(path, dict, _CLINC_EXPECTED)
    subsets = {}
    for subset, key in _CLINC_SPLITS.items():
        try:
            rows = field(content, key, list, "a list of [text, intent]")
        except RowError as error:
            reading.problems.append(Problem(str(path), None, str(error)))
            continue
        subsets[subset] = reading.examples(path, ((None, (key, *row)) for row in enumerate(rows)), _utterance)
    out_of_scope = [example.labelled(None) for example in subsets.pop("out_of_scope", ())]
    reading.notes += [
        f"{len(content[key]):,} inputs of {key} were not read" for key in ("oos_train", "oos_val") if key in content
    ]
    groups = _domains(reading, folder / CLINC_DOMAINS)
    return reading.data({"train": (), **subsets}, {"groups": groups} if groups else {}, out_of_scope)


def _utterance(row: tuple[str, int, Any]) -> Iterable[Example]:
    key, number, value = row
    match value:
        case [str(text), str(intent)] if intent.strip():
            return [Example.of_text(text, intent)]
    raise RowError(f"{key}, entry {number} (from 0): expected [text, intent], found {shown(value)}")


def _domains(reading: Reading, path: Path) -> Grouping:
    if not path.exists():
        reading.notes.append(f"no {CLINC_DOMAINS}: the intents have no domains")
        return {}
    domains = json_file(path, dict, 'an object {"banking": [intents], ...}')
    if not all(isinstance(intents, list) for intents in domains.values()):
        reading.problems.append(Problem(str(path), None, "expected lists of intents by domain"))
        return {}
    return {domain: tuple(map(str, intents)) for domain, intents in domains.items()}


def read_banking77(name: str, folder: Path) -> LabelledData:
    """Read Banking77 (Casanueva et al., 2020) from `train.csv` and `test.csv`, or in the format shipped with conpet.

    There is no official validation set: a tenth of each intent's training inputs is split off with seed 0 (not the same
    tenth as in the shipped files).

    Raises:
        DataError: A file is missing or wrong.
    """
    if not any((folder / file).exists() for file in BANKING_FILES.values()):
        return read_plain(name, folder)
    reading = Reading(name, folder)
    paths = {subset: folder / file for subset, file in BANKING_FILES.items()}
    subsets = {subset: reading.examples(path, reading.table(path, _BANKING), _query) for subset, path in paths.items()}
    subsets["train"], subsets["validation"] = split_off(subsets["train"], VALIDATION_SHARE, seed=0)
    reading.notes.append(
        f"no official validation set: {len(subsets['validation']):,} training examples were split off with seed 0"
    )
    return reading.data(subsets)


_BANKING = ReadOptions({"label": "category"})


def _query(row: Mapping[str, Any]) -> Iterable[Example]:
    text, intent = field(row, "text", str, "text"), field(row, "label", str, "text")
    if not intent.strip():
        raise RowError("missing category")
    return [Example.of_text(text, intent)]
