"""Faults of the disk, the database and the clock."""

from __future__ import annotations

import random
import shutil
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import httpx2

from benchmarks.serving_proof.answers import Expected, copy_of
from benchmarks.serving_proof.load import Asked
from benchmarks.serving_proof.outcome import Outcome, watched
from benchmarks.serving_proof.scenes import variant
from benchmarks.serving_proof.servers import Server, is_ready, serving, wait_for
from conpet import Client, Task
from conpet.errors import ConpetError, DiskFullError, JobFailedError, ReadOnlyError, ServerBusyError
from conpet.jobs.records import Job
from conpet.serve.process import Server as Process
from conpet.serve.run import listen
from conpet.serve.settings import ServeSettings
from conpet.store import Store

_DISK_MIB = 48
CLOCK = '''"""Shifts the clock of a Python process by the seconds in a file; the times of files stay."""

import datetime
import os
import time

_real, _file = time.time_ns, os.environ["CONPET_FAULT_CLOCK"]


def time_ns():
    with open(_file) as file:
        return _real() + int(float(file.read() or 0) * 1e9)


class Shifted(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(time.time(), tz)


time.time_ns, time.time = time_ns, lambda: time_ns() / 1e9
datetime.datetime = Shifted
'''


def fill_disk(path: Path, folder: Path, expected: Expected, task: Task, tries: int) -> Outcome:
    """Fill the disk of the workspace up to a few bytes, at many sizes, while tasks are sent."""
    outcome, draw = Outcome("the disk is full"), random.Random("disk")
    with mounted(folder / "disk", ["-t", "tmpfs", "-o", f"size={_DISK_MIB}m", "none"]) as disk:
        if disk is None:
            outcome.skipped = "this user cannot mount a file system"
            return outcome
        place = copy_of(path, disk / "ws")
        expected.note(place)
        with (
            serving(Server(place, folder)) as server,
            Client(server.url, retries=0) as client,
            watched(outcome, server, expected),
        ):
            for number in range(tries):
                outcome.tries += 1
                fill(disk / "full", draw.choice([0, draw.randrange(20_000), draw.randrange(600_000)]))
                job = None
                try:
                    job = client.learn(variant(task, 100 + number), evaluate=False)
                    client.wait(job, timeout=5)
                    outcome.noted["learned in the room that was left"] += 1
                except DiskFullError:
                    outcome.noted["refused (507)"] += 1
                except JobFailedError as error:
                    outcome.noted["accepted, and failed for want of room"] += 1
                    outcome.check("disk" in str(error), f"try {number}: {error}")
                except ServerBusyError:
                    outcome.noted["waited for room" if job else "told to come back (503)"] += 1
                (disk / "full").unlink()
                if job is not None:
                    outcome.check(has_ended(client, job), f"try {number}: the accepted job does not end")
                expected.note(place)
            outcome.check(works(client, variant(task, 99)), "no task could be learned afterwards")
            expected.note(place)
    return outcome


def delete_workspace(path: Path, folder: Path, expected: Expected, task: Task, tries: int) -> Outcome:
    """Delete the workspace under the server, and put a copy back."""
    outcome = Outcome("the workspace is deleted")
    with (
        serving(Server(path, folder)) as server,
        Client(server.url, retries=3) as client,
        watched(outcome, server, expected),
    ):
        for number in range(tries):
            outcome.tries += 1
            kept = copy_of(path, folder / f"kept-{number}")
            shutil.rmtree(path)
            time.sleep(0.5)
            refused = httpx2.post(f"{server.url}/v1/learn", json={"name": "x", "rows": []}, timeout=60)
            outcome.check(refused.status_code in (422, 503), f"learning was answered with {refused.status_code}")
            shutil.rmtree(path, ignore_errors=True)
            kept.rename(path)
            outcome.check(works(client, variant(task, 200 + number)), f"nothing is learned after try {number}")
            expected.note(path)
    return outcome


def forbid_writing(path: Path, folder: Path, expected: Expected, task: Task, tries: int) -> Outcome:
    """Make the file system of the workspace read-only for a while."""
    outcome = Outcome("the workspace is read-only")
    with mounted(folder / "bound", ["--bind", str(path)]) as place:
        if place is None:
            outcome.skipped = "this user cannot mount a file system"
            return outcome
        for number in range(tries):
            outcome.tries += 1
            with (  # a server anew: after a job, files stay open for writing for a minute
                serving(Server(place, folder)) as server,
                Client(server.url, retries=3) as client,
                watched(outcome, server, expected),
            ):
                wait_for(lambda: remount(place, "ro"), 30, "the file system is read-only")
                try:
                    client.learn(variant(task, 300 + number), evaluate=False)
                    outcome.check(False, f"try {number}: a task was accepted")
                except ReadOnlyError:
                    outcome.noted["refused (read-only)"] += 1
                remount(place, "rw")
                outcome.check(works(client, variant(task, 300 + number)), f"nothing is learned after {number}")
                expected.note(place)
    return outcome


def damage_files(path: Path, folder: Path, expected: Expected, kind: str, tries: int) -> Outcome:
    """Change one byte of a file; what is answered then must be right, and the rest be refused with the reason.

    Args:
        path: The workspace; each try damages a copy.
        folder: For the copies.
        expected: The right answers.
        kind: The end of the names of the files.
        tries: Number of copies.
    """
    outcome, draw = Outcome(f"one byte of a {kind} file is changed"), random.Random(kind)
    for number in range(tries):
        outcome.tries += 1
        copy = copy_of(path, folder / f"damaged-{kind}-{number}")
        target = draw.choice(sorted(file for file in copy.rglob(f"*{kind}") if file.stat().st_size))
        content = bytearray(target.read_bytes())
        where = draw.randrange(len(content))
        content[where] ^= 1 << draw.randrange(8)
        target.write_bytes(content)
        place = f"try {number}: byte {where} of {target.relative_to(copy)}"
        with in_this_process(copy) as url:
            if url is None:
                outcome.noted["the server refuses to start, and says why"] += 1
                continue
            for first in range(0, len(expected.texts), 4):
                answer = httpx2.post(
                    f"{url}/v1/predict",
                    json={"inputs": expected.texts[first : first + 4], "top_n": expected.top_n},
                    timeout=60,
                )
                asked = Asked(0.0, 0.0, answer.status_code, (first, 4), answer.content)
                if answer.status_code == 503:
                    outcome.noted["requests refused (503)"] += 1
                else:
                    outcome.answers += 1
                    outcome.check(not expected.faults([asked]).total, f"{place}: a wrong answer ({answer.status_code})")
        shutil.rmtree(copy)
    return outcome


def damage_records(path: Path, folder: Path, _: Expected, tries: int) -> Outcome:
    """Change one byte of the database and read all records: what is not noticed is counted, not judged."""
    outcome, draw = Outcome("one byte of the database is changed, and its records are read"), random.Random("records")
    copy = copy_of(path, folder / "records")
    database, sound = copy / "workspace.sqlite", records_of(copy)
    content = database.read_bytes()
    for _number in range(tries):
        outcome.tries += 1
        damaged = bytearray(content)
        damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
        for rest in copy.glob("workspace.sqlite-*"):
            rest.unlink()
        database.write_bytes(damaged)
        try:
            outcome.noted["no effect" if records_of(copy) == sound else "not noticed"] += 1
        except (ConpetError, OSError) as error:
            outcome.noted[f"refused ({type(error).__name__})"] += 1
        except Exception as error:  # noqa: BLE001 - which kind, the failure says
            outcome.check(False, f"{type(error).__name__}: {error}")
    share = 100 * outcome.noted["not noticed"] / tries
    outcome.remark = (
        f"{share:.1f}% of the changed bytes of the database altered a stored name or number without being noticed: "
        "SQLite keeps no checksums of its rows. All files of modules, statistics and examples have them"
    )
    return outcome


def records_of(path: Path) -> list[object]:
    """Return all that a workspace's database says."""
    with Store.open(path).snapshot() as snapshot:
        versions = [
            (one.task, one.number, one.active, one.labels, one.digest, one.description, one.parameters, one.created)
            for one in snapshot.versions
        ]
        slots = [{slot: reader.folder.name for slot, reader in one.objects.items()} for one in snapshot.versions]
        shared = {slot: reader.folder.name for slot, reader in snapshot.shared.items()}
        return [snapshot.generation, snapshot.header.settings, versions, slots, shared]


def lock_databases(path: Path, folder: Path, expected: Expected, task: Task, tries: int) -> Outcome:
    """Lock the workspace's database and that of the jobs for seconds, while a task is sent."""
    outcome, draw = Outcome("a database is locked for seconds"), random.Random("locks")
    with serving(Server(path, folder)) as server, Client(server.url, retries=10) as client:
        works(client, variant(task, 400))
        expected.note(path)
        with watched(outcome, server, expected, may_wait=False):
            for number in range(tries):
                outcome.tries += 1
                name = ("workspace.sqlite", "jobs/jobs.sqlite")[number % 2]
                with closing(sqlite3.connect(path / name, timeout=30, isolation_level=None)) as other:
                    other.execute("BEGIN EXCLUSIVE")
                    sent = threading.Thread(target=works, args=(client, variant(task, 401 + number)))
                    sent.start()
                    time.sleep(draw.uniform(1.0, 3.0))
                    other.execute("ROLLBACK")
                sent.join()
                before = max(expected.by_generation)
                outcome.check(expected.note(path) > before, f"try {number}: the task was not learned")
    return outcome


def shift_clock(path: Path, folder: Path, expected: Expected, task: Task, tries: int) -> Outcome:
    """Set the clock of the server's processes back and forth by up to years."""
    outcome, draw = Outcome("the clock is set back and forth"), random.Random("clock")
    (folder / "clock").mkdir()
    (folder / "clock" / "sitecustomize.py").write_text(CLOCK)
    file = folder / "clock" / "seconds"
    file.write_text("0")
    environment = {"CONPET_FAULT_CLOCK": str(file), **with_path(folder / "clock")}
    with (
        serving(Server(path, folder, environment=environment)) as server,
        Client(server.url, retries=3) as client,
        watched(outcome, server, expected, may_wait=False),
    ):
        former = None
        for number in range(tries):
            outcome.tries += 1
            replace(file, str(draw.choice([-1, 1]) * 10 ** draw.uniform(0, 8)))
            outcome.check(works(client, variant(task, 500 + number)), f"try {number}: nothing is learned")
            expected.note(path)
            newest = client.jobs(limit=1)[0]
            outcome.check(newest.id != former, f"try {number}: jobs are out of order")
            former = newest.id
    return outcome


def has_ended(client: Client, job: Job) -> bool:
    """Return whether a job ends, whatever it comes to."""
    try:
        client.wait(job, timeout=60)
    except JobFailedError:
        return True
    except ServerBusyError:
        return False
    return True


def works(client: Client, task: Task) -> bool:
    """Return whether a task is accepted, learned and answered from."""
    try:
        result = client.wait(client.learn(task, evaluate=False), timeout=120).result
    except ConpetError as error:
        print(f"not learned: {error}", flush=True)
        return False
    generation = int((result or {})["generation"])
    return client.predict("a", min_generation=generation)[0].generation == generation


def fill(file: Path, left: int) -> None:
    """Fill the disk of a file up to some bytes."""
    with file.open("wb", buffering=0) as stream:
        room = shutil.disk_usage(file.parent).free - left
        with suppress(OSError):
            while room > 0:
                room -= stream.write(bytes(min(room, 1 << 16)))


@contextmanager
def mounted(place: Path, options: list[str]) -> Iterator[Path | None]:
    """Mount a file system; yield its folder, or None if that is not allowed."""
    place.mkdir()
    if subprocess.run(["mount", *options, str(place)], capture_output=True, check=False).returncode:
        yield None
        return
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=False)


def remount(place: Path, mode: str) -> bool:
    """Make a bound folder read-only or writable; return whether that was possible now."""
    return not subprocess.run(
        ["mount", "-o", f"remount,bind,{mode}", str(place)], capture_output=True, check=False
    ).returncode


@contextmanager
def in_this_process(path: Path) -> Iterator[str | None]:
    """Serve a workspace by threads of this process, which takes a moment; yield None if it cannot be served."""
    settings = ServeSettings.load({"workspace": path, "port": 0, "log_level": "error"}, environment={})
    with listen(settings) as listening:
        server = Process(settings)
        server.context.log = server.context.serving._log = _Silent()  # type: ignore[assignment]
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            wait_for(lambda: server.failure or is_ready(url), 60, "the server starts")
            yield None if server.failure else url
        finally:
            server.stop()
            thread.join()


def replace(file: Path, content: str) -> None:
    """Replace the content of a file at once."""
    aside = file.with_name("aside")
    aside.write_text(content)
    aside.rename(file)


def with_path(folder: Path) -> dict[str, str]:
    """Return the environment variable with which Python looks into a folder first."""
    import os

    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))}


class _Silent:
    def __getattr__(self, name: str) -> object:
        return lambda *_, **__: None
