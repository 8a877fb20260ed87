"""Alarms are sent once, to the given address only, and again if they did not arrive."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from conpet.errors import ConfigError
from conpet.store.prediction_log import PredictionLog
from conpet.watching.report import Signal, WatchReport
from conpet.watching.webhook import ATTEMPTS, WebhookError, check_url, send_alarms
from tests.helpers.webhook import receiver

NOW = datetime.now(UTC)
ALARM = Signal(
    "declined", "share of inputs that were declined", 0.2, 0.01, 900.0, 180.0, True, NOW, NOW, 50, "label some"
)
QUIET = Signal("asked", "share of questions", 0.1, 0.1, 1.0, 180.0)


def report(start: int = 1) -> WatchReport:
    return WatchReport(7, 900, 500, True, 100, NOW, NOW, start, 0.05, (QUIET, ALARM))


def test_an_alarm_is_sent_once_also_by_another_process_and_again_after_a_new_start(tmp_path: Path) -> None:
    with receiver() as (url, received):
        assert send_alarms(report(), "support", PredictionLog(tmp_path), url) == ["declined"]
        assert send_alarms(report(), "support", PredictionLog(tmp_path), url) == []
        assert send_alarms(report(start=90), "support", PredictionLog(tmp_path), url) == ["declined"]
    assert len(received) == 2
    assert received[0]["signal"] == ALARM.to_json()
    assert (received[0]["workspace"], received[0]["generation"]) == ("support", 7)
    assert "alarm of declined" in received[0]["text"]


@pytest.mark.parametrize("status", [500, 302])
def test_what_did_not_arrive_is_sent_again_later_and_redirects_are_not_followed(tmp_path: Path, status: int) -> None:
    log = PredictionLog(tmp_path)
    pauses: list[float] = []
    with receiver(status) as (url, received), pytest.raises(WebhookError, match=f"3 attempts: status {status}"):
        send_alarms(report(), "support", log, url, pause=pauses.append)
    assert (len(received), pauses) == (ATTEMPTS, [1.0, 2.0])
    with pytest.raises(WebhookError, match="after 3 attempts"):
        send_alarms(report(), "support", log, url, pause=pauses.append)  # nobody listens there any more
    with receiver() as (url, received):
        assert send_alarms(report(), "support", log, url) == ["declined"]


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/x", "host/x", "http://", "http://host:x/", ""])
def test_only_web_addresses_are_taken(url: str) -> None:
    with pytest.raises(ConfigError, match="http:// or https://"):
        check_url(url)
