"""Ask the server everything that its description allows and forbids, and what hostile clients would send.

python -m venv schemathesis-venv && schemathesis-venv/bin/pip install schemathesis==4.32.5
python -m benchmarks.serving_proof.fuzz --schemathesis schemathesis-venv/bin/schemathesis [--examples 600] [--keep]

Schemathesis runs in an environment of its own, because it must not decide which packages conpet runs with. `--keep`
writes benchmarks/results/serving-fuzz.json; without Schemathesis, its rows stay as they were.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from benchmarks.provenance import provenance
from benchmarks.serving_proof.hostile import HTTP, MARK, uploads
from benchmarks.serving_proof.results import none_of, row, show, write
from benchmarks.serving_proof.scenes import TINY, make_workspace, tasks_for
from benchmarks.serving_proof.servers import Server, serving, wait_for
from conpet.serve.keys import KeyStore, Role

CASES = 10_000
UPLOAD_BYTES = 4 << 20
HANG_SECONDS = 150.0
"""A request that takes longer hangs: an upload may be checked for 120 s."""
DOCUMENTED = {503, 504, 507}
"""Errors of the server that its guide explains."""
TRACES = ("Traceback (most recent call last)", "site-packages", "sqlite3.", "/proc/")
HERE = Path(__file__).parent


@dataclass
class Outcome:
    """What came back for hostile requests.

    Attributes:
        statuses: How often each status came.
        hangs: Requests that were not answered in time.
        leaks: Requests whose answer has a path, a trace or a stored text.
        undocumented: Requests that were answered with an error of the server that is not documented.
        longest: Seconds of the longest request.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    hangs: list[str] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)
    undocumented: list[str] = field(default_factory=list)
    longest: float = 0.0

    @property
    def requests(self) -> int:
        """Number of requests."""
        return sum(self.statuses.values()) + len(self.hangs)

    def add(self, what: str, status: int, content: bytes, secrets: Sequence[str], seconds: float) -> None:
        """Take note of an answer."""
        self.statuses[status] += 1
        self.longest = max(self.longest, seconds)
        if status >= 500 and status not in DOCUMENTED:
            self.undocumented.append(what)
        if any(secret.encode() in content for secret in secrets):
            self.leaks.append(what)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--schemathesis", type=Path, help="the command of an environment that has Schemathesis")
    parser.add_argument("--examples", type=int, default=600, help="cases for each operation and phase")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="write the result file")
    options = parser.parse_args(arguments)
    made_by, start = provenance(), time.monotonic()
    rows, details = measure(options.schemathesis and options.schemathesis.absolute(), options.examples, options.seed)
    show(rows)
    if options.keep:
        circumstances = (
            "Schemathesis made cases from the OpenAPI document, valid and invalid ones, alone and in sequences, for a "
            "server with keys that learns what it is sent; all of its checks, and one that no answer has a path, a "
            "trace or a stored text. Then hostile uploads and bytes that are not quite HTTP were sent"
        )
        more = {"backbone": TINY, "seed": options.seed, "seconds": round(time.monotonic() - start, 1)}
        partial = options.schemathesis is None
        print(write("serving-fuzz", made_by, circumstances, rows, [], details=details, partial=partial, **more))


def measure(schemathesis: Path | None, examples: int, seed: int) -> tuple[list[Any], dict[str, Any]]:
    """Send everything; return the rows and what they rest on."""
    tasks = tasks_for(TINY)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = make_workspace(folder / "ws", TINY, tasks[:2]).path
        key, _ = KeyStore(path / "keys.sqlite").create(Role.OPERATE)
        secrets = [str(path), str(Path.home()), *TRACES]
        stored = [example.text for example in tasks[0].train]
        server = Server(path, folder, {"upload_bytes": UPLOAD_BYTES, "header_seconds": 2})
        with serving(server):
            before = server.mebibytes()
            rows, details = [], {}
            if schemathesis is not None:
                report = run_schemathesis(schemathesis, server, folder, key, secrets, stored, examples, seed)
                rows += rows_of(report)
                details = {"schemathesis": {name: report[name] for name in ("test_cases", "failures", "errors")}}
                cancel_jobs(server, key)
            hostile = send_uploads(server, key, [*secrets, *stored], seed)
            broken = send_broken_http(server, [*secrets, *stored])
            answers = httpx2.post(
                f"{server.url}/v1/predict", json={"inputs": "a"}, headers=_headers(key), timeout=HANG_SECONDS
            )
            cancel_jobs(server, key)
            memory = server.mebibytes()
        log = server.log.read_text(encoding="utf-8")
        rows += [
            *_rows("hostile uploads", hostile),
            *_rows("requests that are not quite HTTP", broken),
            none_of("unexpected errors in the log", len(server.errors())),
            none_of("lines of the log with a text of an upload", log.count(MARK)),
            none_of("lines of the log that are no JSON", sum(not _is_json(line) for line in log.splitlines())),
            none_of("files written outside the workspace", Path("/tmp/conpet-was-here").exists()),  # noqa: S108
            row("the server answers afterwards", answers.status_code, "", "200", held=answers.status_code == 200),
            row("memory before", before, "MiB"),
            row("memory afterwards", memory, "MiB"),
        ]
        details |= {"hostile": vars(hostile), "broken_http": vars(broken)}
    return rows, details


def run_schemathesis(
    command: Path,
    server: Server,
    folder: Path,
    key: str,
    secrets: Sequence[str],
    stored: Sequence[str],
    examples: int,
    seed: int,
) -> Any:
    """Run Schemathesis and return its report."""
    report = folder / "report.json"
    options = [
        f"--config-file={HERE / 'schemathesis.toml'}",
        "run",
        f"{server.url}/openapi.json",
        "--checks=all",
        f"--max-examples={examples}",
        f"--seed={seed}",
        "--continue-on-failure",
        f"--request-timeout={HANG_SECONDS}",
        f"--max-response-time={HANG_SECONDS}",
        f"--header=Authorization: Bearer {key}",
        "--workers=2",
        "--report=json",
        f"--report-json-path={report}",
    ]
    environment = {
        **os.environ,
        "SCHEMATHESIS_HOOKS": "schemathesis_hooks",
        "PYTHONPATH": str(HERE),
        "CONPET_FUZZ_SECRETS": "\n".join(secrets),
        "CONPET_FUZZ_STORED": "\n".join(stored),
    }
    done = subprocess.run(
        [str(command), *options], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if not report.exists():
        raise RuntimeError(f"Schemathesis made no report:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
    found = json.loads(report.read_text(encoding="utf-8"))
    if found["failures"] or found["errors"]:
        shown = done.stdout[done.stdout.find("== ERRORS" if found["errors"] else "== FAILURES") :]
        print("\n".join(line[:300] for line in shown.splitlines()[:200]))
    return found


def rows_of(report: Any) -> list[Any]:
    cases = report["test_cases"]["generated"]
    return [
        row("cases of Schemathesis", cases, "", f">= {CASES:,}", held=cases >= CASES),
        row("operations", report["operations"]["tested"]),
        none_of("cases that fail a check", report["test_cases"]["with_failures"]),
        none_of("cases that could not be sent", report["test_cases"]["errored"]),
    ]


def send_uploads(server: Server, key: str, secrets: Sequence[str], seed: int) -> Outcome:
    """Send hostile uploads, and remove or cancel what was accepted."""
    outcome = Outcome()
    with httpx2.Client(base_url=server.url, headers=_headers(key), timeout=HANG_SECONDS) as client:
        for upload in uploads(seed, UPLOAD_BYTES):
            start = time.monotonic()
            headers = {"Content-Type": upload.kind, **upload.headers}
            try:
                response = client.post("/v1/learn", content=upload.content, params=upload.query, headers=headers)
            except httpx2.TimeoutException:
                outcome.hangs.append(upload.what)
                continue
            except httpx2.TransportError:
                outcome.undocumented.append(f"{upload.what}: the connection broke")
                continue
            outcome.add(upload.what, response.status_code, response.content, secrets, time.monotonic() - start)
            if response.status_code == 202:
                client.post(f"{response.headers['Location']}/cancel")
    return outcome


def send_broken_http(server: Server, secrets: Sequence[str]) -> Outcome:
    """Send bytes that are not quite HTTP; closing the connection is an answer, too."""
    outcome = Outcome()
    for content in HTTP:
        what, start, received = repr(content[:60]), time.monotonic(), b""
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
            try:
                connection.sendall(content)
                while b"\r\n\r\n" not in received and (part := connection.recv(65536)):
                    received += part
            except TimeoutError:
                outcome.hangs.append(what)
                continue
            except OSError:
                pass  # it was closed while there was more to send
        status = int(received.split()[1]) if received.startswith(b"HTTP/") else 0
        outcome.add(what, status, received, secrets, time.monotonic() - start)
    return outcome


def cancel_jobs(server: Server, key: str) -> None:
    """Cancel all jobs, and wait until they have ended."""
    with httpx2.Client(base_url=server.url, headers=_headers(key), timeout=HANG_SECONDS) as client:

        def unfinished() -> list[str]:
            states = ("queued", "running", "cancelling")
            found = (client.get("/v1/jobs", params={"state": state, "limit": 1000}).json()["jobs"] for state in states)
            return [job["id"] for jobs in found for job in jobs]

        for job in unfinished():
            client.post(f"/v1/jobs/{job}/cancel")
        wait_for(lambda: not unfinished(), 120, "all jobs have ended")


def _rows(what: str, outcome: Outcome) -> list[Any]:
    for name in ("hangs", "leaks", "undocumented"):
        for one in getattr(outcome, name):
            print(f"{what}: {name}: {one}")
    return [
        row(what, outcome.requests),
        none_of(f"{what}: not answered in time", len(outcome.hangs)),
        none_of(f"{what}: errors of the server but 503, 504 and 507", len(outcome.undocumented)),
        none_of(f"{what}: answers with a path, a trace or a stored text", len(outcome.leaks)),
        row(f"{what}: longest answer", outcome.longest, "s"),
    ]


def _headers(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def _is_json(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


if __name__ == "__main__":
    main(sys.argv[1:])
