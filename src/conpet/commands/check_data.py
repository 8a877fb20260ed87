"""Check data, alone or against a workspace, before anything is learned."""

from __future__ import annotations

import os
import random
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from conpet.backbone.backbone import Backbone, longest_input
from conpet.backbone.load import load_backbone
from conpet.config import DEFAULT_BACKBONE, Settings
from conpet.data import Kind, Task, check_example
from conpet.data.example import Example
from conpet.data.quality.cleaned import require_empty, write_cleaned
from conpet.data.quality.examination import Reading, examine
from conpet.data.quality.loading import NOTHING, Known, data_of_tasks, load_data
from conpet.data.quality.rows import TRAIN, Data, Mode, Row
from conpet.data.raw import ReadOptions
from conpet.errors import ConfigError
from conpet.replay.memory import StoredExamples, Subset
from conpet.replay.memory_writer import examples_without_test_labels
from conpet.report.data_check import DataCheckReport
from conpet.state.live import backbone_of, cut_backbone, state_cache
from conpet.state.reading import state_of
from conpet.store import Snapshot, Store

STORED_PER_LABEL = 20
"""Most stored training rows of a label that new labels are compared with."""
NO_TEXT = "the workspace stores no text (replay.latent_only): comparing rows with its examples needs the backbone"
_SAME_FEATURES = 0.9999
"""Least cosine of the features of two rows that are the same input; rounding in batches costs less than 1e-5."""
_CHUNK = 1024
_SOURCES = "give a path, a list of paths, a task or a list of tasks"

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
    known = NOTHING if snapshot is None else Known(snapshot.owners, stored_rows(snapshot), mode=None)
    tasks = _tasks(source)
    loaded = None
    if tasks is not None:
        if fix is not None:
            raise ConfigError("a cleaned copy can be made of files only; pass their paths, or correct the tasks")
        data = data_of_tasks(tasks, known)
    else:
        data, loaded = load_data(_paths(source), options=options, known=known)
    model, own = (None, False) if quick else backbone_to_read(snapshot, backbone, device)
    reading = None if model is None else backbone_reading(model, snapshot if own else None)
    if snapshot is not None and model is not None and own:
        data = with_recognised(data, snapshot, model)
    done = examine(data, reading, drop_mislabelled=drop_mislabelled)
    if snapshot is not None and quick and any(stores_no_text(snapshot)):
        done.skipped.append(NO_TEXT)
    if quick:
        done.skipped.append("mislabelled rows, close labels and cut inputs need a backbone (quick)")
    if fix is not None and loaded is not None:
        write_cleaned(done, loaded, Path(fix))
    return done.report(str(against) if against is not None else None, reading.backbone if reading else None)


def stored_rows(snapshot: Snapshot, without: Collection[str] = ()) -> Iterator[Row]:
    """Yield the stored examples of a workspace, with the labels of test examples hidden.

    Args:
        snapshot: The workspace.
        without: Names of tasks to leave out. Tasks that are stored without texts are left out, too.
    """
    for task in snapshot.tasks:
        examples = examples_without_test_labels(task.active)
        if examples.latent or task.name in without:
            continue
        for subset in Subset:
            for number, example in enumerate(examples.examples(subset), start=1):
                yield Row(task.name, str(subset), f"task {task.name!r}", number, example, stored=True)


def stores_no_text(snapshot: Snapshot) -> Iterator[bool]:
    """Yield for each task of a workspace whether only its states are stored."""
    return (examples_without_test_labels(task.active).latent for task in snapshot.tasks)


def with_recognised(data: Data, snapshot: Snapshot, backbone: Backbone) -> Data:
    """Add the stored rows of a workspace without texts that have the features of a new row, as copies of that row."""
    found: list[Row] = []
    anew = {task.name for task in data.tasks if task.mode is Mode.NEW}
    for record in snapshot.tasks:
        examples = examples_without_test_labels(record.active)
        if not examples.latent or record.name in anew:
            continue
        rows = [row for row in data.rows if row.example.kind is examples.kind and _encodable(row, backbone, examples)]
        for start in range(0, len(rows), _CHUNK):
            chunk = rows[start : start + _CHUNK]
            features = backbone.states([row.example for row in chunk], examples.template).features
            for subset in Subset:
                found += _same_rows(chunk, features, examples, subset)
    return replace(data, stored=(*data.stored, *found))


def _encodable(row: Row, backbone: Backbone, examples: StoredExamples) -> bool:
    if check_example(row.example):
        return False
    (need,) = backbone.encoder.needs([row.example], examples.template)
    return need.problem(backbone.max_tokens) is None


def _same_rows(rows: Sequence[Row], features: Tensor, examples: StoredExamples, subset: Subset) -> Iterator[Row]:
    """Yield the stored rows of a subset that have the same features as one of the new rows."""
    stored = examples.latent_features(subset)
    if not len(stored):
        return
    labels = None if subset is Subset.TEST else examples.labels(subset)
    similarity = normalize(features.float()) @ normalize(stored.float()).T
    for row, position in (similarity >= _SAME_FEATURES).nonzero().tolist():
        example = rows[row].example.labelled(labels[position] if labels else None)
        yield Row(examples.task, str(subset), f"task {examples.task!r}", position + 1, example, stored=True)


def backbone_to_read(snapshot: Snapshot | None, backbone: str | None, device: str | None) -> tuple[Backbone, bool]:
    """Return the backbone that was named, or that of a workspace, or the default; and whether it is the workspace's."""
    settings = Settings() if snapshot is None else Settings.parse(snapshot.header.settings)
    name = backbone or (settings.backbone.name if snapshot is not None else DEFAULT_BACKBONE)
    loaded = load_backbone(name, dtype=settings.backbone.dtype, device=device or settings.backbone.device)
    cache = state_cache() if settings.backbone.cache else None
    if snapshot is None:
        return cut_backbone(loaded, settings, cache), False
    if loaded.fingerprint.to_json() != snapshot.header.backbone["fingerprint"]:
        other = Settings.parse({"backbone": {"name": name, "max_tokens": settings.backbone.max_tokens}})
        return cut_backbone(loaded, other, cache), False
    return backbone_of(cut_backbone(loaded, settings, cache), state_of(snapshot)), True


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
    if not isinstance(source, Iterable):
        raise ConfigError(_SOURCES)
    items = list(source)
    return items if items and all(isinstance(item, Task) for item in items) else None


def _paths(source: object) -> list[Path]:
    items = [source] if isinstance(source, (str, os.PathLike)) else list(source)  # type: ignore[call-overload]
    if not items or not all(isinstance(item, (str, os.PathLike)) for item in items):
        raise ConfigError(_SOURCES)
    return [Path(item).expanduser() for item in items]
