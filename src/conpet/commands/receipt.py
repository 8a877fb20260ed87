"""Receipts of what was forgotten: their form, and the check against a workspace; imports no torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from conpet.commands.audit import Head
from conpet.errors import ConfigError, DataError, reason_of
from conpet.store import EventRecord, Store
from conpet.store.chain import Break
from conpet.store.layout import Layout

FORM = "conpet receipt 1"
"""What a receipt is, and its form."""
FORGET = "forget"
"""Key of an event's detail: what was forgotten, without anything of it."""
TOKEN = "token"  # noqa: S105 - no password
"""Key of that detail: a random number that tells the change from any other."""
STARTED = "started"
SIGNATURE = "signature"
_KEYS = {
    "before",
    "after",
    "generation",
    "removed_objects",
    "database_overwritten",
    "still_read_by_a_process",
    "check",
    "complete",
}
"""What every receipt says."""


def unfinished(store: Store) -> str | None:
    """Return the random number of the change that was committed but not completed, or None."""
    token = noted(Layout(store.path).forgetting, TOKEN)
    return token if token and events_of(store, token) else None  # else killed before the commit: nothing was forgotten


def killed(store: Store) -> str | None:
    """Return when forgetting began that was not committed, because it was killed or is still at work; or None."""
    path = Layout(store.path).forget_started
    token, started = noted(path, TOKEN), noted(path, STARTED)
    return started if token and not events_of(store, token) else None


def pending(store: Store, path: Path) -> list[str]:
    """Return what is not deleted yet although that was asked for, and what to do.

    Args:
        store: The workspace's store.
        path: The workspace, as the user names it.
    """
    said = []
    if token := unfinished(store):
        number = events_of(store, token)[-1].id
        said.append(
            f"the deletion of event {number} is not complete, so its data may still be on the disk: "
            f"run `conpet forget {path} --finish`"
        )
    if started := killed(store):
        said.append(
            f"forgetting that began on {started} is not committed: unless it is still at work, it was killed, and "
            "nothing of it is deleted. Run the same command again"
        )
    return said


def noted(path: Path, key: str) -> str | None:
    """Return a value of a note that forgetting has made; None if there is no such note."""
    try:
        return str(json.loads(path.read_bytes())[key])
    except FileNotFoundError:
        return None


def events_of(store: Store, token: str) -> list[EventRecord]:
    """Return the events of the change with a random number."""
    return [event for event in store.events() if event.detail.get(FORGET, {}).get(TOKEN) == token]


def recorded(event: EventRecord) -> dict[str, Any]:
    """Return what a receipt says of the change of an event, from the history."""
    return {
        "generation": event.id,
        "time": event.time.isoformat(),
        "actor": event.actor,
        **{key: value for key, value in event.detail[FORGET].items() if key != TOKEN},
        "after": str(Head(event.id, event.digest)),
    }


def signed_text(receipt: Mapping[str, Any]) -> bytes:
    """Return the text of a receipt that is signed: JSON with sorted keys and without blanks."""
    content = {key: value for key, value in receipt.items() if key != SIGNATURE}
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def read_receipt(path: Path, public_key: Path | None) -> dict[str, Any]:
    """Read a receipt, and check its signature if it has one.

    Args:
        path: The receipt.
        public_key: The public key of its signature in PEM, or None if it is not signed.

    Raises:
        DataError: The file is no receipt, or was not signed with this key.
        ConfigError: The public key cannot be read, or is missing for a signed receipt.
    """
    receipt = _read(path)
    if SIGNATURE in receipt and public_key is None:
        raise ConfigError(f"{path} is signed: give the key to check it with (--public-key)")
    if public_key is not None:
        from conpet.commands.checkpoint import check_signature

        check_signature(signed_text(receipt), str(receipt.get(SIGNATURE, "")), public_key, path)
    return receipt


def heads_of(receipt: Mapping[str, Any]) -> list[Head]:
    """Return the heads of the history before and after the change."""
    return [Head.parse(receipt["before"]), Head.parse(receipt["after"])]


def differences(store: Store, receipt: Mapping[str, Any]) -> Iterator[Break]:
    """Yield where a receipt says something else than the history, what it says is left, and what it removed is back."""
    number = receipt["generation"]
    event = next((one for one in store.events() if one.id == number), None)
    if event is None or FORGET not in event.detail:
        yield Break(number, "is no change that forgot anything, but the receipt says so")
        return
    for key, value in recorded(event).items():
        if receipt.get(key) != value:
            yield Break(number, f"the receipt differs from the history in {key!r}")
    for reason in incomplete(receipt):
        yield Break(number, f"the deletion is not complete: {reason}")
    present = {path.name for path in Layout(store.path).objects.iterdir()}
    for folder in receipt["removed_objects"]:
        if folder in present:
            yield Break(None, f"objects/{folder} is back, although the receipt says that it was deleted")


def incomplete(receipt: Mapping[str, Any]) -> list[str]:
    """Return why a receipt proves no complete deletion, whatever its `complete` says; nothing if it proves one."""
    reasons = []
    if receipt["still_read_by_a_process"]:
        folders = ", ".join(f"objects/{name}" for name in receipt["still_read_by_a_process"])
        reasons.append(
            f"a process still read {folders}; run `conpet forget WORKSPACE --finish` when it has ended, and check the "
            "new receipt"
        )
    if not receipt["database_overwritten"]:
        reasons.append("a reader kept the database from being written anew; run `conpet forget WORKSPACE --finish`")
    found = receipt["check"]["found"] if receipt["check"] else []
    reasons += [f"the search found {one['what']} in {one['file']}" for one in found]
    if not receipt["complete"] and not reasons:
        reasons.append("the receipt says so")
    return reasons


def _read(path: Path) -> dict[str, Any]:
    try:
        receipt: dict[str, Any] = json.loads(path.read_bytes())
        known = receipt["form"] == FORM and receipt.keys() >= _KEYS
    except OSError as error:
        raise DataError(f"{path} cannot be read: {reason_of(error, path)}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{path} is not a receipt that `conpet forget` wrote: {error}") from None
    if not known:
        raise DataError(f"{path} is not a receipt that `conpet forget` wrote: it has another form")
    return receipt
