"""Many modules in one pass: a suffix whose rows each use the module they need, nothing switched globally."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from conpet.backbone.backbone import Backbone
from conpet.backbone.states import Batch, States
from conpet.errors import BackboneError, CorruptionError
from conpet.pet.module import ModuleWeights, StoredModule

SUFFIX_TOKENS = 2048
"""Padded tokens of one suffix batch."""
_FEWEST_SLOTS = 4


@dataclass(frozen=True, slots=True)
class _Call:
    """What a forward call tells the banked maps.

    Attributes:
        rows: The slot each of n rows uses `[n]`, or one slot for all rows.
        tokens: Padded tokens of a row, T.
    """

    rows: Tensor | int
    tokens: int


_call: ContextVar[_Call] = ContextVar("conpet_bank_call")


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
        """Map `[n, T, in]`, or `[n * T, in]` from a model that flattens its tokens, to as many times `out`."""
        call = _call.get()
        output: Tensor = self.base(hidden)
        if isinstance(call.rows, int):
            return output + (hidden @ self.down[call.rows]) @ self.up[call.rows]
        rows, tokens = len(call.rows), call.tokens
        if hidden.shape[:-1] not in ((rows, tokens), (rows * tokens,)):
            raise BackboneError(
                f"a linear map of this architecture reads {tuple(hidden.shape)} where the batch has {rows} rows of "
                f"{tokens} tokens, so it cannot tell whose module to use: leave it out of `targets`"
            )
        by_row = hidden.reshape(rows, tokens, -1)
        update = torch.bmm(torch.bmm(by_row, self.down[call.rows]), self.up[call.rows])
        return output + update.view(output.shape)


@dataclass(slots=True)
class _Resident:
    slot: int
    weight: Tensor
    bias: Tensor
    users: int = 0


class ModuleBank:
    """Holds a bounded number of modules in memory and runs any mixture of them in one pass.

    Safe for threads: a call pins the modules it uses, and slots are refilled only when nobody uses them. Calls that
    need other modules than are in memory wait their turn, so a stream of calls cannot starve one of them.

    Args:
        backbone: The frozen model.
        capacity: Number of modules held at most.
    """

    def __init__(self, backbone: Backbone, capacity: int = 64) -> None:
        self._backbone = backbone
        self.capacity = capacity
        self._entrance = threading.Lock()
        self._lock = threading.Condition()
        # By name: to keep a module itself would keep the state of the workspace it was read from on the disk.
        self._resident: OrderedDict[Hashable, _Resident] = OrderedDict()
        self._suffix = backbone.suffix()
        self._bases = {n: m for n, m in self._suffix.shell.named_modules() if isinstance(m, nn.Linear)}
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
        token = _call.set(_Call(rows, batch.ids.shape[1]))
        try:
            with torch.inference_mode():
                self._backbone.meter.tokens += int(batch.mask.sum()) * self._backbone.suffix_share
                return self._backbone.pooling(self._suffix(batch.ids, batch.mask, batch.hidden), batch)
        finally:
            _call.reset(token)

    @contextmanager
    def _pinned(self, keys: Sequence[StoredModule]) -> Iterator[dict[StoredModule, _Resident]]:
        """Bring all modules of a call into memory and keep them there while it runs."""
        with self._entrance:  # held while waiting: whoever comes later pins nothing, so those inside will finish
            weights = {key: key.weights() for key in keys if key.name not in self._resident}
            with self._lock:
                while not self._bring(keys, weights):
                    self._lock.wait()
                found = {key: self._resident[key.name] for key in keys}
                for key, resident in found.items():
                    resident.users += 1
                    self._resident.move_to_end(key.name)
        try:
            yield found
        finally:
            with self._lock:
                for resident in found.values():
                    resident.users -= 1
                self._lock.notify_all()

    def _bring(self, keys: Sequence[StoredModule], weights: dict[StoredModule, ModuleWeights]) -> bool:
        """Place what is missing, given its weights; False while modules in use stand in the way. The lock is held."""
        if not self._fits(keys, weights.values()):
            if any(resident.users for resident in self._resident.values()):
                return False
            self._rebuild(keys, weights.values())
            weights |= {key: key.weights() for key in keys if key not in weights}
        names = {key.name for key in keys}
        missing = [key for key in keys if key.name not in self._resident]
        free = set(range(self._slots)) - {resident.slot for resident in self._resident.values()}
        idle = [name for name, resident in self._resident.items() if not resident.users and name not in names]
        if len(free) + len(idle) < len(missing):
            return False
        for name in idle[: max(0, len(missing) - len(free))]:  # the least recently used come first
            free.add(self._resident.pop(name).slot)
        for key in missing:
            self._place(key, weights[key], free.pop())
        return True

    def _place(self, key: StoredModule, weights: ModuleWeights, slot: int) -> None:
        for name, banked in self._maps.items():
            banked.put(slot, weights.maps.get(name))
        device = self._backbone.device
        self._resident[key.name] = _Resident(slot, weights.weight.float().to(device), weights.bias.float().to(device))

    def _fits(self, keys: Sequence[StoredModule], coming: Iterable[ModuleWeights]) -> bool:
        """Tell whether the stacks have the maps, the rank and, up to the capacity, the slots for what is coming."""
        together = len(self._resident.keys() | {key.name for key in keys})
        return self._slots >= min(together, self.capacity) and all(
            name in self._maps and len(down) <= self._rank
            for weights in coming
            for name, (down, _) in weights.maps.items()
        )

    def _rebuild(self, keys: Sequence[StoredModule], coming: Iterable[ModuleWeights]) -> None:
        """Make empty stacks with room for what is coming; nobody is using the present ones."""
        maps = [(name, len(down)) for weights in coming for name, (down, _) in weights.maps.items()]
        unknown = sorted({name for name, _ in maps} - self._bases.keys())
        if unknown:
            raise CorruptionError(f"a stored module changes {unknown[0]}, which is no linear map above the cut")
        rank = max([self._rank, *(rank for _, rank in maps)])
        slots = min(self.capacity, max(_FEWEST_SLOTS, 2 * len(self._resident.keys() | {key.name for key in keys})))
        names = dict.fromkeys([*self._maps, *(name for name, _ in maps)])
        fresh = {name: BankedLinear(self._bases[name], slots, rank) for name in names}
        self._resident.clear()
        self._rank, self._slots, self._maps = rank, slots, fresh
        for name, banked in fresh.items():
            parent, _, leaf = name.rpartition(".")
            setattr(self._suffix.shell.get_submodule(parent), leaf, banked)


def _apply_heads(represented: Tensor, residents: Sequence[_Resident]) -> Iterator[tuple[int, Tensor]]:
    """Apply each row's own head; rows of one module together."""
    rows_of: dict[int, list[int]] = {}
    for row, resident in enumerate(residents):
        rows_of.setdefault(resident.slot, []).append(row)
    for rows in rows_of.values():
        resident = residents[rows[0]]
        logits = torch.nn.functional.linear(represented[rows], resident.weight, resident.bias).cpu()
        yield from zip(rows, logits, strict=True)
