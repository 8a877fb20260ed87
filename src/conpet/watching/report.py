"""What watching found, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from conpet.config.duration import seconds_of
from conpet.errors import ConfigError

REFERENCE = WINDOW = 500
"""Default numbers of inputs."""
LEAST_REFERENCE = 50
"""Fewest inputs of a reference."""


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """How to watch; see `ConPET.watch`.

    Attributes:
        false_alarm: Probability that there is ever an alarm if nothing changes, over all signals, above 0 and below 1.
        reference: Number of first inputs, or seconds from the first one, that the later ones are compared with.
        reference_seconds: Whether `reference` is in seconds.
        window: Number of last inputs, or seconds up to the last one, whose values are shown.
        window_seconds: Whether `window` is in seconds.
    """

    false_alarm: float = 0.05
    reference: float = REFERENCE
    reference_seconds: bool = False
    window: float = WINDOW
    window_seconds: bool = False

    @classmethod
    def of(
        cls, false_alarm: float = 0.05, reference: int | str = REFERENCE, window: int | str = WINDOW
    ) -> WatchOptions:
        """Check and return the options; `reference` and `window` are numbers of inputs, or durations like 24h.

        Raises:
            ConfigError: A value is out of range.
        """
        if not 0 < false_alarm < 1:
            raise ConfigError(f"false_alarm={false_alarm!r}: give a probability above 0 and below 1")
        return cls(false_alarm, *_extent(reference, "reference"), *_extent(window, "window"))


@dataclass(frozen=True, slots=True)
class Signal:
    """A quantity that is watched.

    Attributes:
        name: Its name: "scope", "task cards", ...
        meaning: What it is.
        value: Its value in the window.
        reference: Its value in the reference.
        evidence: The capital of the bet against "nothing has changed", 1 at the start; its highest value so far.
        threshold: The capital at which there is an alarm.
        alarm: Whether there was an alarm.
        at: Time of the alarm; None if the times of the inputs are not known.
        since: When what it found probably began.
        at_input: Number of the input at the alarm: of the entry in the record, or of the row in the file. For
            feedback, the number of right labels up to then, of the signal's task if it has one.
        since_input: Number of the input where what it found probably began.
        inputs: Inputs, or right labels, from the end of the reference to the alarm.
        hint: What to do next.
    """

    name: str
    meaning: str
    value: float | None
    reference: float | None
    evidence: float
    threshold: float
    alarm: bool = False
    at: datetime | None = None
    since: datetime | None = None
    at_input: int | None = None
    since_input: int | None = None
    inputs: int | None = None
    hint: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        document = asdict(self)
        for name in ("at", "since"):
            document[name] = document[name] and document[name].isoformat()
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Signal:
        """Rebuild a signal from `to_json`."""
        moments = {name: document[name] and datetime.fromisoformat(document[name]) for name in ("at", "since")}
        return cls(**{**document, **moments})


@dataclass(frozen=True, slots=True)
class WatchReport:
    """What watching found.

    Attributes:
        generation: The oldest generation whose answers are watched.
        inputs: Number of inputs watched, the reference included.
        reference: Number of inputs in the reference so far.
        complete: Whether the reference is complete; before, nothing is compared with it.
        window: Number of inputs in the window.
        first: Time of the first input; None without inputs, or if it is not known.
        last: Time of the last one.
        start: Number of the first entry of the record that is watched; 0 for inputs of a file.
        false_alarm: Probability of any alarm ever, if nothing changes.
        signals: The signals.
        accuracy: Accuracy by answers that are known to be right or wrong, or None.
    """

    generation: int
    inputs: int
    reference: int
    complete: bool
    window: int
    first: datetime | None
    last: datetime | None
    start: int
    false_alarm: float
    signals: tuple[Signal, ...]
    accuracy: Any = None

    @property
    def alarms(self) -> tuple[Signal, ...]:
        """The signals with an alarm."""
        return tuple(signal for signal in self.signals if signal.alarm)

    def numbered(self, numbers: Sequence[int]) -> WatchReport:
        """Return the report with other numbers for the inputs: the first becomes `numbers[0]`."""
        signals = [
            replace(one, at_input=numbers[one.at_input - 1], since_input=numbers[one.since_input - 1])
            if one.at_input is not None and one.since_input is not None
            else one
            for one in self.signals
        ]
        return replace(self, signals=tuple(signals))

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        document: dict[str, Any] = {
            name: getattr(self, name) for name in self.__slots__ if name not in ("signals", "accuracy")
        }
        for name in ("first", "last"):
            document[name] = document[name] and document[name].isoformat()
        document["alarms"] = [signal.name for signal in self.alarms]
        document["signals"] = [signal.to_json() for signal in self.signals]
        if self.accuracy is not None:
            document["accuracy"] = self.accuracy.to_json()
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> WatchReport:
        """Rebuild a report from `to_json`, without the accuracy."""
        given = {name: document[name] for name in cls.__slots__ if name not in ("signals", "accuracy")}
        moments = {name: document[name] and datetime.fromisoformat(document[name]) for name in ("first", "last")}
        return cls(**{**given, **moments}, signals=tuple(map(Signal.from_json, document["signals"])))


def _extent(value: int | str, name: str) -> tuple[float, bool]:
    """Return a number of inputs, or of seconds and True."""
    if isinstance(value, str) and not value.strip().isdecimal():
        return seconds_of(value.strip(), name), True
    least = LEAST_REFERENCE if name == "reference" else 1
    if int(value) < least:
        raise ConfigError(f"{name}={value}: give at least {least} inputs, or a duration like 24h")
    return int(value), False


def moment(seconds: float | None) -> datetime | None:
    """Return a time in seconds since 1970 as a moment in UTC; None for an unknown time."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
