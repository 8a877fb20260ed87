"""What interrupted attempts at a change have cost: recorded while they run, counted by the one that succeeds."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from conpet.context import Progress
from conpet.cost import LOST, RESUMED, CostLedger, StageCost, difference, total_cost

_FILE = "costs.json"
_BOOKED = "booked"
"""Key of what the workspace's ledger has of the recorded costs."""
_RECORD_SECONDS = 0.25
"""Shortest time between two records: a kill hides about this much of the cost at most."""


class Attempt:
    """One attempt at a change.

    Args:
        costs: Collects its costs.
        shown: Called with the progress, as `progress` is.
    """

    def __init__(self, costs: CostLedger, shown: Progress) -> None:
        self._costs = costs
        self._shown = shown
        self._file: Path | None = None
        self._earlier: list[StageCost] = []
        self._booked: list[StageCost] = []
        self._recorded = 0.0
        self._resumed_steps = 0

    def begin(self, folder: Path) -> None:
        """Count the attempts recorded in the folder of the change's checkpoints, and record this one there."""
        self._file = folder / _FILE
        try:
            recorded = json.loads(self._file.read_text(encoding="utf-8"))
            self._booked = [StageCost(**each) for each in recorded.pop(_BOOKED)]
            self._earlier = [StageCost(**recorded)]
        except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
            self._earlier, self._booked = [], []  # the first attempt, or cut short by a power failure

    def progress(self, stage: str, share: float) -> None:
        """Take the name of a stage and the share done, record the costs, and tell once that training was resumed."""
        self.record()
        resumed = self._costs.resumed_so_far().steps
        if resumed > self._resumed_steps:
            self._resumed_steps = resumed
            self._shown(RESUMED, share)
        self._shown(stage, share)

    def record(self, *, now: bool = False) -> None:
        """Record the cost of all attempts so far, unless that was done a moment ago.

        Args:
            now: Whether to record it in any case, as costs that the ledger has, because the attempt ends.
        """
        if self._file is None or (not now and time.monotonic() - self._recorded < _RECORD_SECONDS):
            return
        self._recorded = time.monotonic()
        total = total_cost("all", [*self._earlier, self._costs.so_far(), self._costs.resumed_so_far().share(-1)])
        booked = [total] if now else self._booked
        document = {**asdict(total), _BOOKED: [asdict(each) for each in booked]}
        aside = self._file.with_suffix(".new")
        with suppress(OSError):  # a full disk must not stop what can still succeed
            aside.write_text(json.dumps(document), encoding="utf-8")
            aside.replace(self._file)

    def own(self) -> StageCost:
        """Return what this attempt itself has spent so far."""
        resumed = self._costs.resumed_so_far()
        return difference("own", [self._costs.so_far()], [resumed, *self._lost_stages()])

    def killed(self) -> StageCost:
        """Return what earlier attempts spent that ended without telling the ledger."""
        return difference("killed", self._earlier, self._booked)

    def _lost_stages(self) -> list[StageCost]:
        return [stage for stage in self._costs.stages if stage.stage == LOST]

    def lost(self) -> Sequence[StageCost]:
        """Return what earlier attempts spent in vain; nothing if there was none."""
        if not self._earlier:
            return ()
        return (difference(LOST, self._earlier, [self._costs.resumed_so_far()]),)
