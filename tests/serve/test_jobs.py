"""Changes over HTTP: learn, remove, activate, jobs and their events."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conpet import Client, Task
from conpet.serve.keys import KeyStore, Role
from conpet.store import Ledger
from tests.helpers.gate import BROKEN, TAKER, harmful, learned
from tests.helpers.serve import Served, served, wait_for
from tests.helpers.workspaces import stream, workspace

FIRST, SECOND, THIRD = stream()
SECONDS = 180


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    learner = workspace(tmp_path_factory.mktemp("jobs"), 1)
    with served(learner.path, upload_bytes=200_000) as running:
        yield running


def rows(task: Task, subset: str = "train") -> list[dict[str, Any]]:
    return [{"text": one.text, "label": one.label} for one in getattr(task, subset)]


def body(task: Task) -> dict[str, Any]:
    return {"name": task.name, **{subset: rows(task, subset) for subset in ("train", "validation", "test")}}


def lines(found: list[dict[str, Any]]) -> bytes:
    return "".join(f"{json.dumps(row)}\n" for row in found).encode()


def ended(server: Served, response: httpx2.Response) -> dict[str, Any]:
    """Return the job of a response when it has ended."""
    assert response.status_code == 202, response.text
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        job = server.client.get(response.headers["Location"]).json()
        if job["ended"]:
            return dict(job)
        time.sleep(0.1)
    raise AssertionError(f"job {job} did not end")


def send(server: Served, content: bytes, kind: str = "application/x-ndjson", **query: Any) -> httpx2.Response:
    return server.client.post("/v1/learn", content=content, headers={"Content-Type": kind}, params=query)


def test_a_task_is_learned_served_rolled_back_and_removed(server: Served) -> None:
    key, key_of_removal = {"Idempotency-Key": "the first upload"}, {"Idempotency-Key": "the removal"}
    needed = {"needed_since": (datetime.now(UTC).date() - timedelta(days=3)).isoformat()}
    response = server.client.post("/v1/learn", json=body(SECOND), headers=key, params=needed)
    job = ended(server, response)
    assert job["state"] == "succeeded", job["error"]
    assert job["tasks"] == [SECOND.name]
    assert job["result"]["tasks"][0]["version"] == 1
    assert job["result"]["tasks"][0]["whole_accuracy"] > 0.5
    again = server.client.post("/v1/learn", json=body(SECOND), headers=key, params=needed)
    assert (again.status_code, again.json()["id"], again.headers["Idempotent-Replayed"]) == (202, job["id"], "true")

    costs = server.client.get("/v1/cost").json()
    assert costs["versions"][-1]["late_days"] == 3 * len(SECOND.labels)
    assert {one["name"]: one["operations"] > 0 for one in costs["sources"]}["job"]
    entered = Ledger(server.context.settings.workspace).entries()
    assert {one.job for one in entered if one.task == SECOND.name} == {job["id"]}

    answer = server.predict([SECOND.test[0].text], min_generation=job["result"]["generation"]).json()
    assert answer["predictions"][0]["task"] == SECOND.name

    more = [{"text": f"{one.text} again", "label": one.label} for one in SECOND.test]
    extended = ended(server, send(server, lines(more), extend=True))
    assert extended["result"]["tasks"][0]["version"] == 2, extended
    back = server.client.post(f"/v1/versions/{SECOND.name}/activate", json={"version": 1})
    assert ended(server, back)["result"]["tasks"][0]["version"] == 1
    removed = ended(server, server.client.delete(f"/v1/tasks/{SECOND.name}", headers=key_of_removal))
    assert removed["state"] == "succeeded"
    repeated = server.client.delete(f"/v1/tasks/{SECOND.name}", headers=key_of_removal)
    assert (repeated.status_code, repeated.json()["id"]) == (202, removed["id"])  # though the task is gone
    assert server.predict(SECOND.test[0].text, min_generation=removed["result"]["generation"]).status_code == 200
    assert [one["name"] for one in server.client.get("/v1/tasks").json()["tasks"]] == [FIRST.name]

    listed = server.client.get("/v1/jobs", params={"limit": 2}).json()["jobs"]
    assert [one["kind"] for one in listed] == ["remove", "activate"]
    older = server.client.get("/v1/jobs", params={"before": listed[1]["id"]}).json()["jobs"]
    assert [one["kind"] for one in older] == ["extend", "learn"]
    metrics = server.client.get("/metrics").text
    assert 'conpet_jobs_ended_total{kind="learn",state="succeeded"} 1.0' in metrics
    assert 'conpet_jobs{state="succeeded"} 4.0' in metrics


def test_a_refused_learn_ends_with_its_report_and_can_be_made_or_discarded(tmp_path: Path) -> None:
    with served(learned(tmp_path).path) as running:
        job = ended(running, running.client.post("/v1/learn", json=body(harmful())))
        assert job["state"] == "failed"
        error = job["error"]
        assert (error["type"], error["status"], error["candidate"]) == ("urn:conpet:problem:gate-refused", 422, 1)
        assert BROKEN in [one["name"] for one in error["broken"]]
        assert str(tmp_path) not in error["detail"]
        (record,) = running.client.get("/v1/candidates").json()["candidates"]
        assert (record["number"], record["verb"], record["outdated"]) == (1, "learn", False)
        report = running.client.get("/v1/candidates/1").json()
        assert report["refused"]
        assert {one["after"]["label"] for one in report["changed"] if one["label"] == BROKEN} == {TAKER}
        still = ended(running, running.client.post("/v1/candidates/1/promote", json={}))
        assert still["error"]["type"] == "urn:conpet:problem:gate-refused"
        made = ended(running, running.client.post("/v1/candidates/1/promote", json={"gate": False}))
        assert (made["state"], made["result"]["gate"]["verdict"]) == ("succeeded", "refused")
        answer = running.predict([harmful().train[0].text], min_generation=made["result"]["generation"]).json()
        assert answer["predictions"][0]["task"] == "harmful"
        assert running.client.post("/v1/candidates/1/promote", json={}).status_code == 404
        assert running.client.delete("/v1/candidates/1").status_code == 404


def parse(text: str) -> list[dict[str, str]]:
    blocks = [block for block in text.split("\n\n") if block and not block.startswith(":")]
    return [dict(line.split(": ", 1) for line in block.split("\n")) for block in blocks]  # type: ignore[misc]


def test_events_go_on_after_the_last_one_received(server: Served) -> None:
    response = send(server, lines(rows(THIRD)), name=THIRD.name)
    address = f"{response.headers['Location']}/events"
    with server.client.stream("GET", address) as following:
        assert following.headers["Content-Type"].startswith("text/event-stream")
        for line in following.iter_lines():
            if line.startswith("id: "):
                last = line.removeprefix("id: ")
                break
    job = ended(server, response)
    rest = parse(server.client.get(address, headers={"Last-Event-ID": last}).text)
    assert all(int(event["id"]) > int(last) for event in rest)
    assert json.loads(rest[-1]["data"])["state"] == job["state"] == "succeeded"
    messages = [json.loads(event["data"])["message"] for event in rest if event["event"] == "log"]
    log = server.client.get(f"{response.headers['Location']}/log").json()["lines"]
    assert [line["message"] for line in log] == messages
    assert any(f"{THIRD.name}: learned 2 labels" in message for message in messages)
    assert server.client.get(address, headers={"Last-Event-ID": rest[-1]["id"]}).text.count("event:") == 0


def as_csv(task: Task) -> bytes:
    file = io.StringIO()
    writer = csv.DictWriter(file, ["text", "label"])
    writer.writeheader()
    writer.writerows(rows(task))
    return file.getvalue().encode()


def as_parquet(found: list[dict[str, Any]]) -> bytes:
    return written(pa.Table.from_pylist(found))


def written(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def parquet_bomb() -> bytes:
    """Return a small file that says it is small, with rows of 4 GB."""
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 80_000, pa.int32()), pa.array(["z" * 50_000]))
    return written(pa.table({"text": text, "label": ["x"] * 80_000}))


@pytest.mark.parametrize(
    ("content", "query"),
    [
        (as_csv(FIRST), {"format": "csv"}),
        (gzip.compress(as_csv(FIRST)), {"format": "csv.gz"}),
        (gzip.compress(lines(rows(FIRST))), {"format": "jsonl.gz"}),
        (as_parquet(rows(FIRST)), {"format": "parquet"}),
    ],
    ids=["csv", "csv.gz", "jsonl.gz", "parquet"],
)
def test_all_formats_are_read_and_their_rows_checked(server: Served, content: bytes, query: dict[str, str]) -> None:
    refused = send(server, content, "application/octet-stream", name="other", **query)
    assert refused.status_code == 422, refused.text
    errors = refused.json()["errors"]
    assert (errors[0]["source"], len(errors)) == ("the upload", len(FIRST.train))
    assert f"belongs to the earlier task {FIRST.name!r}" in errors[0]["detail"]


BOMB = gzip.compress(b'{"text": "a", "label": "b"}\n' * 20_000)
ROW = {"text": "hello", "label": "new"}
STRANGE = {
    "name": "x",
    "train": [ROW, {"text": "bye", "label": "old"}],
    "settings": {"module": {"kind": "\ud800"}},
}


@pytest.mark.parametrize(
    ("content", "kind", "query", "status", "said"),
    [
        (b"{", "application/json", {}, 422, "is not JSON"),
        (b"[1]", "application/json", {}, 422, "does not have the form"),
        (json.dumps({"name": "x", "rows": [ROW], "train": []}).encode(), "application/json", {}, 422, "give either"),
        (json.dumps({"rows": [ROW]}).encode(), "application/json", {}, 422, "needs a `name`"),
        (json.dumps({"name": "a\nb", "rows": [ROW]}).encode(), "application/json", {}, 422, "printable"),
        (json.dumps({"name": "../x", "rows": [ROW]}).encode(), "application/json", {}, 422, "only one label"),
        (json.dumps(STRANGE).encode(), "application/json", {}, 422, "no module kind"),
        (b"x", "application/json", {"name": "y"}, 422, "JSON names its tasks"),
        (lines([ROW, {"text": ""}]), "text/plain", {"name": "x"}, 415, "unknown content type"),
        (lines([ROW]), "text/plain", {"name": "x", "format": "jsonl"}, 415, "unknown content type"),
        (lines([ROW, {"text": ""}]), "application/jsonl", {"name": "x"}, 422, "empty text"),
        (lines([ROW]), "application/jsonl", {}, 422, "needs a name"),
        (lines([ROW]), "application/jsonl", {"name": "x", "template": "{nothing}"}, 422, "template"),
        (lines([ROW]), "application/jsonl", {"extend": True}, 422, "not known"),
        (lines([ROW]), "application/jsonl", {"extend": True, "name": "x"}, 422, "leave out name"),
        (lines([ROW]), "application/jsonl", {"name": "x", "batch": 2}, 422, "several tasks"),
        (lines([ROW]), "application/jsonl", {"name": "x", "needed_since": "2999-01-01"}, 422, "not in the future"),
        (BOMB, "application/gzip", {"name": "x", "format": "jsonl.gz"}, 422, "when decompressed"),
        (b"no gzip", "application/gzip", {"name": "x", "format": "csv.gz"}, 422, "gzip"),
        (as_parquet([ROW] * 400_000), "application/x-parquet", {"name": "x"}, 422, "when decompressed"),
        (parquet_bomb(), "application/x-parquet", {"name": "x"}, 422, "memory"),
        (b"PAR1 no", "application/x-parquet", {"name": "x"}, 422, "not a readable Parquet file"),
        (b"x" * 200_001, "application/jsonl", {"name": "x"}, 413, "too large"),
        (b"", "application/jsonl", {"name": "x", "format": "exe"}, 422, "unknown format"),
    ],
)
def test_wrong_uploads_are_refused_without_a_job(
    server: Served, content: bytes, kind: str, query: dict[str, Any], status: int, said: str
) -> None:
    before = len(server.client.get("/v1/jobs").json()["jobs"])
    refused = send(server, content, kind, **query)
    assert refused.status_code == status, refused.text
    assert said in refused.text
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert str(server.context.settings.workspace) not in refused.text
    assert "/tmp" not in refused.text  # noqa: S108 - no path of the server is told
    assert len(server.client.get("/v1/jobs").json()["jobs"]) == before
    assert list((server.context.jobs.folder / "data").iterdir()) == []


MIXED = lines([*rows(FIRST)[:1], ROW])
LATIN = "text,label\nwo ist das Café,cafe\nwhere are the toilets,toilets\n".encode("cp1252")


@pytest.mark.parametrize(
    ("content", "kind", "said"),
    [
        (lines(rows(FIRST)), "application/jsonl", "`extend` adds the examples to task"),
        (MIXED, "application/jsonl", "send their rows with `extend`, and the others as a task"),
        (b"question,reason\na,b\n", "text/csv", "Name the one to read `label`"),
        (LATIN, "text/csv", "add `charset=cp1252` to the content type"),
        (b"text,label\na \x9d,b\n", "text/csv; charset=cp1252", "give another `charset`"),
        (b"text,label\na,b\n", "text/csv; charset=klingon", "encoding 'klingon' is unknown"),
        (gzip.compress(as_csv(FIRST)), "text/csv", "send it with `Content-Encoding: gzip`"),
    ],
)
def test_messages_name_what_a_request_has_and_not_options_of_the_command_line(
    server: Served, content: bytes, kind: str, said: str
) -> None:
    refused = send(server, content, kind, name="other")
    assert refused.status_code == 422
    assert said in refused.text
    assert "--" not in refused.text


def test_wrong_rows_are_listed_in_order_and_in_the_encoding_that_the_content_type_names(server: Served) -> None:
    wrong = lines(
        [
            ROW,
            {"text": "", "label": "b"},
            {"label": "b"},
            {"text": "a", "label": ["b", "c"]},
            {"text": "b"},
            {"text": "c", "label": "b"},
        ]
    )
    errors = send(server, wrong, name="x").json()["errors"]
    assert [error["row"] for error in errors] == sorted(error["row"] for error in errors) == [2, 3, 4, 5]
    many = send(server, lines([{"text": f"a {number}"} for number in range(101)]), name="x").json()
    assert (len(many["errors"]), "the first 100 are listed" in many["detail"]) == (100, True)
    known = send(server, "text,label\nCafé,cafe\nTür,tür\n".encode("cp1252"), "text/csv; charset=cp1252", extend=True)
    assert "label 'tür' is not known" in known.json()["errors"][1]["detail"]


def test_labels_are_refused_at_once_unless_a_waiting_job_may_change_their_task(tmp_path: Path) -> None:
    with served(workspace(tmp_path, 2).path) as running:
        running.context.runner.stop(0)  # jobs stay as they are
        assert running.client.delete(f"/v1/tasks/{SECOND.name}").status_code == 202
        refused = send(running, lines(rows(FIRST)), name="other")
        assert (refused.status_code, refused.json()["type"]) == (422, "urn:conpet:problem:invalid-data")
        assert f"belongs to the earlier task {FIRST.name!r}" in refused.text
        assert send(running, lines(rows(SECOND)), name="other").status_code == 202
        assert running.context.jobs.concerned() == {SECOND.name, "other"}


def test_unknown_names_and_reused_keys_are_refused(server: Served) -> None:
    assert server.client.delete("/v1/tasks/nothing").status_code == 404
    assert server.client.post(f"/v1/versions/{FIRST.name}/activate", json={"version": 7}).status_code == 404
    for address in ("/v1/jobs/nothing", "/v1/jobs/nothing/log", "/v1/jobs/nothing/events", "/v1/jobs/..%2F..%2Fx"):
        assert server.client.get(address).status_code == 404
    assert server.client.get("/v1/jobs", params={"state": "lost"}).status_code == 422
    key = {"Idempotency-Key": "key of a consolidation"}
    asked = server.client.post("/v1/consolidate", json={"bound": 100}, headers=key)
    other = server.client.post("/v1/consolidate", json={"bound": 99}, headers=key)
    assert (other.status_code, other.json()["type"]) == (422, "urn:conpet:problem:idempotency-key-reused")
    cancelled = server.client.post(f"{asked.headers['Location']}/cancel")
    assert cancelled.status_code == 200
    assert ended(server, asked)["state"] == "cancelled"


def test_only_the_top_layers_are_consolidated_if_that_is_asked_for(tmp_path: Path) -> None:
    with served(workspace(tmp_path, 2).path) as running:
        wrong = running.client.post("/v1/consolidate", json={"layers": "bottom"})
        assert (wrong.status_code, "'all' or 'top'" in wrong.text) == (422, True)
        options = {"bound": 100, "layers": "top", "gate": False}
        done = ended(running, running.client.post("/v1/consolidate", json=options))
        assert (done["state"], done["result"]["share"]) == ("succeeded", None)
        listed = running.client.get("/v1/generations").json()["generations"]
        assert [row["layers"] for row in listed] == [None, "top"]
        unchanged = ended(running, running.client.post("/v1/consolidate", json=options))
        assert (unchanged["state"], unchanged["result"]["consolidated"]) == ("succeeded", False)
        assert running.client.get("/v1/generations").json()["generations"] == listed


def test_roles(tmp_path: Path) -> None:
    path = workspace(tmp_path, 1).path
    keys = {role: KeyStore(path / "keys.sqlite").create(role)[0] for role in Role}
    with served(path) as running:
        running.context.runner.stop(0)  # jobs stay as they are

        def status(role: Role, method: str, address: str, **options: Any) -> int:
            headers = {"Authorization": f"Bearer {keys[role]}"}
            return int(running.client.request(method, address, headers=headers, **options).status_code)

        assert status(Role.PREDICT, "POST", "/v1/learn", json=body(SECOND)) == 403
        assert status(Role.PREDICT, "GET", "/v1/jobs") == 403
        assert status(Role.LEARN, "DELETE", f"/v1/tasks/{FIRST.name}") == 403
        assert status(Role.LEARN, "POST", "/v1/consolidate", json={}) == 403
        assert status(Role.LEARN, "POST", "/v1/candidates/1/promote", json={}) == 403
        assert status(Role.LEARN, "POST", "/v1/learn?gate=false", json=body(SECOND)) == 403
        assert status(Role.LEARN, "POST", "/v1/learn", json=body(SECOND)) == 202
        assert status(Role.OPERATE, "DELETE", f"/v1/tasks/{FIRST.name}") == 202
        removal, learning = (job.id for job in running.context.jobs.list())
        assert status(Role.LEARN, "POST", f"/v1/jobs/{removal}/cancel") == 403
        assert status(Role.LEARN, "POST", f"/v1/jobs/{learning}/cancel") == 200
        assert status(Role.OPERATE, "POST", f"/v1/jobs/{removal}/cancel") == 200
        assert {str(job.state) for job in running.context.jobs.list()} == {"cancelled"}


def test_rows_are_forgotten_and_the_queue_keeps_nothing_of_them(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2)
    row, other = SECOND.train[0].text, SECOND.test[0].text
    digest = hashlib.sha256(other.encode()).hexdigest()
    wanted = {"rows": [row], "hashes": [digest.upper()], "reason": "request 17"}
    key = {"Idempotency-Key": "forget it"}
    with served(learner.path) as server:
        assert server.client.post("/v1/forget", json={}).status_code == 422
        assert server.client.post("/v1/forget", json={"rows": [{"label": "x"}]}).status_code == 422
        assert server.predict(row).status_code == 200
        job = ended(server, server.client.post("/v1/forget", json=wanted, headers=key))
        assert job["state"] == "succeeded", job["error"]
        assert job["options"] == {"reason": "request 17", "keep_modules": False, "drop_labels": False, "evaluate": True}
        assert job["result"]["receipt"]["complete"], job["result"]
        assert (job["result"]["rows"], job["result"]["receipt"]["reason"]) == (2, "request 17")
        again = server.client.post("/v1/forget", json=wanted, headers=key)
        assert again.json()["id"] == job["id"]
        failed = ended(server, server.client.post("/v1/forget", json=wanted))
        assert failed["error"]["detail"].startswith("no stored row matches any of the 2 given")
        with Client(f"http://127.0.0.1:{server.port}") as client:
            label = FIRST.labels[0]
            done = client.wait(client.forget(labels=[label], keep_modules=True, evaluate=False))
        assert done.result is not None
        assert done.result["still_trained"] == [f"the module of task {FIRST.name}"]
        content = b"".join(path.read_bytes() for path in learner.path.rglob("*") if path.is_file())
    assert [text for text in (row, other, digest, label) if text.encode() in content.lower()] == []


def test_a_deletion_that_waits_for_a_reader_is_completed_by_the_server(tmp_path: Path) -> None:
    learner, row = workspace(tmp_path, 2), SECOND.train[0].text
    reader = learner.store.snapshot()
    with served(learner.path) as server:
        job = ended(server, server.client.post("/v1/forget", json={"rows": [row]}))
        assert job["state"] == "succeeded", job["error"]
        receipt = job["result"]["receipt"]
        held = [learner.path / "objects" / name for name in receipt["still_read_by_a_process"]]
        assert (receipt["complete"], all(folder.exists() for folder in held), bool(held)) == (False, True, True)
        reader.close()
        address = f"/v1/jobs/{job['id']}"
        wait_for(lambda: server.client.get(address).json()["result"]["receipt"]["complete"])
        result = server.client.get(address).json()["result"]
        assert (result["rows"], result["receipt"]["still_read_by_a_process"]) == (job["result"]["rows"], [])
        assert not any(folder.exists() for folder in held)
    stored = json.loads((learner.path / "receipts" / f"{receipt['generation']}.json").read_bytes())
    assert stored == result["receipt"]
