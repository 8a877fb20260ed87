"""Check data, alone or against a workspace, before anything is learned."""

from __future__ import annotations

import os
import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from conpet.backbone.backbone import Backbone, longest_input
from conpet.backbone.load import load_backbone
from conpet.config import DEFAULT_BACKBONE, Settings
from conpet.data import Kind, Task
from conpet.data.example import Example
from conpet.data.quality.cleaned import require_empty, write_cleaned
from conpet.data.quality.examination import Reading, examine
from conpet.data.quality.loading import data_of_tasks, load_data
from conpet.data.quality.rows import TRAIN, Row
from conpet.data.raw import ReadOptions
from conpet.errors import ConfigError
from conpet.replay.memory import Subset
from conpet.replay.memory_writer import examples_without_test_labels
from conpet.report.data_check import DataCheckReport
from conpet.state.live import cut_backbone, state_cache
from conpet.store import Snapshot, Store

STORED_PER_LABEL = 20
"""Most stored training rows of a label that new labels are compared with."""
NO_TEXT = "the workspace stores no text (replay.latent_only), so new rows were not compared with its examples"

Source = str | os.PathLike[str]


def check_data(
    source: Source | Sequence[Source] | Task | Iterable[Task],
    *,
    against: Source | None = None,
    fix: Source | None = None,
    drop_mislabelled: bool = False,
    quick: bool = False,
    backbone: str | None = None,
    device: str | None = None,
    options: ReadOptions | None = None,
) -> DataCheckReport:
    """Check data for what makes learning wrong, and for what a user should know. The data are not changed.

    Args:
        source: A file, a folder of subsets, a stream, a list of these in the order in which they would be learned; or
            a task, or several.
        against: A workspace: rows are compared with its stored examples, labels with its labels.
        fix: A new or empty folder for a cleaned copy of the files, with `left-out.jsonl`.
        drop_mislabelled: Whether the copy also leaves out rows that are probably mislabelled.
        quick: Whether to skip everything that needs the backbone.
        backbone: Name or folder of the backbone; by default that of the workspace, or the default backbone.
        device: A torch device.
        options: How to read the files.

    Raises:
        ConfigError: The folder for the copy is not empty, or a copy of tasks in memory was asked for.
        WorkspaceNotFoundError: There is no workspace at `against`.
    """
    if fix is not None:
        require_empty(Path(fix))
    store = Store.open(against) if against is not None else None
    snapshot = store.snapshot() if store is not None else None
    owners = {} if snapshot is None else {label: task.name for task in snapshot.tasks for label in task.active.labels}
    stored = [] if snapshot is None else list(stored_rows(snapshot))
    tasks = _tasks(source)
    loaded = None
    if tasks is not None:
        if fix is not None:
            raise ConfigError("a cleaned copy can be made of files only; pass their paths, or correct the tasks")
        data = data_of_tasks(tasks, owners, stored)
    else:
        data, loaded = load_data(_paths(source), options=options, owners=owners, stored=stored)
    reading = None if quick else reading_of(snapshot, backbone, device)
    done = examine(data, reading, drop_mislabelled=drop_mislabelled)
    if snapshot is not None and any(stores_no_text(snapshot)):
        done.skipped.append(NO_TEXT)
    if quick:
        done.skipped.append("mislabelled rows, close labels and cut inputs need a backbone (quick)")
    if fix is not None and loaded is not None:
        write_cleaned(done, loaded, Path(fix))
    return done.report(str(against) if against is not None else None, reading.backbone if reading else None)


def stored_rows(snapshot: Snapshot) -> Iterator[Row]:
    """Yield the stored examples of a workspace, with the labels of test examples hidden.

    Tasks that are stored without texts are left out.
    """
    for task in snapshot.tasks:
        examples = examples_without_test_labels(task.active)
        if examples.latent:
            continue
        for subset in Subset:
            for number, example in enumerate(examples.examples(subset), start=1):
                yield Row(task.name, str(subset), f"task {task.name!r}", number, example, stored=True)


def stores_no_text(snapshot: Snapshot) -> Iterator[bool]:
    """Yield for each task of a workspace whether only its states are stored."""
    return (examples_without_test_labels(task.active).latent for task in snapshot.tasks)


def reading_of(snapshot: Snapshot | None, backbone: str | None, device: str | None) -> Reading:
    """Return how a backbone reads inputs: that of a workspace, or the default backbone."""
    settings = Settings() if snapshot is None else Settings.parse(snapshot.header.settings)
    name = backbone or (settings.backbone.name if snapshot is not None else DEFAULT_BACKBONE)
    loaded = load_backbone(name, dtype=settings.backbone.dtype, device=device or settings.backbone.device)
    cache = state_cache() if settings.backbone.cache else None
    return backbone_reading(cut_backbone(loaded, settings, cache), snapshot)


def backbone_reading(backbone: Backbone, snapshot: Snapshot | None = None) -> Reading:
    """Return how a loaded backbone reads inputs, with the training rows of a workspace to compare labels with."""

    def features(examples: Sequence[Example], template: str | None) -> Tensor:
        return backbone.states(examples, template).features

    def stored(kind: Kind) -> tuple[list[Row], Tensor | None]:
        return _stored_features(snapshot, backbone, kind) if snapshot is not None else ([], None)

    return Reading(
        backbone.name, backbone.encoder, backbone.max_tokens, longest_input(backbone.cut.model), features, stored
    )


def _stored_features(snapshot: Snapshot, backbone: Backbone, kind: Kind) -> tuple[list[Row], Tensor | None]:
    """Return some stored training rows of each label of a kind, with their features."""
    rows: list[Row] = []
    parts: list[Tensor] = []
    for task in snapshot.tasks:
        examples = examples_without_test_labels(task.active)
        if examples.kind is not kind or not task.active.labels:
            continue
        labels = examples.labels(Subset.TRAIN)
        places: dict[str, list[int]] = {}
        for position, label in enumerate(labels):
            places.setdefault(label, []).append(position)
        draw = random.Random(0)  # noqa: S311 - not for secrets
        chosen = sorted(
            position
            for of_label in places.values()
            for position in draw.sample(of_label, min(STORED_PER_LABEL, len(of_label)))
        )
        if not chosen:
            continue
        parts.append(examples.states(backbone, Subset.TRAIN, chosen).features)
        file = f"task {task.name!r}"
        rows += [
            Row(task.name, TRAIN, file, position + 1, Example(kind, label=labels[position]), stored=True)
            for position in chosen
        ]
    return rows, torch.cat(parts) if parts else None


def _tasks(source: object) -> list[Task] | None:
    """Return tasks in memory, or None for paths."""
    if isinstance(source, Task):
        return [source]
    if isinstance(source, (str, os.PathLike)):
        return None
    items = list(source)  # type: ignore[call-overload]
    return items if items and all(isinstance(item, Task) for item in items) else None


def _paths(source: object) -> list[Path]:
    items = [source] if isinstance(source, (str, os.PathLike)) else list(source)  # type: ignore[call-overload]
    if not items or not all(isinstance(item, (str, os.PathLike)) for item in items):
        raise ConfigError("give a path, a list of paths, a task or a list of tasks")
    return [Path(item).expanduser() for item in items]
