"""Remembers what frozen modules said of inputs: neither ever changes, so evaluating again costs nothing."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Sequence

from torch import Tensor

from conpet.backbone.states import Encoded, States
from conpet.modules.module import StoredModule
from conpet.modules.pool import ModulePool


class LogitCache:
    """Runs modules through a bank, but no (module, input) pair twice while it is remembered.

    Args:
        bank: Runs what is not remembered.
        capacity: Number of pairs remembered, the least recently used forgotten first (about 300 bytes each).
    """

    def __init__(self, pool: ModulePool, capacity: int = 50_000) -> None:
        self.pool = pool
        self._capacity = capacity
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[Hashable, Encoded], Tensor] = OrderedDict()

    def outputs(self, states: States, wanted: Sequence[Sequence[StoredModule]]) -> list[dict[StoredModule, Tensor]]:
        """Return, as `ModulePool.outputs` does, each wanted module's logits of each of n examples."""
        results = [self._remembered(one, modules) for one, modules in zip(states.encoded, wanted, strict=True)]
        missing = [
            [module for module in modules if module not in found]
            for modules, found in zip(wanted, results, strict=True)
        ]
        rows = [row for row, modules in enumerate(missing) if modules]
        if rows:
            computed = self.pool.outputs(states.select(rows), [missing[row] for row in rows])
            for row, logits in zip(rows, computed, strict=True):
                results[row] |= logits
                self._remember(states.encoded[row], logits)
        return results

    def _remembered(self, encoded: Encoded, modules: Sequence[StoredModule]) -> dict[StoredModule, Tensor]:
        found = {}
        with self._lock:
            for module in modules:
                key = (module.name, encoded)
                if key in self._known:
                    self._known.move_to_end(key)
                    found[module] = self._known[key]
        return found

    def _remember(self, encoded: Encoded, logits: dict[StoredModule, Tensor]) -> None:
        with self._lock:
            for module, values in logits.items():
                self._known[module.name, encoded] = values.clone()  # not a view that keeps its whole batch alive
            while len(self._known) > self._capacity:
                self._known.popitem(last=False)
