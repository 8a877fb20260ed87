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
        digest = _digest(encoded) if modules else b""
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
