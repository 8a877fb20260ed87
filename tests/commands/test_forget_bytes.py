"""Nothing of a forgotten row is left in any byte below the workspace and the cache."""

from __future__ import annotations

import gzip
import hashlib
import json
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save_file

from conpet import ConPET, Example, Task
from conpet.backbone.cache_codec import decode
from conpet.errors import GateRefusedError
from conpet.jobs.data import write_tasks
from conpet.jobs.queue import JobQueue
from conpet.jobs.records import JobKind, JobRequest
from tests.helpers import gate
from tests.helpers.workspaces import stream, workspace

Parts = Iterator[tuple[Path, bytes]]


def parts(root: Path) -> Parts:
    """Yield every file below a folder as it is, and what is compressed or encoded in it."""
    for path, content in [(path, path.read_bytes()) for path in sorted(root.rglob("*")) if path.is_file()]:
        yield path, content
        if path.suffix == ".gz":
            yield path, gzip.decompress(content)
        elif path.suffix == ".safetensors":
            for tensor in load(content).values():
                for dtype in (torch.float32, torch.bfloat16):
                    yield path, as_bytes(tensor.to(dtype)) if tensor.is_floating_point() else as_bytes(tensor)
        elif path.suffix == ".sqlite":
            yield from ((path, cell) for cell in cells(path))


def cells(path: Path) -> Iterator[bytes]:
    with closing(sqlite3.connect(path)) as raw:
        for (table,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for row in raw.execute(f"SELECT * FROM {table}"):  # noqa: S608
                for cell in row:
                    yield cell if isinstance(cell, bytes) else str(cell).encode()
        if path.name == "states.sqlite":
            for key, blob in raw.execute("SELECT key, blob FROM entries JOIN blobs USING (id)"):
                state = decode(key, blob)
                assert state is not None
                yield as_bytes(state.hidden.to(torch.bfloat16))


def as_bytes(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def needles_of(learner: ConPET, text: str) -> dict[str, list[bytes]]:
    states = learner.backbone.states([Example.of_text(text)], keep=False)
    ids = states.encoded[0].ids
    assert states.hidden is not None
    features, hidden = states.features[0], states.hidden[0][1:]
    return {
        "text": [text.encode(), json.dumps(text)[1:-1].encode()],
        "ids": [struct.pack(f"<{len(ids)}q", *ids), struct.pack(f"<{len(ids)}i", *ids), json.dumps(ids)[1:-1].encode()],
        "features": [as_bytes(features.to(dtype)) for dtype in (torch.float32, torch.bfloat16)],
        "states": [as_bytes(hidden.to(dtype)) for dtype in (torch.float32, torch.bfloat16)],
        "hash": [hashlib.sha256(text.encode()).hexdigest().encode(), hashlib.sha256(text.encode()).digest()],
    }


def found(learner: ConPET, home: Path, needles: dict[str, list[bytes]]) -> set[tuple[str, str]]:
    """Return what is found, with the first part of its path."""
    return {
        (kind, path.relative_to(root).parts[0].partition("-")[0])
        for root in (learner.path, home)
        for path, content in parts(root)
        for kind, forms in needles.items()
        if any(form in content for form in forms)
    }


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CONPET_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def plant(learner: ConPET, task: Task, row: Example) -> None:
    """Put a row wherever conpet may have put it, and where a careless one might."""
    learner.backbone.states([row])  # into the cache
    (learner.path / "report").mkdir()
    (learner.path / "report" / "report.html").write_text(f"<p>{row.text}</p>", encoding="utf-8")
    (learner.path / "scratch" / "tries").mkdir()
    with gzip.open(learner.path / "scratch" / "tries" / "rows.jsonl.gz", "wt") as packed:
        packed.write(json.dumps({"text": row.text}))
    ids = learner.backbone.encode([row])[0].ids
    save_file({"ids": torch.tensor(ids)}, learner.path / "scratch" / "tries" / "ids.safetensors")
    digest = hashlib.sha256(row.text.encode()).hexdigest()
    (learner.path / "scratch" / "tries" / "seen.txt").write_text(digest, encoding="utf-8")
    queue = JobQueue(learner.path)
    with queue.upload() as (job, folder):
        write_tasks(folder / "data.json", [task])
        queue.submit(JobRequest(JobKind.LEARN, {}, (task.name,)), job_id=job)
    queue.log(job, f"warning: the row {row.text!r} is long")


def test_no_byte_of_the_row_is_left(tmp_path: Path, home: Path) -> None:
    learner, row = gate.learned(tmp_path), gate.FIRST.train[0]
    learner.consolidate(bound=100, gate=False, evaluate=False)
    harmful = gate.harmful()
    with pytest.raises(GateRefusedError):
        learner.learn(replace(harmful, train=(*harmful.train, row.labelled(gate.TAKER))))
    check_that_nothing_is_left(learner, home, gate.FIRST, row, {("text", "objects"), ("text", "candidates")})


def test_no_byte_of_its_states_is_left(tmp_path: Path, home: Path) -> None:
    learner, task = workspace(tmp_path, 2, replay={"latent_only": True}), stream()[1]
    check_that_nothing_is_left(learner, home, task, task.train[3], {("states", "objects")})


def check_that_nothing_is_left(
    learner: ConPET, home: Path, task: Task, row: Example, stored: set[tuple[str, str]]
) -> None:
    """Check that everything planted is found before, and nothing after a row and a test row are forgotten."""
    plant(learner, task, row)
    needles, tested = needles_of(learner, row.text), task.test[0]
    before = found(learner, home, needles)
    controls = {("text", "scratch"), ("ids", "scratch"), ("hash", "scratch"), ("text", "jobs"), ("text", "report")}
    controls |= {("states", "states.sqlite"), ("features", "states.sqlite"), ("features", "objects")}
    assert (controls | stored) - before == set()
    receipt = learner.forget([row.text, tested.text], evaluate=False).receipt
    assert receipt is not None
    assert receipt["complete"]
    assert receipt["check"]["rows"] == 2
    assert found(learner, home, needles) == set()
    assert found(learner, home, needles_of(learner, tested.text)) == set()
    jobs = JobQueue(learner.path)
    (job,) = jobs.list()
    assert len(json.loads(jobs.data(job.id).read_bytes())["tasks"][0]["train"]) == len(task.train) - 1
    assert [event.data["message"] for event in jobs.events(job.id) if "message" in event.data] == [
        "warning: the row '[forgotten]' is long"
    ]
    assert not any(path.name.endswith("-wal") and path.stat().st_size for path in learner.path.rglob("*"))


def test_the_search_of_the_receipt_finds_what_is_left(tmp_path: Path, home: Path) -> None:
    learner, row = workspace(tmp_path, 2), stream()[1].train[3]
    (learner.path / "notes.txt").write_text(f"ask about: {row.text}", encoding="utf-8")
    with gzip.open(learner.path / "old.gz", "wt") as packed:
        packed.write(row.text)
    report = learner.forget([row.text], evaluate=False)
    assert report.receipt is not None
    assert report.receipt["check"]["found"] == [
        {"file": "notes.txt", "what": "text"},
        {"file": "old.gz", "what": "text"},
    ]
    assert not report.complete
    assert home.exists()
