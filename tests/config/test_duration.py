"""Durations and moments as users write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from conpet.config.duration import days_of, moment_of, seconds_of
from conpet.errors import ConfigError


def test_durations_have_the_same_units_everywhere() -> None:
    assert [seconds_of(text, "age") for text in ("90d", "1.5h", "30m", "2w", "1y")] == [
        *(7_776_000.0, 5400.0, 1800.0, 1_209_600.0, 31_536_000.0)
    ]
    assert [days_of(text, "age") for text in ("365d", "48h", "1y")] == [timedelta(365), timedelta(2), timedelta(365)]


def test_a_moment_is_a_day_a_time_or_a_duration_before_now() -> None:
    assert moment_of("2026-11-29", "since") == datetime(2026, 11, 29, tzinfo=UTC)
    assert moment_of("2026-11-29T10:00+02:00", "since") == datetime(2026, 11, 29, 8, tzinfo=UTC)
    assert abs(moment_of("7d", "since") - (datetime.now(UTC) - timedelta(7))) < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("wrong", "said"), [("soon", "no duration"), ("36h", "whole number"), ("99999999y", "too long")]
)
def test_what_is_no_duration_is_refused(wrong: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        days_of(wrong, "--older-than")
    if wrong != "36h":
        with pytest.raises(ConfigError, match="--since"):
            moment_of(wrong, "--since")
