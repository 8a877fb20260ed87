"""Check, trace and export the history of a workspace and the trail of actions; imports no torch."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conpet.commands.verify import backbone_problem
from conpet.errors import ConfigError, DataError, UnknownNameError
from conpet.store import ActionLog, EventSummary, Store
from conpet.store.actions import CHAIN, breaks_of
from conpet.store.chain import Break, breaks, to_json
from conpet.store.prediction_log import Anchor, PredictionLog, RecordHead, pruning_anchors

_PART = r"(\d+):([0-9a-f]{64})"
_HEAD = re.compile(rf"{_PART}(?:\+{_PART})?(?:~{_PART})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Head:
    """The last event of a history, action and recorded prediction, whose digests stand for everything up to them.

    Attributes:
        generation: Id of the event.
        digest: Its digest, 64 hexadecimal digits.
        action: Number of the action; 0 if there is none.
        action_digest: Its digest, or "".
        prediction: Number of the last recorded prediction; 0 if there is none.
        prediction_digest: Its digest, or "".
    """

    generation: int
    digest: str
    action: int = 0
    action_digest: str = ""
    prediction: int = 0
    prediction_digest: str = ""

    @classmethod
    def parse(cls, text: str) -> Head:
        """Read `str(head)`.

        Raises:
            ConfigError: It is something else.
        """
        found = _HEAD.fullmatch(text.strip().lower())
        if found is None:
            raise ConfigError(f"{text!r:.80} is not GENERATION:DIGEST as `conpet audit head` prints it")
        generation, digest, action, action_digest, entry, entry_digest = (part or "" for part in found.groups())
        return cls(int(generation), digest, int(action or 0), action_digest, int(entry or 0), entry_digest)

    def __str__(self) -> str:
        actions = f"+{self.action}:{self.action_digest}" if self.action else ""
        predictions = f"~{self.prediction}:{self.prediction_digest}" if self.prediction else ""
        return f"{self.generation}:{self.digest}{actions}{predictions}"


def head(store: Store, log: PredictionLog | None = None) -> Head:
    """Return the head of a workspace's history, actions and recorded predictions; `log` as in `verify_workspace`."""
    event = store.history(limit=1)[0]
    action = next(iter(trail(store, log).entries(limit=1)), None)
    entry = (log or PredictionLog(store.path)).head()
    return Head(
        event.id,
        event.digest,
        *((0, "") if action is None else (action.id, action.digest)),
        *((0, "") if entry is None else (entry.last, entry.digest)),
    )


def trail(store: Store, log: PredictionLog | None = None) -> ActionLog:
    """Return the trail of the actions on a workspace; `log` as in `verify_workspace`."""
    return store.actions if log is None else ActionLog(store.path, log.folder)


def verify_workspace(
    store: Store, heads: Sequence[Head] = (), log: PredictionLog | None = None, backbone: str | None = None
) -> list[Break]:
    """Check that a workspace, its backbone, its history and the record of its predictions are what was recorded.

    Args:
        store: The workspace's store.
        heads: Heads of this history that were noted earlier. Without one, a history that was written anew as a whole,
            or cut at its end, cannot be told from the true one.
        log: The record of predictions, if it lies outside the workspace's folder.
        backbone: Folder of the backbone, if it differs from the settings. A backbone that is not on this machine is not
            checked.
    """
    log = log or PredictionLog(store.path)
    events, actions = [to_json(event) for event in store.events()], trail(store, log).exported()
    changed, _ = backbone_problem(store, backbone)
    damaged = [Break(None, str(problem)) for problem in (*store.verify(), *([changed] if changed else []))]
    predictions = [
        Break(None, reason) for reason in _prediction_breaks(store, log, heads, [*_anchors(events, actions)])
    ]
    return [
        *store.history_breaks(),
        *breaks_of(actions),
        *_against(events, actions, heads),
        *damaged,
        *predictions,
    ]


def _anchors(events: Sequence[dict[str, Any]], actions: Sequence[dict[str, Any]]) -> Iterator[Anchor]:
    """Yield the entries of records of predictions that the history and the actions note."""
    for event in events:
        if "predictions" in event["written"]:
            yield Anchor(RecordHead(**event["written"]["predictions"]), f"event {event['id']}")
    yield from pruning_anchors(actions)


def _prediction_breaks(
    store: Store, log: PredictionLog, heads: Sequence[Head], anchors: Sequence[Anchor]
) -> Iterator[str]:
    """Yield where the record of the workspace, and one elsewhere, are not what was recorded."""
    own = PredictionLog(store.path)
    records = [own] if log.folder.resolve() == own.folder.resolve() else [own, log]
    present = {record.identity for record in records}
    for identity in sorted({one.head.record for one in anchors if not one.elsewhere} - present - {""}):
        last = max((one for one in anchors if one.head.record == identity), key=lambda one: one.head.last)
        yield (
            f"the record of predictions whose entry {last.head.last} {last.where} noted is not here; if it was moved "
            "to another folder, name that (--log-to)"
        )
    noted = [
        Anchor(RecordHead("", one.prediction, one.prediction_digest), "the head") for one in heads if one.prediction
    ]
    if noted and not records[-1].exists:
        yield f"prediction {noted[-1].head.last}: was noted, but there is no record of predictions in {log.folder}"
    for record in records:
        yield from record.breaks([*anchors, *(noted if record is records[-1] else ())])


def verify_export(path: Path, heads: Sequence[Head] = ()) -> list[Break]:
    """Check a history that `export` wrote; arguments as in `verify_workspace`.

    Raises:
        DataError: The file is something else.
    """
    events, actions = _exported(path)
    return [*breaks(events), *breaks_of(actions), *_against(events, actions, heads)]


def export(store: Store, log: PredictionLog | None = None) -> Iterator[str]:
    """Yield the history, one JSON object per event, oldest first, then the actions; `log` as in `verify_workspace`."""
    for event in store.events():
        yield json.dumps(to_json(event), ensure_ascii=False)
    for action in trail(store, log).exported():
        yield json.dumps(action, ensure_ascii=False)


def trace(store: Store, task: str, version: int | None = None, log: PredictionLog | None = None) -> dict[str, Any]:
    """Return what is recorded of a version of a task: who made it, when, from which data, and what happened to it.

    Args:
        store: The workspace's store.
        task: Name of the task; it may have been removed.
        version: Number of the version; by default the active one, or the last one of a removed task.
        log: As in `verify_workspace`.

    Returns:
        A JSON-ready dictionary.

    Raises:
        UnknownNameError: There was no such task or version.
    """
    events = store.history()[::-1]
    learned = [event for event in events if event.task == task and event.written.get("version")]
    made = {event.version: event for event in learned if event.version is not None}
    if not made:
        raise UnknownNameError(f"no task {task!r} was ever learned in this workspace")
    with store.snapshot() as snapshot:
        present = {each.number: each for each in snapshot.versions if each.task == task}
        active = next((number for number in present if snapshot.task(task).active.number == number), None)
    number = version or active or max(made)
    if number not in made:
        have = ", ".join(map(str, made))
        raise UnknownNameError(f"task {task!r} has had no version {number}; it has had: {have}")
    stored = present.get(number)
    files = {} if stored is None else {reader.folder.name: slot for slot, reader in stored.objects.items()}
    hashes = {folder: value for event in events for folder, value in event.written.get("objects", {}).items()}
    return {
        "task": task,
        "version": number,
        "active": number == active,
        "data": made[number].written["version"]["data"],
        "labels": None if stored is None else list(stored.labels),
        "number_of_labels": made[number].written["version"]["labels"],
        "made": _entry(made[number]),
        "examples": {} if stored is None else dict(stored.description.get("counts", {})),
        "objects": [{"slot": slot, "folder": folder, "sha256": hashes[folder]} for folder, slot in files.items()],
        "events": [_entry(event) for event in events if task in (event.task, *event.detail.get("tasks", ()))],
        "actions": [action.to_json() for action in reversed(trail(store, log).entries(task=task))],
    }


def _entry(event: EventSummary) -> dict[str, Any]:
    return {
        "generation": event.id,
        "time": event.time.isoformat(),
        "actor": event.actor,
        "verb": event.verb,
        "version": event.version,
        "detail": dict(event.detail),
        "seconds": round(event.seconds, 3),
        "digest": event.digest,
    }


def _against(
    events: Sequence[dict[str, Any]], actions: Sequence[dict[str, Any]], heads: Sequence[Head]
) -> Iterator[Break]:
    digests = {event["id"]: event["digest"] for event in events}
    acted = {action["id"]: action["digest"] for action in actions}
    for noted in heads:
        if noted.generation not in digests:
            yield Break(noted.generation, "was noted, but is not in the history")
        elif digests[noted.generation] != noted.digest:
            yield Break(noted.generation, "has another digest than was noted: the history up to it was written anew")
        if noted.action and noted.action not in acted:
            yield Break(None, f"action {noted.action}: was noted, but is not in the trail")
        elif noted.action and acted[noted.action] != noted.action_digest:
            yield Break(None, f"action {noted.action}: has another digest than was noted: the trail was written anew")


def _exported(path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the events and the actions of an exported history."""
    wrong = f"{path} is not a history that `conpet audit export` wrote"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        events = [json.loads(line, object_pairs_hook=_once) for line in lines if line.strip()]
    except (ValueError, RecursionError) as error:
        raise DataError(f"{wrong}: {error}") from None
    if not events:
        raise DataError(f"{path} is empty")
    for number, event in enumerate(events, start=1):
        if not isinstance(event, dict) or not isinstance(event.get("id"), int) or "digest" not in event:
            raise DataError(f"{wrong}: line {number} has no event")
    actions = [event for event in events if event.get("chain") == CHAIN]
    return [event for event in events if event.get("chain") != CHAIN], actions


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; readers differ in what they take of a key that is there twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} is there twice")
    return found
