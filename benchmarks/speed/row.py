"""The contract of a row."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from benchmarks.speed.bench import Bench
from benchmarks.speed.timing import Goal, Measured


class Row(ABC):
    """A measurement of some work against a rival, with goals.

    Attributes:
        name: Its name for `--only`.
        goals: Its goals, by key of the result file.
    """

    name: ClassVar[str]
    goals: ClassVar[Mapping[str, Goal]]

    @abstractmethod
    def measure(self, bench: Bench) -> Mapping[str, Measured]:
        """Run both sides and return the measurement for each goal.

        Raises:
            UnequalError: The two sides did not compute the same.
        """
