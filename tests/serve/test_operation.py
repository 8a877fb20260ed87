"""Start, settings, several processes, and a stop that loses nothing."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import httpx2
import pytest

from conpet.errors import ConfigError, ConpetError
from conpet.serve.app import create_app
from conpet.serve.process import serve_on
from conpet.serve.run import listen
from conpet.serve.settings import ServeSettings
from tests.helpers.cli import conpet
from tests.helpers.serve import served, wait_for
from tests.helpers.workspaces import stream, workspace

TEXTS = [example.text for example in stream()[0].test]


@contextmanager
def started(folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str, list[dict[str, Any]]]]:
    """Run `conpet serve` in a process of its own; yield it, its address and its log, which grows."""
    command = [sys.executable, "-m", "conpet", "serve", str(folder), "--port", "0", *options]
    log: list[dict[str, Any]] = []
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        reader = threading.Thread(target=lambda: log.extend(map(json.loads, process.stderr or ())))
        reader.start()
        try:
            wait_for(lambda: bool(log) or process.poll() is not None)
            yield process, log[0]["url"], log
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait(60)
            reader.join()


def child_processes(pid: int) -> list[int]:
    """Return the server processes that a supervisor has started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            command = (folder / "cmdline").read_text()
        except (OSError, ValueError):
            continue
        if parent == pid and "spawn_main" in command:
            found.append(int(folder.name))
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")
def test_several_processes_share_a_socket_and_their_metrics_and_are_restarted(tmp_path: Path) -> None:
    folder = workspace(tmp_path, 1).path
    with started(folder, "--workers", "2", "--set", "batch_inputs=2") as (process, url, log):
        wait_for(lambda: sum(entry["event"] == "ready" for entry in log) == 2)

        def ask(texts: list[str]) -> int:
            with httpx2.Client(base_url=url, timeout=60) as client:
                return client.post("/v1/predict", json={"inputs": texts}).status_code

        assert [ask(TEXTS[:2]) for _ in range(12)] == [200] * 12
        metrics = httpx2.get(f"{url}/metrics").text
        assert 'conpet_requests_total{method="POST",route="/v1/predict",status="200"} 12.0' in metrics
        assert "conpet_queue_inputs 0.0" in metrics
        former = child_processes(process.pid)
        assert len(former) == 2
        os.kill(former[0], signal.SIGKILL)
        assert ask(TEXTS) == 200
        wait_for(lambda: len(child_processes(process.pid)) == 2 and former[0] not in child_processes(process.pid))

        statuses: list[int] = []
        thread = threading.Thread(target=lambda: statuses.append(ask(TEXTS * 40)))
        thread.start()
        wait_for(lambda: bool(statuses) or "conpet_queue_inputs 0.0" not in httpx2.get(f"{url}/metrics").text)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        thread.join()
        assert statuses == [200]
        assert child_processes(process.pid) == []


def test_a_stop_finishes_what_was_accepted(tmp_path: Path) -> None:
    responses: list[httpx2.Response] = []

    def ask() -> None:
        with server.new_client() as client:
            responses.append(client.post("/v1/predict", json={"inputs": TEXTS * 20}))

    with served(workspace(tmp_path, 1).path, batch_inputs=2) as server:
        thread = threading.Thread(target=ask)
        thread.start()
        batcher = server.context.ready()
        wait_for(lambda: batcher.waiting > 0)
        server.context.stopping = True
        with server.new_client() as client:
            refused = [client.get("/readyz"), client.post("/v1/predict", json={"inputs": "a"})]
    thread.join()
    assert [(one.status_code, one.headers["retry-after"]) for one in refused] == [(503, "2")] * 2
    assert responses[0].status_code == 200
    assert len(responses[0].json()["predictions"]) == len(TEXTS) * 20


def test_a_full_queue_is_429_with_the_time_to_come_back(tmp_path: Path) -> None:
    with served(workspace(tmp_path, 1).path, queue_inputs=200, max_inputs=200, batch_inputs=1) as server:
        statuses: dict[int, httpx2.Response] = {}

        def ask() -> None:
            with server.new_client() as client:
                response = client.post("/v1/predict", json={"inputs": (TEXTS * 30)[:150]})
                statuses[response.status_code] = response

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(statuses) == {200, 429}
        assert statuses[429].json()["type"] == "urn:conpet:problem:queue-full"
        assert int(statuses[429].headers["retry-after"]) >= 1
        assert server.predict("a").status_code == 200


def test_a_client_that_is_gone_leaves_the_queue(tmp_path: Path) -> None:
    with served(workspace(tmp_path, 1).path, batch_inputs=1) as server:
        batcher = server.context.ready()
        body = json.dumps({"inputs": (TEXTS * 200)[:1000]}).encode()
        head = "POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            wait_for(lambda: batcher.waiting > 500)
        start = time.monotonic()
        assert server.predict("a").status_code == 200
        wait_for(lambda: batcher.waiting == 0)
        assert time.monotonic() - start < 10  # answering 1,000 inputs one by one takes longer


def test_settings_come_from_flags_then_the_environment_then_a_file(tmp_path: Path) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text("port: 1\nworkers: 2\nqueue_inputs: 5000\nallowed_hosts: [a, b]\n", encoding="utf-8")
    environment = {
        "CONPET_SERVE_CONFIG": str(file),
        "CONPET_SERVE_PORT": "2",
        "CONPET_SERVE_WORKERS": "3",
        "CONPET_SERVE_INSECURE": "true",
        "CONPET_SERVE_RATE_LIMIT": "",
    }
    settings = ServeSettings.load({"workspace": tmp_path, "port": 4, "device": None}, environment=environment)
    assert (settings.port, settings.workers, settings.queue_inputs) == (4, 3, 5000)
    assert (settings.insecure, settings.rate_limit, settings.allowed_hosts) == (True, None, ("a", "b"))
    assert settings.keys == tmp_path / "keys.sqlite"
    named = ServeSettings.load({"workspace": tmp_path}, environment={"CONPET_SERVE_ALLOWED_HOSTS": "x, y"})
    assert named.allowed_hosts == ("x", "y")


def test_every_flag_sets_its_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served_with: list[ServeSettings] = []
    monkeypatch.setattr("conpet.serve.run.run", served_with.append)
    file = tmp_path / "serve.yaml"
    file.write_text("port: 1\nbatch_inputs: 7\n", encoding="utf-8")
    flags = [
        "--host",
        "::1",
        "--port",
        5,
        "--workers",
        3,
        "--keys",
        tmp_path / "k",
        "--backbone",
        "b",
        "--device",
        "cpu",
    ]
    more = [
        "--insecure",
        "--log-texts",
        "--config",
        file,
        "--set",
        "queue_inputs=2000",
        "--set",
        "allowed_hosts=[a, b]",
    ]
    assert conpet("serve", tmp_path, *flags, *more).code == 0
    assert served_with == [
        ServeSettings(
            workspace=tmp_path,
            host="::1",
            port=5,
            workers=3,
            keys_file=tmp_path / "k",
            backbone="b",
            device="cpu",
            insecure=True,
            log_texts=True,
            batch_inputs=7,
            queue_inputs=2000,
            allowed_hosts=("a", "b"),
        )
    ]


@pytest.mark.parametrize(
    ("text", "environment", "said"),
    [
        ("prt: 1", {}, r"unknown serve setting 'prt' \(did you mean 'port'\?\)"),
        ("port: 70000", {}, "serve setting 'port' must be less than or equal to 65535"),
        ("- port", {}, "give settings as `name: value`"),
        ("port: [", {}, "is not YAML"),
        ("max_inputs: 9999", {}, "raise queue_inputs or lower max_inputs"),
        ("", {"CONPET_SERVE_PORTS": "1"}, "unknown serve setting 'ports'.*; ports is from CONPET_SERVE_PORTS"),
        (
            "workers: none\nport: 1",
            {"CONPET_SERVE_PORT": "x"},
            r"workers is from /.*yaml; port is from CONPET_SERVE_PORT$",
        ),
        ("log_level: WARN", {}, "must be 'debug', 'info'"),
        ("", {"CONPET_SERVE_POLL_SECONDS": "2"}, "'poll_seconds' must be less than or equal to 1"),
    ],
)
def test_wrong_settings_are_refused(tmp_path: Path, text: str, environment: dict[str, str], said: str) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=said):
        ServeSettings.load({"workspace": tmp_path}, file, environment)


def test_serve_refuses_what_it_cannot_serve(tmp_path: Path) -> None:
    nothing = conpet("serve", tmp_path / "nothing")
    assert (nothing.code, "no workspace at" in nothing.err) == (1, True)
    folder = workspace(tmp_path).path
    with socket.create_server(("127.0.0.1", 0)) as taken:
        used = conpet("serve", folder, "--port", taken.getsockname()[1])
    assert (used.code, "Address already in use; choose another --host" in used.err) == (1, True)
    twice = conpet("serve", folder, "--port", 1, "--set", "port=2")
    assert (twice.code, "port is given twice" in twice.err) == (2, True)
    missing = conpet("serve", folder, "--config", tmp_path / "no.yaml")
    assert (missing.code, "no.yaml: no such file or folder; check the path\n" in missing.err) == (1, True)


def test_a_backbone_that_cannot_be_loaded_ends_the_server_with_the_reason(tmp_path: Path) -> None:
    settings = ServeSettings(workspace=workspace(tmp_path, 1).path, port=0, backbone=str(tmp_path / "gone"))
    with listen(settings) as listening:
        failure = serve_on(settings, listening)
    assert isinstance(failure, ConpetError)
    assert "gone" in str(failure)


def test_ready_is_false_until_the_workspace_is_loaded(tmp_path: Path) -> None:
    app = create_app(ServeSettings(workspace=workspace(tmp_path).path))  # not started: nothing is loaded
    transport = httpx2.ASGITransport(app=app)

    async def ask() -> list[int]:
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return [(await client.get(path)).status_code for path in ("/healthz", "/version", "/readyz", "/v1/tasks")]

    assert asyncio.run(ask()) == [200, 200, 503, 503]


def test_the_guide_has_every_setting_and_endpoint() -> None:
    pages = [Path(__file__).parents[2] / "docs" / "how-to" / name for name in ("serve.md", "jobs.md", "review.md")]
    guide, *others = (page.read_text(encoding="utf-8") for page in pages)
    table = guide.partition("## Settings\n")[2].partition("\n## ")[0]
    first_cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| ")]
    assert set(re.findall(r"`(\w+)`", " ".join(first_cells))) == ServeSettings.model_fields.keys() - {"workspace"}
    paths = create_app(ServeSettings(workspace=Path("none"))).openapi()["paths"]
    assert {path for path in paths if path not in "".join([guide, *others])} == set()


def test_the_unit_and_the_container_start_the_server_without_rights() -> None:
    deploy = Path(__file__).parents[2] / "deploy"
    unit = (deploy / "conpet.service").read_text(encoding="utf-8")
    command = re.search(r"^ExecStart=\S+/conpet (.*)$", unit, re.MULTILINE)
    assert command is not None
    assert command[1].split()[0] == "serve"
    assert set(re.findall(r"--\w+", command[1])) <= set(re.findall(r"--\w+", conpet("serve", "--help").out))
    assert {"User=conpet", "NoNewPrivileges=yes", "ProtectSystem=strict"} <= set(unit.splitlines())
    lines = (deploy / "Dockerfile").read_text(encoding="utf-8").splitlines()
    assert {"USER conpet", 'ENTRYPOINT ["conpet", "serve"]'} <= set(lines)
    sources = [line.split()[1:-1] for line in lines if line.startswith("COPY ") and "--from" not in line]
    copied = chain.from_iterable(sources)
    ignored = (deploy.parent / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert {f"!{name}" for name in copied} == {line for line in ignored if line.startswith("!")}
    stop = re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    assert stop is not None
    assert int(stop[1]) > ServeSettings(workspace=deploy).drain_seconds
