"""A server records what it answers, and watches it."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from conpet import AsyncClient, Client, Example
from conpet.errors import AccessError, ConfigError, ConpetError, DataError
from conpet.serve import recording
from conpet.serve.keys import KEYS, KeyStore, Role
from conpet.serve.metrics import Metrics
from conpet.serve.settings import ServeSettings
from conpet.store.prediction_log import PredictionLog
from conpet.types import LogEntry
from conpet.watching.report import Signal, WatchReport
from tests.helpers.serve import Served, served, wait_for
from tests.helpers.webhook import receiver
from tests.helpers.workspaces import stream, workspace

DEPLOY = Path(__file__).parents[2] / "deploy"
TASKS = stream()
METRIC = re.compile(r"\bconpet_\w+")


def texts(task: int) -> list[str]:
    return [example.text for example in TASKS[task].test]


def test_answers_are_recorded_under_the_id_of_the_request_also_when_the_folder_was_away(tmp_path: Path) -> None:
    folder = workspace(tmp_path, 2).path
    records = tmp_path / "records"
    records.mkdir()
    log = PredictionLog(folder, records)
    with served(folder, log_predictions="hash", log_to=records) as server:
        answer = server.predict([*texts(0), *texts(1)], headers={"X-Request-ID": "first"}).json()["predictions"]
        wait_for(lambda: log.total() == len(answer))
        entries = log.entries(request="first")[::-1]
        assert [(one.label, one.task, one.decision) for one in entries] == [
            (one["label"], one["task"], one["decision"]) for one in answer
        ]
        assert {one.content for one in entries} == {None}
        assert log.entries(input_hash=log.hash_of(texts(1)[0]))[0].place == len(texts(0)) + 1
        assert {type(one.scope) for one in entries} == {float}
        shutil.move(records, tmp_path / "away")
        assert server.predict(texts(0), headers={"X-Request-ID": "second"}).status_code == 200
        shutil.move(tmp_path / "away", records)
        metrics = server.client.get("/metrics").text
        assert re.search(r'conpet_decisions_total\{decision="answer"\} [1-9]', metrics)
    assert [one.request for one in log.entries(limit=1)] == ["second"]
    assert list(log.breaks()) == []


def test_nothing_is_recorded_unless_it_is_wanted_and_only_operators_may_watch(tmp_path: Path) -> None:
    folder = workspace(tmp_path, 1).path
    keys = KeyStore(folder / KEYS)
    learner, operator = ({"Authorization": f"Bearer {keys.create(role)[0]}"} for role in (Role.LEARN, Role.OPERATE))
    with served(folder) as server:
        assert server.predict(texts(0), headers=learner).status_code == 200
        assert server.client.get("/v1/watch", headers=learner).status_code == 403
        assert server.client.get("/v1/watch", headers=operator).status_code == 409
    assert not PredictionLog(folder).exists


def test_an_alarm_reaches_the_metrics_and_the_webhook_once(tmp_path: Path) -> None:
    folder = workspace(tmp_path, 2).path
    with receiver() as (url, received):
        options = {"watch_seconds": 0.1, "watch_reference": 50, "watch_window": 100, "watch_webhook": url}
        with served(folder, log_predictions="hash", **options) as server:
            ask(server, 0, 80)
            ask(server, 1, 300)
            wait_for(lambda: bool(server.client.get("/v1/watch").json().get("alarms")))
            wait_for(lambda: bool(received))
            with Client(f"http://127.0.0.1:{server.port}") as client:
                report = client.watch()
            assert report.inputs == 380
            assert asyncio.run(watched(server.port)).alarms == report.alarms
            names = {signal.name for signal in report.alarms}
            assert f"task {TASKS[1].name}" in names
            wait_for(lambda: {one["signal"]["name"] for one in received} >= names)
            wait_for(lambda: f'conpet_watch_alarm{{signal="task {TASKS[1].name}"}} 1.0' in metrics_of(server))
            ask(server, 1, 50)
        sent = [one["signal"]["name"] for one in received]
        assert len(sent) == len(set(sent))
        assert received[0]["event"] == "conpet.watch.alarm"
        assert received[0]["workspace"] == folder.name


def test_the_metrics_of_an_alarm_end_with_its_signal() -> None:
    metrics = Metrics()
    alarm = Signal("task cards", "share of answers", 0.9, 0.1, 400.0, 200.0, alarm=True)
    report = WatchReport(3, 400, 50, True, 100, None, None, 1, 0.01, (alarm,))
    metrics.watched(report)
    assert 'conpet_watch_alarm{signal="task cards"} 1.0' in metrics.render().decode()
    metrics.watched(replace(report, generation=4, signals=()))  # the task is forgotten, or watching begins anew
    said = metrics.render().decode()
    assert 'conpet_watch_alarm{signal="task cards"} 0.0' in said
    assert 'conpet_watch_evidence{signal="task cards"} 0.0' in said
    assert 'conpet_watch_value{signal="task cards"} NaN' in said


def test_a_server_records_once_if_old_entries_cannot_be_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(PredictionLog, "prune", full)
    settings = {"log.predictions": "hash", "log.keep_days": 1}
    folder = workspace(tmp_path, 1, **settings).path
    with served(folder) as server:
        ask(server, 0, 5)
        wait_for(lambda: PredictionLog(folder).total() >= 5)
        ask(server, 0, 3)
        wait_for(lambda: PredictionLog(folder).total() >= 8)
    log = PredictionLog(folder)
    assert (log.total(), list(log.notes())) == (8, [])


def test_right_labels_that_are_sent_are_watched(tmp_path: Path) -> None:
    folder = workspace(tmp_path, 2).path
    with served(folder, log_predictions="hash", watch_seconds=0.1) as server:
        with Client(f"http://127.0.0.1:{server.port}") as client:
            refused = server.client.post("/v1/feedback", json={"feedback": [{"text": "a", "label": "x"}]})
            assert refused.status_code == 409
            answers = client.predict(texts(0))
            wait_for(lambda: PredictionLog(folder).total() == len(answers))
            right = [(str(answers[0].request_id), 1, str(answers[0].label)), (texts(0)[1], "another label")]
            assert client.feedback([*right, ("never asked", "x")]) == {
                "found": 2,
                "missing": 1,
                "not_learned": ["another label", "x"],
            }
            assert client.feedback(right[:1]) == {"found": 1, "missing": 0, "not_learned": []}
        wait_for(lambda: bool(server.client.get("/v1/watch").json().get("accuracy")))
        whole = server.client.get("/v1/watch").json()["accuracy"]["whole"]
        assert (whole["right"], whole["n"]) == (1, 2)
        wrong = {"feedback": [{"text": "a", "request_id": "b", "label": "x"}]}
        assert "either request_id or text" in server.client.post("/v1/feedback", json=wrong).text


def test_recorded_predictions_are_listed_by_page_and_filter_for_operators(tmp_path: Path) -> None:
    folder = workspace(tmp_path, 2).path
    keys = KeyStore(folder / KEYS)
    (learner, _), (operator, _) = (keys.create(role) for role in (Role.LEARN, Role.OPERATE))
    log = PredictionLog(folder)
    with served(folder, log_predictions="text") as server:
        url = f"http://127.0.0.1:{server.port}"
        with Client(url, key=operator) as client, Client(url, key=learner) as other:
            with pytest.raises(DataError, match="no prediction was recorded so far"):
                client.predictions()
            answers = client.predict([*texts(0), *texts(1)])
            wait_for(lambda: log.total() == len(answers))
            assert client.predictions() == log.entries()
            page = client.predictions(limit=3)
            assert [one.content for one in page] == texts(1)[-1:-4:-1]
            assert client.predictions(limit=2, before=page[-1].id) == log.entries(before=page[-1].id, limit=2)
            (task, label) = (answers[0].task, answers[0].label)
            assert client.predictions(task=task, label=label, since="1h") == log.entries(task=task, label=label)
            assert client.predictions(since=datetime.now(UTC) + timedelta(hours=1)) == []
            assert client.predictions(decision="decline") == log.entries(decision="decline")
            with pytest.raises(ConpetError, match="'soon' is no time"):
                client.predictions(since="soon")
            with pytest.raises(AccessError):
                other.predictions()
        headers = {"Authorization": f"Bearer {operator}"}
        get = server.client.get
        following = get("/v1/predictions?limit=3", headers=headers).json()["next"]
        assert following == page[-1].id
        assert get(f"/v1/predictions?limit=1000&before={following}", headers=headers).json()["next"] is None
        assert get("/v1/predictions?decision=maybe", headers=headers).status_code == 422
        assert asyncio.run(listed(server.port, operator)) == log.entries()


async def listed(port: int, key: str) -> list[LogEntry]:
    async with AsyncClient(f"http://127.0.0.1:{port}", key=key) as client:
        return await client.predictions()


def test_a_server_deletes_old_entries_also_without_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "_KEEP_SECONDS", 0.05)
    ws = workspace(tmp_path, 1)
    log = ws.prediction_log
    examples = [Example.of_text(text) for text in texts(0)]
    log.append(log.rows("old", examples, ws.predict(texts(0)), with_text=False, at=time.time() - 3 * 86_400))
    assert log.total() == len(examples)
    ws.set_log(keep_days=1)
    with served(ws.path):
        wait_for(lambda: log.total() == 0)
    assert [note.what for note in log.notes()] == ["pruned"]


async def watched(port: int) -> WatchReport:
    async with AsyncClient(f"http://127.0.0.1:{port}") as client:
        return await client.watch()


def ask(server: Served, task: int, number: int) -> None:
    wanted = texts(task)
    inputs = [wanted[at % len(wanted)] for at in range(number)]
    assert server.predict(inputs).status_code == 200


def metrics_of(server: Served) -> str:
    return str(server.client.get("/metrics").text)


def test_every_metric_of_the_rules_and_the_board_is_exported(tmp_path: Path) -> None:
    with served(workspace(tmp_path, 1).path) as server:
        text = metrics_of(server)
    exported = set()
    for name, kind in re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE):
        exported |= {f"{name}{suffix}" for suffix in ("_bucket", "_sum", "_count")} if kind == "histogram" else {name}
    rules = yaml.safe_load((DEPLOY / "prometheus-rules.yml").read_text(encoding="utf-8"))
    board = json.loads((DEPLOY / "grafana-dashboard.json").read_text(encoding="utf-8"))
    alerts = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    targets = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    for expressions in (alerts, targets):
        named = set(METRIC.findall("\n".join(expressions)))
        assert named
        assert named - exported == set()


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ({"watch_webhook": "ftp://host/x", "watch_seconds": 1}, "http:// or https://"),
        ({"watch_webhook": "http://host/x"}, "only with watch_seconds"),
        ({"watch_reference": 3}, "at least 50"),
        ({"watch_window": "soon"}, "no duration"),
        ({"watch_false_alarm": 0}, "above 0 and below 1"),
        ({"log_predictions": "all"}, "log_predictions"),
    ],
)
def test_wrong_settings_are_refused(tmp_path: Path, setting: dict[str, Any], reason: str) -> None:
    with pytest.raises((ConfigError, ValidationError), match=reason):
        ServeSettings.load({"workspace": tmp_path, **setting}, environment={})
