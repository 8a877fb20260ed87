"""Cache of the last result computed from a tensor."""

from __future__ import annotations

import weakref
from collections.abc import Callable

from torch import Tensor


class LastResult:
    """Caches the last result: several steps of a prediction read the same result for the same features."""

    def __init__(self) -> None:
        self._entry: tuple[weakref.ref[Tensor], Tensor] | None = None

    def of(self, tensor: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """Return `compute(tensor)`, cached while the same tensor object is passed.

        Do not change the result in place. Safe for threads.
        """
        entry = self._entry
        if entry is not None and entry[0]() is tensor:
            return entry[1]
        result = compute(tensor)
        self._entry = (weakref.ref(tensor, self._drop), result)
        return result

    def _drop(self, dead: weakref.ref[Tensor]) -> None:
        entry = self._entry
        if entry is not None and entry[0] is dead:
            self._entry = None
