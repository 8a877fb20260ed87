"""The benchmark data sets conpet knows: what they are, where they lie, how they are read."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

from conpet.data.formats.shipped import read_shipped
from conpet.data.labelled import Grouping, LabelledData
from conpet.errors import DataError, UnknownNameError

FOLDERS = "CONPET_DATA"
"""Environment variable: folders in which data sets are looked for, like PATH."""
_SOURCE = Path(__file__).parents[4]


@dataclass(frozen=True, slots=True)
class DataSet:
    """One benchmark data set.

    Attributes:
        name: Its name, and that of its folder.
        title: What it is, in a line.
        licence: Under which it is published.
        source: Where it can be had.
    """

    name: str
    title: str
    licence: str
    source: str


DATA_SETS: Mapping[str, DataSet] = {
    one.name: one
    for one in (
        DataSet("clinc150", "150 intents in 10 domains", "CC BY 3.0", "https://github.com/clinc/oos-eval"),
        DataSet("banking77", "77 intents", "CC BY 4.0", "https://github.com/PolyAI-LDN/task-specific-datasets"),
        DataSet("fewrel80", "80 relations", "MIT", "https://github.com/thunlp/FewRel"),
        DataSet("fewnerd53", "53 entity types", "CC BY-SA 4.0", "https://github.com/thunlp/Few-NERD"),
    )
}


def data_folders(given: Sequence[Path] = ()) -> list[Path]:
    """Return the folders in which data sets are looked for, in that order.

    Args:
        given: Those the user names. Then come those of `CONPET_DATA`, and `benchmarks/data` of conpet's source.
    """
    named = [Path(one).expanduser() for one in os.environ.get(FOLDERS, "").split(os.pathsep) if one]
    return [*given, *named, _SOURCE / "benchmarks" / "data"]


def read_data(name: str, folders: Sequence[Path] = ()) -> LabelledData:
    """Read a benchmark data set.

    Args:
        name: One of `DATA_SETS`.
        folders: As in `data_folders`.

    Raises:
        UnknownNameError: There is no such data set.
        DataError: It is not there; the message says where to get it and where to put it.
    """
    if name not in DATA_SETS:
        raise UnknownNameError(f"no data set {name!r}; have: {', '.join(DATA_SETS)}")
    for folder in data_folders(folders):
        if (folder / name).is_dir():
            return _with_paper(read_shipped(name, folder / name))
    raise DataError(f"the data set {name} is not there: get it from {DATA_SETS[name].source}")


def _with_paper(data: LabelledData) -> LabelledData:
    """Add the tasks of the paper (Song et al. 2023) in front, less the labels that are not in the data."""
    tasks = json.loads((files("conpet.data.formats") / "paper_tasks.json").read_text(encoding="utf-8")).get(data.name)
    if tasks is None:
        return data
    known = set(data.labels)
    paper: Grouping = {
        f"task-{number:02d}": kept
        for number, labels in enumerate(tasks, start=1)
        if (kept := tuple(label for label in labels if label in known))
    }
    return replace(data, groupings={"paper": paper, **data.groupings})
