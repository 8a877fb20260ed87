"""The contract of a row."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from benchmarks.speed.bench import Bench
from benchmarks.speed.timing import Goal, Measured


class Row(ABC):
    """Some work, what it is measured against, and what is to be reached.

    Attributes:
        name: What `--only` calls it.
        goals: What it measures, by key of the result file.
    """

    name: ClassVar[str]
    goals: ClassVar[Mapping[str, Goal]]

    @abstractmethod
    def measure(self, bench: Bench) -> Mapping[str, Measured]:
        """Run both sides and return what was measured for each goal.

        Raises:
            UnequalError: The two sides did not compute the same.
        """
