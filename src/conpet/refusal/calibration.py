"""What decisions are calibrated on, as a workspace stores it; imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from conpet.errors import plural

MIN_EXAMPLES = 20
"""Fewest held-out examples of learned labels with which probabilities count as checked."""
_LEAST_RANK = 2
"""A threshold is at least the second smallest of its values: one odd example must not decide it alone."""


class Source(StrEnum):
    """Where the scores come from that the probability of belonging to something learned is fitted on."""

    VALIDATION = "validation"
    """Validation examples, which are part of no statistics."""
    TRAINING = "training"
    """Training examples that were subtracted from the statistics to score them."""
    MEANS = "means"
    """The means of the labels and of general language: there are too few examples to hold any out."""


@dataclass(frozen=True, slots=True)
class ScopeCalibration:
    """How scores become probabilities, for inputs of one kind.

    Attributes:
        source: What it was fitted on.
        known: Number of held-out examples of learned labels.
        unknown: Number of examples scored as if their label, or their task, had not been learned.
        unknown_share: Share of inputs that belong to nothing learned, as assumed in the fit.
        centre: Median score of the examples of learned labels.
        scale: Their spread below the median.
        intercept: a of the probability of belonging, `1 / (1 + exp(-(a + b asinh((score - centre) / scale))))`.
        slope: b, 0 or more.
        temperature: Divisor of the log-probabilities of the labels.
        answered: Number of held-out examples whose answers the temperature and the coverage rest on.
        scores: The scores of the held-out examples of learned labels, ascending, which inputs are compared with.
    """

    source: Source
    known: int
    unknown: int
    unknown_share: float
    centre: float
    scale: float
    intercept: float
    slope: float
    temperature: float = 1.0
    answered: int = 0
    scores: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Calibration:
    """The calibration of a state.

    Attributes:
        kinds: By kind of input.
        truth: For each label, the probability that each of its held-out examples gave to it, ascending.
    """

    kinds: Mapping[str, ScopeCalibration] = field(default_factory=dict)
    truth: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        kinds = {kind: asdict(fitted) for kind, fitted in self.kinds.items()}
        return {"kinds": kinds, "truth": {label: list(values) for label, values in self.truth.items()}}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Calibration:
        """Rebuild a calibration from `to_json`."""
        kinds = {
            kind: ScopeCalibration(
                **{**fitted, "source": Source(fitted["source"]), "scores": tuple(fitted.get("scores", ()))}
            )
            for kind, fitted in document["kinds"].items()
        }
        return cls(kinds, document["truth"])

    def thresholds(self, labels: Sequence[str], coverage: float) -> Thresholds:
        """Return the least probability with which each label is a candidate, so that coverage is reached.

        Labels with enough held-out examples have a threshold of their own; the others share that of all examples.

        Args:
            labels: Labels of one kind of input.
            coverage: The wanted share, above 0 and below 1.
        """
        pooled = conformal_threshold(sorted(value for label in labels for value in self.truth.get(label, ())), coverage)
        own = {label: conformal_threshold(self.truth.get(label, ()), coverage) for label in labels}
        return Thresholds(
            {label: (0.0 if pooled is None else pooled) if value is None else value for label, value in own.items()},
            tuple(label for label, value in own.items() if value is not None),
            pooled is not None,
        )


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Thresholds of a wanted coverage.

    Attributes:
        least: The least probability of each label as a candidate.
        promised: The labels with enough held-out examples of their own.
        pooled: Whether there are enough held-out examples over all labels.
    """

    least: Mapping[str, float]
    promised: tuple[str, ...]
    pooled: bool


def needed_examples(coverage: float) -> int:
    """Return the fewest held-out examples with which a coverage can be promised."""
    return math.ceil(round(_LEAST_RANK / (1 - coverage), 9)) - 1


def conformal_threshold(truth: Sequence[float], coverage: float) -> float | None:
    """Return the threshold that a further example's own label reaches with at least this probability.

    Split conformal prediction (Vovk et al. 2005; Sadinle et al. 2019) with its finite-sample correction: the
    `floor((n + 1) (1 - coverage))`-th smallest of n probabilities of the true label.

    Args:
        truth: The probabilities, ascending, of held-out examples that are exchangeable with the further one.
        coverage: Above 0 and below 1.

    Returns:
        None if there are too few (see `needed_examples`).
    """
    rank = math.floor(round((len(truth) + 1) * (1 - coverage), 9))
    return truth[rank - 1] if rank >= _LEAST_RANK else None


def doubt(fitted: ScopeCalibration) -> str | None:
    """Return why probabilities of one kind of input are not checked, or None if they are."""
    if fitted.known < MIN_EXAMPLES or fitted.unknown < MIN_EXAMPLES:
        have = plural(fitted.known, "held-out example")
        return f"nothing is promised: {have} of learned labels, {MIN_EXAMPLES} are needed"
    if fitted.answered < MIN_EXAMPLES:
        have = plural(fitted.answered, "validation example")
        return f"nothing is promised on which label it is: {have}, {MIN_EXAMPLES} are needed"
    return None


def no_coverage(coverage: float, answered: int, verb: str) -> str:
    """Return why a coverage cannot be promised, given the number of validation examples, and that the costs `verb`."""
    have = f"{needed_examples(coverage)} validation examples are needed, there are {answered}"
    return f"a coverage of {coverage:g} cannot be promised: {have}, so the costs {verb}"
