"""What answering costs a server process, for the ledger of the workspace."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

from conpet.cost import Meter, Spent
from conpet.serve.metrics import Metrics
from conpet.store import CostSource, Ledger
from conpet.store.usage import Usage
from conpet.types import Prediction


class ServedUsage:
    """Counts the answers of a server process and its processor time; an `Observer` that tells the metrics, too.

    All processor time of the process counts, also that for requests and for looking for new generations.

    Args:
        ledger: The workspace's ledger.
        metrics: The process's metrics.
    """

    def __init__(self, ledger: Ledger, metrics: Metrics) -> None:
        self._usage = Usage(ledger, CostSource.SERVER)
        self._metrics = metrics
        self._lock = threading.Lock()
        self._batches = Meter()
        self._seconds = 0.0
        self._used = time.process_time()

    def batch_done(self, inputs: int, requests: int, seconds: float, cost: Meter) -> None:
        """Count a batch."""
        self._metrics.batch_done(inputs, requests, seconds, cost)
        with self._lock:
            self._batches.add(cost)
            self._seconds += seconds

    def queue_changed(self, inputs: int) -> None:
        """Tell the metrics the number of inputs that wait."""
        self._metrics.queue_changed(inputs)

    def answered(self, predictions: Iterable[Prediction]) -> None:
        """Count answers."""
        self._usage.answered(predictions)

    def flush(self, generation: int, *, suffix_share: float, gpu: bool, now: bool = False) -> None:
        """Write to the ledger what was counted, unless that was done a moment ago or nothing was answered.

        Args:
            generation: The generation that answers.
            suffix_share: As in `LedgerEntry`.
            gpu: Whether an accelerator answers.
            now: Whether to write in any case.
        """
        counted = self._seconds or self._usage.pending  # a batch is counted just after its answers
        if not counted or not (now or self._usage.due):
            return
        with self._lock:
            batches, self._batches = self._batches, Meter()
            now_used = time.process_time()
            spent = Spent(self._seconds, now_used - self._used)
            self._seconds, self._used = 0.0, now_used
        self._usage.spent(generation, spent, batches, suffix_share=suffix_share, gpu=gpu)
        self._usage.flush()
