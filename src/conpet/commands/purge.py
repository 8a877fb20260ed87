"""Delete what is left of forgotten rows outside the objects in use, check it, and write a receipt."""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from conpet.artifact import replace_file, to_json_bytes
from conpet.commands.audit import head
from conpet.commands.receipt import FORM, SIGNATURE, STARTED, TOKEN, events_of, noted, recorded, signed_text, unfinished
from conpet.commands.traces import SHORT, Traces, sha256
from conpet.state.live import state_cache
from conpet.store import EventRecord, Store, Writer
from conpet.store.layout import Layout

FORGOTTEN = "[forgotten]"
"""What stands in place of a forgotten text in records that stay."""
READERS_SECONDS = 10.0
"""How long to wait for readers of a former generation, which move on by themselves."""
_REPORT_FOLDER = "report"
_JOBS = "jobs"


def start(store: Store, token: str) -> None:
    """Note that forgetting begins, for the case of a kill before the commit; `ended` deletes the note.

    Args:
        store: The workspace's store.
        token: The random number of the change.
    """
    note = {TOKEN: token, STARTED: datetime.now(UTC).isoformat(timespec="seconds")}
    replace_file(Layout(store.path).forget_started, to_json_bytes(note))


def ended(store: Store, token: str) -> None:
    """Delete the note of `start`, unless it is another change's: this one was committed, or has failed."""
    path = Layout(store.path).forget_started
    if noted(path, TOKEN) == token:
        path.unlink()


def begin(store: Store, token: str, traces: Traces) -> None:
    """Prepare the commit: clear what only the texts can find, and note what has to be completed after a kill.

    Args:
        store: The workspace's store.
        token: The random number of the change.
        traces: What must not be found afterwards.
    """
    layout = Layout(store.path)
    scrub_jobs(layout.root / _JOBS, traces.texts, requests=False)
    objects = sorted(path.name for path in layout.objects.iterdir())
    note = {TOKEN: token, "before": str(head(store)), "objects": objects}
    replace_file(layout.forgetting, to_json_bytes(note))


def finish_waiting(store: Store) -> tuple[EventRecord, dict[str, Any]] | None:
    """Complete a deletion that only waited for readers of an earlier generation, if they are all gone by now.

    A deletion with a signed receipt stays as it is: only its signer can write another one.

    Returns:
        The event of the change and the new receipt, or None if there is nothing to complete yet.

    Raises:
        ReadOnlyError: This process may not write the workspace.
        WorkspaceBusyError: Another process changes it.
    """
    token = unfinished(store)
    if token is None:
        return None
    event = events_of(store, token)[-1]
    try:
        signed = SIGNATURE in _stored(Layout(store.path), event.id)
    except FileNotFoundError:  # it was interrupted, not waiting
        return None
    if signed:
        return None
    with store.write("forget", 0) as writer:  # which deletes what nobody reads any more
        if unfinished(store) != token or writer.waiting():
            return None
        return event, finish(store, writer, token, None)


def finish(
    store: Store,
    writer: Writer,
    token: str,
    traces: Traces | None,
    sign: Callable[[bytes], str] | None = None,
) -> dict[str, Any]:
    """Delete everything that is left of what a change forgot, check it, and write the receipt.

    It may be repeated, whenever it was interrupted.

    Args:
        store: The workspace's store.
        writer: Its only writer.
        token: The random number of the change.
        traces: What must not be found afterwards; None if it is not known any more.
        sign: Returns the signature of a text; None to sign nothing.

    Returns:
        The receipt, which was also written into the workspace.
    """
    layout = Layout(store.path)
    event = events_of(store, token)[-1]
    try:
        note = json.loads(layout.forgetting.read_bytes())
    except FileNotFoundError:  # another process has completed it meanwhile
        return _stored(layout, event.id)
    waiting = _collected(writer)
    for name in ("report.html", "report.json"):
        (layout.root / _REPORT_FOLDER / name).unlink(missing_ok=True)
    shutil.rmtree(layout.scratch, ignore_errors=True)
    layout.scratch.mkdir(exist_ok=True)
    if traces is not None:
        scrub_jobs(layout.root / _JOBS, traces.texts, requests=True)
    scrubbed = writer.scrub()
    cache = state_cache()
    if cache.path.exists():
        with cache:
            cache.clear()
    check = _checked(layout, cache.path, traces) if traces else _former_check(layout, event.id)
    receipt = _receipt(store, event, note, check, waiting, scrubbed=scrubbed)
    if sign is not None:
        receipt[SIGNATURE] = sign(signed_text(receipt))
    layout.receipts.mkdir(exist_ok=True)
    replace_file(layout.receipts / f"{receipt['generation']}.json", to_json_bytes(receipt))
    if not waiting and scrubbed:
        layout.forgetting.unlink(missing_ok=True)
    return receipt


def _stored(layout: Layout, generation: int) -> dict[str, Any]:
    receipt: dict[str, Any] = json.loads((layout.receipts / f"{generation}.json").read_bytes())
    return receipt


def scrub_jobs(folder: Path, texts: Sequence[str], *, requests: bool) -> None:
    """Remove texts from the queue of a server: rows of jobs that wait, and texts in messages and results.

    Args:
        folder: The folder of the queue.
        texts: The texts.
        requests: Whether to remove them also from what jobs are to forget, which they need until the commit.
    """
    named = {*texts, *map(sha256, texts)}
    for file in folder.glob("data/*/*.json"):
        with suppress(FileNotFoundError, ValueError):
            document = json.loads(file.read_bytes())
            reduced = _without(document, named)
            if reduced != document and (requests or "wanted" not in document):
                replace_file(file, json.dumps(reduced).encode())
    database = folder / "jobs.sqlite"
    if database.exists():
        with closing(sqlite3.connect(database, timeout=60, isolation_level=None)) as raw:
            _scrub_tables(raw, texts)


def _scrub_tables(raw: sqlite3.Connection, texts: Sequence[str]) -> None:
    raw.execute("PRAGMA secure_delete=ON")
    raw.execute("PRAGMA temp_store=MEMORY")
    tables = [name for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    changed = False
    for table in tables:
        for _, column, *_ in raw.execute(f'PRAGMA table_info("{table}")').fetchall():
            stored = f'SELECT rowid, "{column}" FROM "{table}" WHERE typeof("{column}") = \'text\''  # noqa: S608
            for row, content in raw.execute(stored).fetchall():
                scrubbed = _scrubbed(content, texts)
                if scrubbed != content:
                    raw.execute(f'UPDATE "{table}" SET "{column}" = ? WHERE rowid = ?', (scrubbed, row))  # noqa: S608
                    changed = True
    if changed:
        raw.execute("VACUUM")
    raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _scrubbed(cell: str, texts: Sequence[str]) -> str:
    """Return a cell of a table without texts in the values of its JSON, which hold messages and results."""
    try:
        document = json.loads(cell)
    except ValueError:
        return cell
    reduced = replaced(document, texts)
    return cell if reduced == document else json.dumps(reduced, ensure_ascii=False)


def replaced(value: Any, texts: Sequence[str]) -> Any:
    """Return a JSON document with a mark in place of these texts in its values."""
    if isinstance(value, dict):
        return {key: replaced(each, texts) for key, each in value.items()}
    if isinstance(value, list):
        return [replaced(each, texts) for each in value]
    if isinstance(value, str):
        for text in texts:
            # A short text may be part of any word: it is replaced only where a message quotes it.
            for form in (text,) if len(text) >= SHORT else (repr(text), json.dumps(text, ensure_ascii=False)):
                value = value.replace(form, FORGOTTEN)
    return value


def _without(document: Any, texts: set[str]) -> Any:
    """Return a JSON document without those rows and values in its lists that are one of these texts or hashes."""
    if isinstance(document, dict):
        return {key: _without(value, texts) for key, value in document.items()}
    if isinstance(document, list):
        return [_without(value, texts) for value in document if _content(value) not in texts]
    return document


def _content(value: Any) -> str | None:
    """Return the text of a row, or a text itself; None for another value."""
    if isinstance(value, dict) and ("text" in value or "tokens" in value):
        return str(value.get("text") or " ".join(map(str, value.get("tokens", ()))))
    return value if isinstance(value, str) else None


def _collected(writer: Writer) -> list[str]:
    """Delete replaced objects; return those that readers still keep after a while."""
    deadline = time.monotonic() + READERS_SECONDS
    while True:
        writer.collect()
        waiting = writer.waiting()
        if not waiting or time.monotonic() > deadline:
            return waiting
        time.sleep(0.05)


def _checked(layout: Layout, cache: Path, traces: Traces) -> dict[str, Any]:
    """Search for what is left; return the result as the receipt has it."""
    roots = [layout.root, *(path for path in cache.parent.glob(f"{cache.name}*") if path.is_file())]
    found, files, size = traces.found(roots)
    named = sorted({(_named(trace.path, layout.root), trace.what) for trace in found})
    return {
        "rows": traces.rows,
        "of": traces.of,
        "files": files,
        "bytes": size,
        "found": [{"file": file, "what": what} for file, what in named],
    }


def _former_check(layout: Layout, generation: int) -> dict[str, Any] | None:
    """Return the result of an earlier search, without the files that are deleted by now; None if there was none."""
    try:
        check: dict[str, Any] | None = _stored(layout, generation)["check"]
    except FileNotFoundError:
        return None
    return check and {**check, "found": [one for one in check["found"] if (layout.root / one["file"]).exists()]}


def _named(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else path.name


def _receipt(
    store: Store,
    event: EventRecord,
    note: Mapping[str, Any],
    check: Mapping[str, Any] | None,
    waiting: Sequence[str],
    *,
    scrubbed: bool,
) -> dict[str, Any]:
    present = {path.name for path in Layout(store.path).objects.iterdir()}
    return {
        "form": FORM,
        "workspace": {"name": store.path.name, "created": store.header().created.isoformat()},
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        **recorded(event),
        "before": note["before"],
        "removed_objects": [name for name in note["objects"] if name not in present],
        "database_overwritten": scrubbed,
        "state_cache_emptied": True,
        "still_read_by_a_process": list(waiting),
        "check": check,
        "complete": scrubbed and not waiting and not (check and check["found"]),
    }
