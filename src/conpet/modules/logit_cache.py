"""Cache of module outputs. Modules and inputs never change, so evaluating again costs nothing."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Sequence

from torch import Tensor

from conpet.backbone.states import Encoded, States
from conpet.cost import meter
from conpet.modules.module import StoredModule
from conpet.modules.pool import ModulePool


class LogitCache:
    """Runs modules in a pool and caches their logits by (module, input) pair.

    Args:
        pool: Runs modules on inputs that are not cached.
        capacity: Most cached pairs; the least recently used are dropped first (about 300 bytes each).
    """

    def __init__(self, pool: ModulePool, capacity: int = 50_000) -> None:
        self.pool = pool
        self._capacity = capacity
        self._lock = threading.Lock()
        self._logits: OrderedDict[tuple[Hashable, Encoded], Tensor] = OrderedDict()

    def outputs(self, states: States, requested: Sequence[Sequence[StoredModule]]) -> list[dict[StoredModule, Tensor]]:
        """Return the logits of each requested module for each of n examples, like `ModulePool.outputs`."""
        results = [self._cached(example, modules) for example, modules in zip(states.encoded, requested, strict=True)]
        missing = [
            [module for module in modules if module not in cached]
            for modules, cached in zip(requested, results, strict=True)
        ]
        costs = meter()
        costs.output_lookups += sum(map(len, requested))
        costs.output_hits += sum(map(len, results))
        rows = [row for row, modules in enumerate(missing) if modules]
        if rows:
            computed = self.pool.outputs(states.select(rows), [missing[row] for row in rows])
            for row, logits in zip(rows, computed, strict=True):
                results[row] |= logits
                self._put(states.encoded[row], logits)
        return results

    def _cached(self, encoded: Encoded, modules: Sequence[StoredModule]) -> dict[StoredModule, Tensor]:
        cached = {}
        with self._lock:
            for module in modules:
                key = (module.name, encoded)
                if key in self._logits:
                    self._logits.move_to_end(key)
                    cached[module] = self._logits[key]
        return cached

    def _put(self, encoded: Encoded, logits: dict[StoredModule, Tensor]) -> None:
        with self._lock:
            for module, values in logits.items():
                self._logits[module.name, encoded] = values.clone()  # a view would keep the whole batch in memory
            while len(self._logits) > self._capacity:
                self._logits.popitem(last=False)
