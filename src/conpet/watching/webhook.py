"""Sends alarms to a web address, each once."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from conpet.errors import ConfigError, ConpetError
from conpet.store.prediction_log import PredictionLog
from conpet.watching.report import Signal, WatchReport

TIMEOUT_SECONDS = 10.0
ATTEMPTS = 3
_PAUSE_SECONDS = 1.0
"""Pause after the first failure; it doubles each time."""


class WebhookError(ConpetError, OSError):
    """An alarm could not be delivered."""


class _NoRedirect(HTTPRedirectHandler):
    """Follows no redirect: an alarm goes to the given address, or nowhere."""

    def redirect_request(self, *_: Any) -> None:
        """Refuse."""
        return


def check_url(url: str) -> None:
    """Raise `ConfigError` unless an address is one that alarms can be sent to."""
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname)
        _ = parts.port
    except ValueError:
        valid = False
    if not valid:
        raise ConfigError("webhook: give an address that begins with http:// or https://")


def keep_alarms(report: WatchReport, log: PredictionLog) -> None:
    """Keep the alarms of a report in the record."""
    for signal in report.alarms:
        log.keep_alarm(signal.name, report.start, signal.at or datetime.now(UTC))


def send_alarms(
    report: WatchReport,
    workspace: str,
    log: PredictionLog,
    url: str,
    *,
    pause: Callable[[float], object] = time.sleep,
) -> list[str]:
    """Send the alarms that were not sent yet, by any process; return the names of their signals.

    Args:
        report: What watching found.
        workspace: Name of the workspace.
        log: The record, which remembers what was sent.
        url: Where to.
        pause: Waits for some seconds.

    Raises:
        WebhookError: An alarm could not be delivered, after several attempts. It counts as not sent.
    """
    sent = []
    keep_alarms(report, log)
    for signal in report.alarms:
        if log.note_sent(signal.name, report.start):
            try:
                _post(url, _payload(report, signal, workspace), pause)
            except WebhookError:
                log.retract_sent(signal.name, report.start)
                raise
            sent.append(signal.name)
    return sent


def _payload(report: WatchReport, signal: Signal, workspace: str) -> dict[str, Any]:
    since = f" since {str(signal.since)[:19]} UTC" if signal.since else ""
    return {
        "event": "conpet.watch.alarm",
        "text": f"conpet, workspace {workspace}: alarm of {signal.name}{since} ({signal.meaning}). {signal.hint}",
        "workspace": workspace,
        "generation": report.generation,
        "inputs": report.inputs,
        "false_alarm": report.false_alarm,
        "signal": signal.to_json(),
    }


def _post(url: str, payload: dict[str, Any], pause: Callable[[float], object]) -> None:
    body = json.dumps(payload, ensure_ascii=False).encode()
    request = Request(url, body, {"Content-Type": "application/json", "User-Agent": "conpet"}, method="POST")  # noqa: S310 - checked
    opener = build_opener(_NoRedirect)
    reason = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            pause(_PAUSE_SECONDS * 2 ** (attempt - 1))
        try:
            with opener.open(request, timeout=TIMEOUT_SECONDS):
                return
        except HTTPError as error:
            reason = f"status {error.code}"
            error.close()
        except (OSError, HTTPException) as error:
            reason = str(getattr(error, "reason", error)) or type(error).__name__
    raise WebhookError(f"the alarm could not be sent to {urlsplit(url).hostname} after {ATTEMPTS} attempts: {reason}")
