"""Run two sides of the same work in turns, under the same load, and compute the ratio of every pair."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from statistics import median
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

Given = TypeVar("Given")
Ours = TypeVar("Ours")
Theirs = TypeVar("Theirs")


REACHED, MISSED, UNCLEAR = "reached", "not reached", "unclear"
"""Verdicts on a goal."""


class UnequalError(AssertionError):
    """The two sides did not compute the same, so their times have no meaning."""


@dataclass(frozen=True, slots=True)
class Goal:
    """The goal of a row.

    Attributes:
        work: The work of conpet.
        rival: What it is compared with.
        bound: "at least": the ratio is the rival's time (or another measure) over ours; "at most": ours over the
            rival's; "within": how much lower ours is than the rival's, in points.
        value: The bound.
    """

    work: str
    rival: str
    bound: str
    value: float

    def ratio(self, ours: float, theirs: float) -> float:
        """Return the ratio to compare with the bound."""
        return {
            "at least": lambda: theirs / ours,
            "at most": lambda: ours / theirs,
            "within": lambda: theirs - ours,
        }[self.bound]()

    def verdict(self, low: float, high: float) -> str:
        """Return the verdict for the quartiles of the ratios: unclear if the bound is between them."""
        enough = [ratio >= self.value if self.bound == "at least" else ratio <= self.value for ratio in (low, high)]
        return REACHED if all(enough) else UNCLEAR if any(enough) else MISSED


@dataclass(frozen=True, slots=True)
class Measured:
    """The measurement for a goal: one value per side and pair.

    Attributes:
        ours: Values of conpet.
        theirs: Values of the rival.
        equal: What was checked to be equal, with the largest difference.
        unit: Unit of the values: "s", "MB" or "%".
        cpu: Processor seconds of both sides, by pair, if the unit is "s".
        detail: Further details (JSON-ready).
    """

    ours: Sequence[float]
    theirs: Sequence[float]
    equal: str
    unit: str = "s"
    cpu: tuple[Sequence[float], Sequence[float]] | None = None
    detail: dict[str, Any] = field(default_factory=dict)

    def to_json(self, goal: Goal) -> dict[str, Any]:
        """Return the measurement with medians and quartiles, in the form that `verdict` reads."""
        ratios = [goal.ratio(*pair) for pair in zip(self.ours, self.theirs, strict=True)]
        summary = {
            "work": goal.work,
            "rival": goal.rival,
            "bound": goal.bound,
            "wanted": goal.value,
            "ratio": spread(ratios),
            "unit": self.unit,
            "ours": spread(self.ours),
            "theirs": spread(self.theirs),
            "equal": self.equal,
            "detail": self.detail,
        }
        if self.cpu:
            summary["cpu_ratio"] = spread([goal.ratio(*pair) for pair in zip(*self.cpu, strict=True)])
        return summary


def verdict(row: Mapping[str, Any]) -> str:
    """Return whether a row of a result file reached its bound: "reached", "not reached" or "unclear"."""
    goal = Goal(row["work"], row["rival"], row["bound"], row["wanted"])
    return goal.verdict(row["ratio"]["low"], row["ratio"]["high"])


@dataclass(frozen=True, slots=True)
class Pairs(Generic[Given, Ours, Theirs]):
    """Runs of both sides, pair by pair.

    Attributes:
        given: Inputs of both sides.
        ours: Results of conpet.
        theirs: Results of the rival.
        seconds: Wall time of both sides.
        cpu: Processor time of both sides.
        profile: Profile of both sides, if requested.
    """

    given: list[Given]
    ours: list[Ours]
    theirs: list[Theirs]
    seconds: tuple[list[float], list[float]]
    cpu: tuple[list[float], list[float]]
    profile: list[dict[str, Any]] = field(default_factory=list)

    def measured(self, equal: str, **detail: Any) -> Measured:
        """Return the times as a measurement."""
        if self.profile:
            detail["profile"] = self.profile
        return Measured(*self.seconds, equal, cpu=self.cpu, detail=detail)


def in_turns(
    prepare: Callable[[int], Given],
    ours: Callable[[Given], Ours],
    theirs: Callable[[Given], Theirs],
    pairs: int,
    *,
    warm: bool = True,
    profile: Callable[[Sequence[Callable[[], Any]]], list[dict[str, Any]]] | None = None,
) -> Pairs[Given, Ours, Theirs]:
    """Run both sides in turns: A B, B A, A B, ...

    Args:
        prepare: Returns the inputs for the pair with this number; not timed.
        ours: Runs conpet.
        theirs: Runs the rival.
        pairs: Number of pairs.
        warm: Whether to run and discard a pair with number -1 first, to load what is loaded once.
        profile: Profiles both sides of one more pair (`profiling.profiled`).
    """
    collected: Pairs[Given, Ours, Theirs] = Pairs([], [], [], ([], []), ([], []))
    sides: tuple[tuple[Callable[[Given], Any], list[Any]], ...] = ((ours, collected.ours), (theirs, collected.theirs))
    for number in range(-1 if warm else 0, pairs):
        given = prepare(number)
        for side in (0, 1) if number % 2 == 0 else (1, 0):
            run, results = sides[side]
            result, seconds, cpu = timed(run, given)
            if number >= 0:
                results.append(result)
                collected.seconds[side].append(seconds)
                collected.cpu[side].append(cpu)
        if number >= 0:
            collected.given.append(given)
    if profile:
        given = prepare(pairs)
        collected.profile.extend(profile([lambda: ours(given), lambda: theirs(given)]))
    return collected


def timed(run: Callable[..., Any], *arguments: Any) -> tuple[Any, float, float]:
    """Return the result of a call, its wall seconds and its processor seconds, including CUDA work."""
    synchronise()
    cpu, started = time.process_time(), time.perf_counter()
    result = run(*arguments)
    synchronise()
    return result, time.perf_counter() - started, time.process_time() - cpu


def synchronise() -> None:
    """Wait for what was started on a CUDA device, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Return median, quartiles and all values."""
    low, high = np.percentile(values, [25, 75])
    return {"median": median(values), "low": float(low), "high": float(high), "values": list(values)}


def check_close(what: str, ours: Tensor, theirs: Tensor, tolerance: float) -> str:
    """Return how far two results are apart, in shares of the largest value (or of 1, if that is more).

    Raises:
        UnequalError: They are further apart than the tolerance, or not of one shape.
    """
    ours, theirs = ours.detach().float().cpu(), theirs.detach().float().cpu()
    if ours.shape != theirs.shape:
        raise UnequalError(f"{what}: {tuple(ours.shape)} here, {tuple(theirs.shape)} there")
    apart = float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1))
    if not apart <= tolerance:  # also where it is not a number
        raise UnequalError(f"{what}: {apart:.2g} apart, {tolerance:g} allowed")
    return f"{what} ({apart:.1e} apart)"


def check_same(what: str, ours: Sequence[Any], theirs: Sequence[Any]) -> str:
    """Return that two sequences are equal.

    Raises:
        UnequalError: They are not.
    """
    for here, there in zip_longest(ours, theirs):
        if here != there:
            raise UnequalError(f"{what}: {here!r} here, {there!r} there")
    return f"{what} (the same)"


def load() -> float:
    """Return the machine's load: the mean number of processes that wanted to run in the last minute."""
    return round(os.getloadavg()[0], 2)
