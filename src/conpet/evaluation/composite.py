"""The composite score: what 1,000 answers cost in money, with their errors, delays and updates. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from conpet.config import PricesConfig
from conpet.errors import ConfigError

PER = 1000
"""Number of answers that a score is for."""
_HOUR = 3600.0
_JOULES = 3.6e6
"""Joules in a kilowatt-hour."""


@dataclass(frozen=True, slots=True)
class Composite:
    """What 1,000 answers cost, in money; the weights of the settings are part of it. Lower is better.

    Attributes:
        errors: Wrong answers, or the decisions to answer, ask or decline.
        freshness: Delays until needed labels could be answered.
        updates: Learning and other changes, spread over the answers of a version.
        running: Answering and storing.
        review: People's work.
    """

    errors: float
    freshness: float = 0.0
    updates: float = 0.0
    running: float = 0.0
    review: float = 0.0

    @property
    def total(self) -> float:
        """The score."""
        return self.errors + self.freshness + self.updates + self.running + self.review

    def to_json(self) -> dict[str, float]:
        """Return a JSON-ready dictionary."""
        return {**asdict(self), "total": self.total}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Composite:
        """Rebuild a score from `to_json`."""
        return cls(**{name: value for name, value in document.items() if name != "total"})


def shown_money(amount: float) -> str:
    """Format an amount: 1234.5 is "1,234.50", and below a cent it has two digits."""
    return f"{amount:,.2f}" if not amount or abs(amount) >= 0.01 else f"{amount:.2g}"


def price_of(
    prices: PricesConfig, *, cpu_seconds: float = 0.0, gpu_seconds: float = 0.0, minutes: float = 0.0
) -> float:
    """Return the price of resources, in money; what has no price counts as nothing."""
    return (
        (prices.cpu_hour or 0.0) * cpu_seconds / _HOUR
        + (prices.gpu_hour or 0.0) * gpu_seconds / _HOUR
        + (prices.kwh or 0.0) * energy(prices, cpu_seconds=cpu_seconds, gpu_seconds=gpu_seconds)
        + (prices.review_hour or 0.0) * minutes / 60
    )


def energy(prices: PricesConfig, *, cpu_seconds: float, gpu_seconds: float) -> float:
    """Return the energy in kilowatt-hours; an estimate: power times time."""
    return (prices.cpu_watts * cpu_seconds + prices.gpu_watts * gpu_seconds) / _JOULES


def composite(
    prices: PricesConfig,
    *,
    error_rate: float,
    answers: int,
    late_days: int = 0,
    updates: float = 0.0,
    running: float = 0.0,
    review: float = 0.0,
) -> Composite:
    """Return the score of a version.

    Args:
        prices: The prices and weights.
        error_rate: Share of wrong answers, 0 to 1; or the mean cost of a decision, where an error costs 1.
        answers: Number of answers over which all other costs are spread, above 0.
        late_days: Whole days of delay, summed over labels.
        updates: Money spent on changes.
        running: Money spent on the answers and on storing.
        review: Money spent on people's work.
    """
    share = PER / answers
    return Composite(
        errors=PER * error_rate * (prices.wrong_answer or 0.0),
        freshness=share * late_days * (prices.late_day or 0.0) * prices.freshness_weight,
        updates=share * updates * prices.update_weight,
        running=share * running * prices.running_weight,
        review=share * review * prices.review_weight,
    )


def weighted_mean(scores: Sequence[tuple[Composite, int]]) -> Composite:
    """Return the mean of scores, each with its weight; at least one weight is above 0."""
    whole = sum(weight for _, weight in scores)
    return Composite(
        **{
            name: sum(getattr(score, name) * weight for score, weight in scores) / whole
            for name in ("errors", "freshness", "updates", "running", "review")
        }
    )


def require_prices(prices: PricesConfig, purpose: str) -> int:
    """Return the number of answers of a version, after checking that the settings say what a score needs.

    Args:
        prices: The prices.
        purpose: What needs the score, as the message begins.

    Raises:
        ConfigError: `wrong_answer` or `answers` is not set.
    """
    missing = {
        name: option
        for name, option in (("wrong_answer", "--wrong-answer MONEY"), ("answers", "--answers N"))
        if getattr(prices, name) is None
    }
    if missing or prices.answers is None:
        options = " ".join(missing.values())
        raise ConfigError(
            f"{purpose} needs {' and '.join(f'prices.{name}' for name in missing)}: run `conpet costs set WORKSPACE "
            f"{options}`"
        )
    return prices.answers
