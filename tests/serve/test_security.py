"""Who may do what, and what a hostile client cannot do."""

from __future__ import annotations

import errno
import gzip
import json
import socket
import stat
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

import pytest

from conpet.errors import ConfigError, CorruptionError, ReadOnlyError
from conpet.serve.app import create_app
from conpet.serve.keys import KeyStore, Role
from conpet.serve.logs import make_log
from conpet.serve.rates import RateLimiter
from conpet.serve.run import check_exposure
from conpet.serve.settings import ServeSettings
from tests.helpers.cli import conpet
from tests.helpers.permissions import public_folder, unprivileged
from tests.helpers.serve import Served, served, wait_for
from tests.helpers.workspaces import workspace

JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return workspace(tmp_path_factory.mktemp("served"), 1).path


@pytest.fixture(scope="module")
def server(taught: Path) -> Iterator[Served]:
    """A server without keys, with small limits."""
    with served(taught, body_bytes=50_000, body_seconds=0.5, header_seconds=0.5) as running:
        yield running


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def raw(server: Served, data: bytes, *more: bytes, pause: float = 0.0) -> bytes:
    """Send bytes and return all that comes back until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        for part in (data, *more):
            connection.sendall(part)
            time.sleep(pause)
        return received_until_closed(connection)


def received_until_closed(connection: socket.socket) -> bytes:
    received = b""
    while part := connection.recv(65536):
        received += part
    return received


def test_keys_open_what_their_role_allows_until_they_are_revoked(tmp_path: Path) -> None:
    folder = workspace(tmp_path, 1).path
    with served(folder) as server:
        assert server.predict("a").status_code == 200
        made = conpet("keys", "create", folder, "--role", "predict", "--name", "shop", "--json").json
        for headers in ({}, bearer("conpet_no_key"), {"Authorization": "Basic eDp5"}, bearer(made["key"] + "x")):
            refused = server.predict("a", headers)
            assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert server.predict("a", bearer(made["key"])).status_code == 200
        assert server.client.get("/healthz").status_code == 200
        assert server.client.get("/metrics").status_code == 401
        wait_for(lambda: conpet("keys", "list", folder, "--json").json[0]["last_used"] is not None)
        (listed,) = conpet("keys", "list", folder, "--json").json
        assert (listed["name"], listed["role"], listed["revoked"]) == ("shop", "predict", None)
        assert "shop" in conpet("keys", "list", folder).out
        assert conpet("keys", "revoke", folder, made["id"]).code == 0
        assert server.predict("a", bearer(made["key"])).status_code == 401
        assert server.predict("a").status_code == 401  # the last key is gone, the server stays closed
        (folder / "keys.sqlite").unlink()
        assert server.predict("a").status_code == 401


def test_a_key_is_stored_as_a_hash_that_only_the_owner_can_read(tmp_path: Path) -> None:
    store = KeyStore(tmp_path / "keys.sqlite")
    key, record = store.create(Role.LEARN, "ci")
    assert stat.S_IMODE((tmp_path / "keys.sqlite").stat().st_mode) == 0o600
    assert key.split("_", 2)[2].encode() not in (tmp_path / "keys.sqlite").read_bytes()
    assert store.verify(key) == record
    assert store.verify(key[:-1]) is None
    assert store.cached(key) == record
    another = KeyStore(tmp_path / "keys.sqlite")
    assert another.cached(key) is None
    another.revoke(record.id)
    assert store.cached(key) is None
    assert store.verify(key) is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["create", "--role", "admin"], "'admin' is not a role"),
        (["create", "--role", "predict", "--name", "a\x1b[2J"], "printable"),
        (["revoke", "nokey"], "no key 'nokey'"),
    ],
)
def test_wrong_keys_commands_are_refused(taught: Path, arguments: list[str], said: str) -> None:
    refused = conpet("keys", arguments[0], taught, *arguments[1:])
    assert refused.code != 0
    assert said in " ".join(refused.err.split())


def test_keys_can_be_kept_in_another_file(taught: Path, tmp_path: Path) -> None:
    file = tmp_path / "made" / "keys.db"
    made = conpet("keys", "create", taught, "--role", "operate", "--keys", file)
    key = made.out.strip()
    assert "cannot be shown again" in made.err
    (listed,) = conpet("keys", "list", taught, "--keys", file, "--json").json
    assert conpet("keys", "list", taught, "--json").json == []
    with served(taught, keys_file=file) as server:
        assert server.predict("a").status_code == 401
        assert server.predict("a", bearer(key)).status_code == 200
        assert conpet("keys", "revoke", taught, listed["id"], "--keys", file).code == 0
        assert server.predict("a", bearer(key)).status_code == 401
    assert "revoked" in conpet("keys", "list", taught, "--keys", file).out


def test_roles_include_those_before_them() -> None:
    allowed = {role: [other for other in Role if role.allows(other)] for role in Role}
    assert allowed == {
        Role.PREDICT: [Role.PREDICT],
        Role.LEARN: [Role.PREDICT, Role.LEARN],
        Role.OPERATE: [Role.PREDICT, Role.LEARN, Role.OPERATE],
    }


def test_stored_examples_are_shown_only_to_who_may_learn(tmp_path: Path) -> None:
    folder = workspace(tmp_path, 1).path
    store = KeyStore(folder / "keys.sqlite")
    keys = {role: store.create(role)[0] for role in Role}
    with served(folder) as server:
        shown = {}
        for role, key in keys.items():
            response = server.predict("a", bearer(key), explain=True)
            nearest = response.json()["predictions"][0]["explanation"]["nearest"]
            shown[role] = any(neighbour["example"] for neighbour in nearest)
    assert shown == {Role.PREDICT: False, Role.LEARN: True, Role.OPERATE: True}


def test_each_key_has_a_rate_of_its_own_and_guesses_are_limited(tmp_path: Path) -> None:
    folder = workspace(tmp_path, 1).path
    store = KeyStore(folder / "keys.sqlite")
    (first, _), (second, _) = store.create(Role.PREDICT), store.create(Role.PREDICT)
    with served(folder, rate_limit=0.01, rate_burst=2) as server:
        assert [server.predict("a", bearer(first)).status_code for _ in range(3)] == [200, 200, 429]
        limited = server.predict("a", bearer(first))
        assert 90 < int(limited.headers["retry-after"]) <= 101
        assert limited.json()["type"] == "urn:conpet:problem:rate-limited"
        assert server.predict("a", bearer(second)).status_code == 200
        with ThreadPoolExecutor(12) as pool:
            guesses = pool.map(lambda number: server.predict("a", bearer(f"conpet_x_{number}")).status_code, range(30))
        assert Counter(guesses) in ({401: 10, 429: 20}, {401: 11, 429: 19})  # two are verified at once
        assert server.predict("a", bearer(second)).status_code == 200  # a key already seen still opens


def test_keys_of_another_user_are_named_with_the_way_out() -> None:
    with public_folder() as folder:
        KeyStore(folder / "keys.sqlite").create(Role.PREDICT)
        (folder / "keys.sqlite").chmod(0)
        with unprivileged(), pytest.raises(PermissionError, match=r"keys\.sqlite cannot be read.*chown"):
            check_exposure(ServeSettings(workspace=folder, host="0.0.0.0"))  # noqa: S104


def test_the_limit_of_a_key_is_divided_by_the_processes(taught: Path) -> None:
    settings = ServeSettings(workspace=taught, workers=2, rate_limit=0.01, rate_burst=6)
    rates = create_app(settings).state.context.rates
    assert [rates.take("key") == 0 for _ in range(4)] == [True, True, True, False]


def test_other_machines_are_not_served_without_keys(tmp_path: Path) -> None:
    folder = workspace(tmp_path).path
    open_to_all = ServeSettings(workspace=folder, host="0.0.0.0")  # noqa: S104
    with pytest.raises(ConfigError, match=r"conpet keys create .* or serve anyone with --insecure"):
        check_exposure(open_to_all)
    refused = conpet("serve", folder, "--host", "0.0.0.0")  # noqa: S104
    assert (refused.code, "it has no API keys" in refused.err) == (1, True)
    for host in ("127.0.0.1", "::1", "localhost", "127.8.8.8"):
        check_exposure(ServeSettings(workspace=folder, host=host))
    check_exposure(open_to_all.model_copy(update={"insecure": True}))
    KeyStore(folder / "keys.sqlite").create(Role.PREDICT)
    check_exposure(open_to_all)
    assert open_to_all.keys.exists()


def test_a_page_on_another_host_cannot_call_a_server_on_loopback(server: Served) -> None:
    refused = server.predict("a", {"Host": "evil.example"})
    assert (refused.status_code, refused.json()["type"]) == (421, "urn:conpet:problem:unknown-host")
    preflight = server.client.options(
        "/v1/predict", headers={"Origin": "http://x", "Access-Control-Request-Method": "POST"}
    )
    assert preflight.status_code == 405
    answered = server.predict("a", {"Origin": "http://x"})
    assert not [name for name in answered.headers if name.startswith("access-control")]
    assert answered.headers["x-content-type-options"] == "nosniff"
    assert answered.headers["content-security-policy"].startswith("default-src 'none'")
    assert answered.headers["cache-control"] == "no-store"
    assert "server" not in answered.headers


def test_allowed_hosts_can_be_named(taught: Path) -> None:
    with served(taught, allowed_hosts="conpet.example,other") as server:
        statuses = {host: server.predict("a", {"Host": host}).status_code for host in ("conpet.example:80", "evil")}
    assert statuses == {"conpet.example:80": 200, "evil": 421}


def body_of(characters: int) -> bytes:
    return json.dumps({"inputs": ["a" * 1000] * (characters // 1000)}).encode()


def test_bodies_are_limited_whatever_way_they_come(server: Served) -> None:
    def post(content: bytes | Iterator[bytes], **headers: str) -> int:
        return server.client.post("/v1/predict", content=content, headers={**JSON, **headers}).status_code

    small, large = body_of(5_000), body_of(100_000)
    assert post(small) == 200
    assert post(iter([small[:100], small[100:]])) == 200  # chunked
    assert post(gzip.compress(small), **{"content-encoding": "gzip"}) == 200
    assert post(large) == 413
    assert post(iter([large[:30_000], large[30_000:]])) == 413
    assert post(gzip.compress(large), **{"content-encoding": "gzip"}) == 413  # some 500 bytes
    assert post(b"no gzip", **{"content-encoding": "gzip"}) == 400
    assert post(gzip.compress(small)[:-9], **{"content-encoding": "gzip"}) == 400
    assert post(gzip.compress(small) + b"more", **{"content-encoding": "gzip"}) == 400
    assert post(small, **{"content-encoding": "br"}) == 415


def test_slow_and_oversized_requests_lose_their_connection(server: Served) -> None:
    start = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\n"
    slow_headers = raw(server, start)
    assert slow_headers.startswith(b"HTTP/1.1 408 ")
    assert b"headers-too-slow" in slow_headers
    slow_body = raw(server, start + b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
    assert slow_body.startswith(b"HTTP/1.1 408 ")
    assert b"body-too-slow" in slow_body
    assert raw(server, start + b"X: " + b"a" * 70_000).startswith(b"HTTP/1.1 431 ")
    assert raw(server, b"\x16\x03\x01 no HTTP\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert server.predict("a").status_code == 200


# Ids are sent back, so the answer has ten megabytes, as the request: more than the system holds for a connection.
ECHOED = [{"text": f"a {number}", "id": str(number) * 100_000} for number in range(10, 60)]


@contextmanager
def waiting_to_receive(server: Served) -> Iterator[socket.socket]:
    """Send `ECHOED`, and yield the connection when the first byte of the answer is there."""
    body = json.dumps({"inputs": ECHOED}).encode()
    request = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.settimeout(30)
        slow.connect(("127.0.0.1", server.port))
        slow.sendall(request + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        assert slow.recv(1)
        yield slow


def test_a_client_that_does_not_receive_its_answer_in_time_loses_it_and_others_do_not(taught: Path) -> None:
    with served(taught, response_seconds=0.3, body_bytes=12_000_000) as server:
        with waiting_to_receive(server) as slow:
            for _ in range(20):
                assert slow.recv(1)
                time.sleep(0.05)
            with pytest.raises(ConnectionResetError):
                received_until_closed(slow)
        answered = server.predict(ECHOED)
        assert [one["id"] for one in answered.json()["predictions"]] == [one["id"] for one in ECHOED]
        assert server.predict("a").status_code == 200


def test_requests_that_would_take_too_much_memory_together_are_told_to_come_back(taught: Path) -> None:
    with served(taught, body_bytes=12_000_000, buffer_bytes=13_000_000) as server:
        with waiting_to_receive(server):
            refused = server.predict(ECHOED)
            assert refused.status_code == 503
            assert refused.json()["type"].endswith(":buffer-full")
            assert "retry-after" in refused.headers
            assert server.predict("a").status_code == 200
        wait_for(lambda: server.predict(ECHOED).status_code == 200)
        assert server.predict(ECHOED).status_code == 200  # nothing is counted for ever


def test_a_caller_over_its_rate_is_not_forgotten_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conpet.serve.rates._CALLERS", 2)
    limiter = RateLimiter(0.001, 1)
    assert limiter.take("flooding") == 0
    for number in range(4):
        assert limiter.take("flooding") > 0
        assert limiter.take(f"other {number}") == 0
    assert limiter.take("other 3") > 0


def test_long_bodies_do_not_count_as_headers(server: Served) -> None:
    request = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    body = body_of(45_000)
    whole = request + b"Content-Length: %d\r\n\r\n" % len(body) + body
    answered = raw(
        server, whole, whole, request + b"Connection: close\r\nContent-Length: 15\r\n\r\n" + b'{"inputs": "a"}'
    )
    assert answered.count(b"HTTP/1.1 200 ") == 3


def test_connections_are_limited_and_idle_ones_end(taught: Path) -> None:
    with served(taught, max_connections=20, header_seconds=1.0) as server:
        idle = [socket.create_connection(("127.0.0.1", server.port), timeout=30) for _ in range(30)]
        refused = [connection for connection in idle if b" 503 " in first_bytes(connection)]
        assert len(refused) >= 10
        assert server.is_ready()
        assert server.predict("a").status_code == 200
        for connection in idle:
            connection.close()


def first_bytes(connection: socket.socket) -> bytes:
    """Return what the server sends without being asked, within a moment."""
    connection.settimeout(0.2)
    try:
        return connection.recv(1000)
    except TimeoutError:
        return b""


def logged(server: Served) -> StringIO:
    """Make a server log into memory."""
    stream = StringIO()
    server.context.log = make_log("info", stream)
    return stream


def test_log_lines_cannot_be_forged_and_hold_no_texts(server: Served) -> None:
    stream = logged(server)
    forged = server.predict("a secret text", {"X-Request-ID": 'x", "status": 1'})
    assert forged.headers["x-request-id"] != 'x", "status": 1'
    server.client.get("/%0a%7b%22event%22:%22forged%22%7d", headers={"X-Request-ID": "a" * 65})
    server.client.request("PATCH", "/v1/tasks")
    wait_for(lambda: stream.getvalue().count("\n") == 3)  # a line is written just after the response
    entries = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(entry["method"], entry["route"], entry["status"]) for entry in entries] == [
        ("POST", "/v1/predict", 200),
        ("GET", "none", 404),
        ("PATCH", "/v1/tasks", 405),
    ]
    assert "secret" not in stream.getvalue()
    assert "forged" not in stream.getvalue()
    assert entries[0]["inputs"] == 1


def test_texts_are_logged_only_if_asked_for(taught: Path) -> None:
    with served(taught, log_texts=True) as server:
        stream = logged(server)
        server.predict("a secret\ntext")
        wait_for(lambda: bool(stream.getvalue()))
    entry = json.loads(stream.getvalue().splitlines()[0])
    assert entry["texts"] == ["a secret\ntext"]


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (ValueError("/secret/path"), 500, "internal-error"),
        (CorruptionError("/secret/path"), 503, "storage-failed"),
        (ReadOnlyError("/secret/path"), 503, "read-only"),
        (OSError(errno.ENOSPC, "/secret/path"), 507, "disk-full"),
        (MemoryError("/secret/path"), 503, "out-of-memory"),
    ],
)
def test_an_unexpected_error_says_nothing_and_is_logged(
    server: Served, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, kind: str
) -> None:
    stream = logged(server)

    def fail() -> None:
        raise error

    monkeypatch.setattr(server.context, "ready", fail)
    response = server.predict("a")
    assert (response.status_code, response.json()["type"]) == (status, f"urn:conpet:problem:{kind}")
    assert "secret" not in response.text
    assert "/secret/path" in stream.getvalue()
    assert response.json()["request_id"] in stream.getvalue()
    assert ("Traceback" in stream.getvalue()) == (kind not in ("read-only", "disk-full"))  # the reason says enough


def test_many_clients_with_new_keys_are_verified_beside_requests(tmp_path: Path) -> None:
    folder = workspace(tmp_path, 1).path
    store = KeyStore(folder / "keys.sqlite")
    keys = [store.create(Role.PREDICT)[0] for _ in range(4)]
    with served(folder) as server:
        statuses: list[int] = []

        def ask(key: str) -> None:
            with server.new_client() as client:
                statuses.append(client.post("/v1/predict", json={"inputs": "a"}, headers=bearer(key)).status_code)

        threads = [threading.Thread(target=ask, args=(key,)) for key in keys * 2]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert statuses == [200] * 8
