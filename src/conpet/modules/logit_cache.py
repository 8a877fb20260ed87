"""Cache of module outputs. Modules and inputs never change, so evaluating again costs nothing."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from conpet.backbone.states import Encoded, States
from conpet.cost import meter
from conpet.modules.module import StoredModule
from conpet.modules.pool import ModulePool


class LogitCache:
    """Runs modules in a pool and caches their logits by (module, input) pair.

    Args:
        pool: Runs modules on inputs that are not cached.
        capacity: Most cached pairs; the least recently used are dropped first. A pair takes about 300 bytes, and 4
            more for each logit.
    """

    def __init__(self, pool: ModulePool, capacity: int = 50_000) -> None:
        self.pool = pool
        self._capacity = capacity
        self._lock = threading.Lock()
        self._logits: OrderedDict[tuple[Hashable, bytes], bytes] = OrderedDict()

    def outputs(self, states: States, requested: Sequence[Sequence[StoredModule]]) -> list[dict[StoredModule, Tensor]]:
        """Return the logits of each requested module for each of n examples, like `ModulePool.outputs`."""
        results: list[dict[StoredModule, Tensor]] = [{} for _ in requested]
        asked = [row for row, modules in enumerate(requested) if modules]
        if not asked:
            return results
        states = states if len(asked) == len(states) else states.select(asked)
        missing: dict[int, list[StoredModule]] = {}
        for index, row in enumerate(asked):
            results[row] = self._cached(states.encoded[index], requested[row])
            if left := [module for module in requested[row] if module not in results[row]]:
                missing[index] = left
        costs = meter()
        costs.output_lookups += sum(map(len, requested))
        costs.output_hits += sum(map(len, results))
        if missing:
            computed = self.pool.outputs(states.select(list(missing)), list(missing.values()))
            for index, logits in zip(missing, computed, strict=True):
                results[asked[index]] |= logits
                self._put(states.encoded[index], logits)
        return results

    def _cached(self, encoded: Encoded, modules: Sequence[StoredModule]) -> dict[StoredModule, Tensor]:
        cached = {}
        digest = _digest(encoded)
        with self._lock:
            for module in modules:
                key = (module.name, digest)
                if key in self._logits:
                    self._logits.move_to_end(key)
                    cached[module] = torch.frombuffer(bytearray(self._logits[key]), dtype=torch.float32)
        return cached

    def _put(self, encoded: Encoded, logits: dict[StoredModule, Tensor]) -> None:
        digest = _digest(encoded)
        with self._lock:
            for module, values in logits.items():
                self._logits[module.name, digest] = values.float().numpy().tobytes()
            while len(self._logits) > self._capacity:
                self._logits.popitem(last=False)


def _digest(encoded: Encoded) -> bytes:
    """Return a key of an example: many of them stay in the cache, and token ids would take most of its memory."""
    parts = (encoded.ids, encoded.slot, encoded.spans, encoded.key)
    return hashlib.blake2b(repr(parts).encode(), digest_size=20).digest()
