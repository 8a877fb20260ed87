"""Many modules in one pass: a suffix whose rows each use the module they need, nothing switched globally."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from conpet.backbone.backbone import Backbone
from conpet.backbone.states import Batch, States
from conpet.pet.module import ModuleWeights, StoredModule, at_slots

SUFFIX_TOKENS = 2048
"""Padded tokens of one suffix batch."""

_rows: ContextVar[Tensor | int] = ContextVar("conpet_bank_rows")
"""The slot each row of the current call uses, `[n]`, or one slot for all rows."""


class BankedLinear(nn.Module):
    """A frozen linear map with a stack of LoRA updates, of which every row of the input takes its own.

    Args:
        base: The frozen map.
        slots: Number of updates the stack holds.
        rank: Rank they are padded to.
    """

    def __init__(self, base: nn.Linear, slots: int, rank: int) -> None:
        super().__init__()
        self.base = base
        like = base.weight
        self.down = torch.zeros(slots, base.in_features, rank, dtype=like.dtype, device=like.device)
        self.up = torch.zeros(slots, rank, base.out_features, dtype=like.dtype, device=like.device)

    def put(self, slot: int, maps: tuple[Tensor, Tensor] | None) -> None:
        """Write an update (A `[r, in]`, scaled B `[out, r]`) into a slot; None leaves the base map as it is."""
        self.down[slot].zero_()
        self.up[slot].zero_()
        if maps is not None:
            down, up = maps
            self.down[slot, :, : len(down)] = down.T.to(self.down)
            self.up[slot, : len(down)] = up.T.to(self.up)

    def forward(self, hidden: Tensor) -> Tensor:
        rows = _rows.get()
        output = self.base(hidden)
        if hidden.dim() != 3:  # a model that flattens its tokens: each row's tokens follow one another
            rows = rows if isinstance(rows, int) else rows.repeat_interleave(len(hidden) // len(rows))
            hidden = hidden.unsqueeze(1)
            return output + self._update(hidden, rows).squeeze(1)
        return output + self._update(hidden, rows)

    def _update(self, hidden: Tensor, rows: Tensor | int) -> Tensor:
        if isinstance(rows, int):
            return (hidden @ self.down[rows]) @ self.up[rows]
        return torch.bmm(torch.bmm(hidden, self.down[rows]), self.up[rows])


@dataclass(slots=True)
class _Resident:
    slot: int
    weight: Tensor
    bias: Tensor
    users: int = 0


class ModuleBank:
    """Holds a bounded number of modules in memory and runs any mixture of them in one pass.

    Safe for threads: a call pins the modules it uses, and slots are refilled only when nobody uses them.

    Args:
        backbone: The frozen model.
        capacity: Number of modules held at most.
    """

    def __init__(self, backbone: Backbone, capacity: int = 64) -> None:
        self._backbone = backbone
        self.capacity = capacity
        self._lock = threading.Condition()
        self._resident: OrderedDict[StoredModule, _Resident] = OrderedDict()
        self._suffix = backbone.suffix()
        self._maps: dict[str, BankedLinear] = {}
        self._slots = 0
        self._rank = 0

    def logits(self, states: States, wanted: Sequence[Sequence[StoredModule]]) -> list[dict[StoredModule, Tensor]]:
        """Run the modules each example wants.

        Args:
            states: Prefix states of n examples.
            wanted: Per example the keys of the modules to run, possibly none.

        Returns:
            Per example, key to logits `[labels]`, float32, over the module's own labels.
        """
        results: list[dict[StoredModule, Tensor]] = [{} for _ in wanted]
        for indices, keys in self._batches(states, wanted):
            with self._pinned(list(dict.fromkeys(keys))) as residents:
                batch = states.collate(indices, pad=self._backbone.encoder.pad, device=self._backbone.device)
                represented = self._represent(batch, [residents[key].slot for key in keys])
                for row, logits in _apply_heads(represented, [residents[key] for key in keys]):
                    results[indices[row]][keys[row]] = logits
        return results

    def _batches(
        self, states: States, wanted: Sequence[Sequence[StoredModule]]
    ) -> Iterator[tuple[list[int], list[StoredModule]]]:
        """Cut all (example, module) pairs into batches of like length that need at most `capacity` modules."""
        pairs = [(index, key) for index, keys in enumerate(wanted) for key in keys]
        pairs.sort(key=lambda pair: len(states.encoded[pair[0]].ids))
        indices: list[int] = []
        keys: list[StoredModule] = []
        distinct: set[StoredModule] = set()
        for index, key in pairs:
            length = len(states.encoded[index].ids)
            too_many = key not in distinct and len(distinct) == self.capacity
            if indices and (too_many or length * (len(indices) + 1) > SUFFIX_TOKENS):
                yield indices, keys
                indices, keys, distinct = [], [], set()
            indices.append(index)
            keys.append(key)
            distinct.add(key)
        if indices:
            yield indices, keys

    def _represent(self, batch: Batch, slots: list[int]) -> Tensor:
        rows: Tensor | int = slots[0]
        if len(set(slots)) > 1:
            rows = torch.tensor(slots, device=self._backbone.device)
        token = _rows.set(rows)
        try:
            with torch.inference_mode():
                self._backbone.meter.tokens += int(batch.mask.sum()) * self._backbone.suffix_share
                return at_slots(self._suffix(batch.ids, batch.mask, batch.hidden), batch.slots)
        finally:
            _rows.reset(token)

    @contextmanager
    def _pinned(self, keys: Sequence[StoredModule]) -> Iterator[dict[StoredModule, _Resident]]:
        """Bring all modules of a call into memory and keep them there while it runs."""
        with self._lock:
            while not self._bring(keys):
                self._lock.wait()  # we hold no module while waiting, so those who do will finish
            found = {key: self._resident[key] for key in keys}
            for key, resident in found.items():
                resident.users += 1
                self._resident.move_to_end(key)
        try:
            yield found
        finally:
            with self._lock:
                for resident in found.values():
                    resident.users -= 1
                self._lock.notify_all()

    def _bring(self, keys: Sequence[StoredModule]) -> bool:
        """Load what is missing; False if slots or stacks others are using stand in the way. The lock is held."""
        missing = {key: key.weights() for key in keys if key not in self._resident}
        if not missing:
            return True
        rank = max((len(down) for weights in missing.values() for down, _ in weights.maps.values()), default=1)
        maps = dict.fromkeys(name for weights in missing.values() for name in weights.maps)
        together = len(set(keys) | set(self._resident))
        if rank > self._rank or not maps.keys() <= self._maps.keys() or self._slots < min(together, self.capacity):
            if any(resident.users for resident in self._resident.values()):
                return False
            self._rebuild(maps, max(rank, self._rank), together)
            missing = {key: key.weights() for key in keys}
        idle = [key for key, resident in self._resident.items() if not resident.users and key not in keys]
        free = set(range(self._slots)) - {resident.slot for resident in self._resident.values()}
        if len(free) + len(idle) < len(missing):
            return False
        for key in idle[: max(0, len(missing) - len(free))]:
            free.add(self._resident.pop(key).slot)
        for key, weights in missing.items():
            self._place(key, weights, free.pop())
        return True

    def _place(self, key: StoredModule, weights: ModuleWeights, slot: int) -> None:
        for name, banked in self._maps.items():
            banked.put(slot, weights.maps.get(name))
        device = self._backbone.device
        self._resident[key] = _Resident(slot, weights.weight.float().to(device), weights.bias.float().to(device))

    def _rebuild(self, maps: Iterable[str], rank: int, modules: int) -> None:
        """Make empty stacks for more maps, a higher rank or more modules; nobody is using the present ones."""
        self._resident.clear()
        self._rank = rank
        self._slots = min(self.capacity, max(4, 2 * modules))
        for name in dict.fromkeys([*self._maps, *maps]):
            base = self._maps[name].base if name in self._maps else self._suffix.shell.get_submodule(name)
            assert isinstance(base, nn.Linear)  # noqa: S101
            self._maps[name] = BankedLinear(base, self._slots, self._rank)
            parent, _, leaf = name.rpartition(".")
            setattr(self._suffix.shell.get_submodule(parent), leaf, self._maps[name])


def _apply_heads(represented: Tensor, residents: Sequence[_Resident]) -> Iterator[tuple[int, Tensor]]:
    """Apply each row's own head; rows of one module together."""
    rows_of: dict[int, list[int]] = {}
    for row, resident in enumerate(residents):
        rows_of.setdefault(resident.slot, []).append(row)
    for rows in rows_of.values():
        resident = residents[rows[0]]
        logits = torch.nn.functional.linear(represented[rows], resident.weight, resident.bias).cpu()
        yield from zip(rows, logits, strict=True)
