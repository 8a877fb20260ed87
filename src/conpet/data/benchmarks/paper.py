"""The tasks of the paper (Song et al. 2023) for its six data sets."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import files

from conpet.data.benchmarks.reading import listed
from conpet.data.labelled import Grouping, LabelledData


def paper_tasks(key: str) -> list[list[str]]:
    """Return the labels of the paper's tasks, in its order.

    Args:
        key: "fewrel", "fewnerd", "tacred", "ace2005", "ontonotes" or "bbn".
    """
    text = (files("conpet.data.benchmarks") / "paper_tasks.json").read_text(encoding="utf-8")
    tasks: list[list[str]] = json.loads(text)[key]
    return tasks


def paper_labels(key: str) -> frozenset[str]:
    """Return all labels of the paper's tasks."""
    return frozenset(label for labels in paper_tasks(key) for label in labels)


def with_paper(data: LabelledData, key: str) -> LabelledData:
    """Add the paper's tasks as the first grouping, "paper", without the labels that have no training example.

    Notes name those labels, and the labels of the data that belong to no task.
    """
    known, named = set(data.labels), paper_labels(key)
    paper: Grouping = {
        f"task-{number:02d}": kept
        for number, labels in enumerate(paper_tasks(key), start=1)
        if (kept := tuple(label for label in labels if label in known))
    }
    notes = []
    if lacking := named - known:
        notes.append(f"labels of the paper's tasks without a training example here: {listed(lacking)}")
    if surplus := known - named:
        notes.append(f"labels in none of the paper's tasks: {listed(surplus)}")
    return replace(data, groupings={"paper": paper, **data.groupings}, notes=(*data.notes, *notes))
