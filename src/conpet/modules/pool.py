"""Run many modules in one pass: each row of a batch uses its own module, without any global switch."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from conpet.backbone.backbone import Backbone
from conpet.backbone.states import Batch, States
from conpet.cost import meter
from conpet.errors import CorruptionError
from conpet.heads.stored import StoredHead
from conpet.modules.adapter import MapUpdate
from conpet.modules.batched_linear import BatchedLinear, Shapes, bytes_of, room_for, shapes_of, using
from conpet.modules.grouped_matmul import GroupedMatmul, SingleMatmul, matmul_of, piece_size
from conpet.modules.module import PetModule, StoredModule

_MIN_SLOTS = 4
KEPT_BYTES = 512 * 1024**2
"""Modules stay in memory up to this size, even if no pass needs that many."""


@dataclass(frozen=True, slots=True, eq=False)
class _Weights:
    """Weights of a stored module, read before it takes a slot.

    Attributes:
        maps: Updates of linear maps, by path in the backbone.
        head: The module's head.
    """

    maps: Mapping[str, MapUpdate]
    head: StoredHead


@dataclass(slots=True)
class _Resident:
    slot: int
    head: StoredHead
    users: int = 0


@dataclass(frozen=True, slots=True)
class _UnbatchedModule:
    """A module whose kind cannot share a pass, in its own suffix."""

    module: PetModule
    head: StoredHead


class ModulePool:
    """Holds a bounded number of modules in memory and runs any mixture of them.

    Rows with different modules share one pass if their kinds allow it (`ModuleKind.batched`); modules of other kinds
    run one by one, each in its own suffix.

    Safe for threads: a call pins the modules it uses, and a slot is refilled only when it is unused. Calls that need
    modules that are not in memory wait in a queue, so that no call is starved by others.

    Args:
        backbone: The frozen model.
        capacity: Most modules in one pass; at least this many are kept in memory, and at most this many unbatched ones.
        kept_bytes: More modules are kept as long as all of them take no more memory than this.
    """

    def __init__(self, backbone: Backbone, capacity: int = 128, kept_bytes: int = KEPT_BYTES) -> None:
        self._backbone = backbone
        self.capacity = capacity
        self._kept_bytes = kept_bytes
        self._entrance = threading.Lock()
        self._lock = threading.Condition()
        # By name: keeping a `StoredModule` would keep the version of the workspace it was read from.
        self._resident: OrderedDict[Hashable, _Resident] = OrderedDict()
        self._unbatched: OrderedDict[Hashable, _UnbatchedModule] = OrderedDict()
        self._suffix = backbone.suffix()
        self._bases = {path: m for path, m in self._suffix.shell.named_modules() if isinstance(m, nn.Linear)}
        self._maps: dict[str, BatchedLinear] = {}
        self._slots = 0
        self._matrix_bytes = 0.0  # average size of one of a module's two matrices per map

    def outputs(self, states: States, requested: Sequence[Sequence[StoredModule]]) -> list[dict[StoredModule, Tensor]]:
        """Run the requested modules on each example.

        Args:
            states: Prefix states of n examples.
            requested: The modules to run on each example, possibly none.

        Returns:
            For each example, the outputs `[O]`, float32, of each module's head.
        """
        results: list[dict[StoredModule, Tensor]] = [{} for _ in requested]
        batched = [[key for key in keys if key.kind.batched] for keys in requested]
        for pieces in self._batches(states, batched):
            rows = [row for _, piece_rows in pieces for row in piece_rows]
            with self._pinned(list(dict.fromkeys(key for key, _ in pieces))) as residents:
                batch = self._backbone.collate(states, rows)
                shares = [(residents[key], len(piece_rows)) for key, piece_rows in pieces]
                represented = self._represent(batch, [(resident.slot, count) for resident, count in shares])
                for (key, piece_rows), outputs in zip(pieces, _apply_heads(represented, shares), strict=True):
                    for row, values in zip(piece_rows, outputs, strict=True):
                        results[row][key] = values
        for row, key, outputs in self._unbatched_outputs(states, requested):
            results[row][key] = outputs
        return results

    def damage(self, module: StoredModule) -> CorruptionError | None:
        """Return why a module cannot be read from disk; None if it can, or is in memory."""
        if module.name in self._resident or module.name in self._unbatched:
            return None
        try:
            module.adapter()
            StoredHead.read(module.reader)
        except CorruptionError as error:
            return error
        return None

    def represent(self, states: States, module: StoredModule | None) -> Tensor:
        """Return the representations `[n, R]`, float32, of n examples by one module, or by the frozen suffix (None)."""
        represented = torch.empty(len(states), self._backbone.representation_size, dtype=torch.float32)
        with self._runner(module) as run:
            for rows, batch in self._backbone.batches(states):
                represented[rows] = run(batch)[: len(rows)].cpu()
        return represented

    @contextmanager
    def _runner(self, module: StoredModule | None) -> Iterator[Callable[[Batch], Tensor]]:
        """Yield a function that represents batches by one module."""
        if module is None:
            yield lambda batch: self._represent(batch, None)
        elif module.kind.batched:
            with self._pinned([module]) as residents:
                yield lambda batch: self._represent(batch, [(residents[module].slot, len(batch.ids))])
        else:
            unbatched = self._unbatched_module(module)
            with torch.inference_mode():
                yield unbatched.module.represent

    def _unbatched_outputs(
        self, states: States, requested: Sequence[Sequence[StoredModule]]
    ) -> Iterator[tuple[int, StoredModule, Tensor]]:
        """Run the modules that cannot share a pass, one by one; yield row, key and outputs."""
        rows_of: dict[StoredModule, list[int]] = {}
        for row, keys in enumerate(requested):
            for key in keys:
                if not key.kind.batched:
                    rows_of.setdefault(key, []).append(row)
        for key, rows in rows_of.items():
            unbatched = self._unbatched_module(key)
            represented = self.represent(states.select(rows), key).to(self._backbone.device)
            for row, outputs in zip(rows, unbatched.head.outputs(represented), strict=True):
                yield row, key, outputs.cpu()

    def _unbatched_module(self, key: StoredModule) -> _UnbatchedModule:
        """Return a module in its own suffix; the most recently used ones are kept."""
        with self._lock:
            module = self._unbatched.get(key.name)
            if module is None:
                head = StoredHead.read(key.reader, self._backbone.device)
                module = _UnbatchedModule(PetModule.of(self._backbone, key.adapter()), head)
                while len(self._unbatched) >= self.capacity:
                    self._unbatched.popitem(last=False)  # a thread that is running it still holds a reference
                self._unbatched[key.name] = module
            self._unbatched.move_to_end(key.name)
            return module

    def _batches(
        self, states: States, requested: Sequence[Sequence[StoredModule]]
    ) -> Iterator[list[tuple[StoredModule, list[int]]]]:
        """Divide all (example, module) pairs into batches of similar length that need at most `capacity` modules.

        A batch is a list of pieces, each with a module and its examples; pieces of equal size are adjacent.
        """
        pairs = [(index, key) for index, keys in enumerate(requested) for key in keys]
        for batch in self._backbone.batching.batches([len(states.encoded[index].ids) for index, _ in pairs]):
            rows_of: dict[StoredModule, list[int]] = {}
            for position in batch:
                index, key = pairs[position]
                rows_of.setdefault(key, []).append(index)
            modules = list(rows_of)
            for start in range(0, len(modules), self.capacity):
                part = {key: rows_of[key] for key in modules[start : start + self.capacity]}
                yield list(part.items()) if len(part) == 1 else _in_pieces(part, self._matrix_bytes)

    def _represent(self, batch: Batch, pieces: Sequence[tuple[int, int]] | None) -> Tensor:
        """Represent a batch by pieces, given as (slot, number of rows), or by the frozen suffix (None)."""
        matmul: GroupedMatmul | None = None
        if pieces:
            slots = {slot for slot, _ in pieces}
            if len(slots) == 1:
                matmul = SingleMatmul(slots.pop())
            else:
                added = len(batch.ids) - len(batch.lengths)  # rows without an example, by any module
                matmul = matmul_of([*pieces, *[(pieces[-1][0], 1)] * added], self._backbone.device)
        with using(matmul, batch.ids.shape[1]), torch.inference_mode():
            tokens = batch.tokens * self._backbone.suffix_share
            meter().tokens += tokens
            meter().module_tokens += tokens
            return self._backbone.pooling(self._suffix(batch.ids, batch.padding, batch.hidden), batch)

    @contextmanager
    def _pinned(self, keys: Sequence[StoredModule]) -> Iterator[dict[StoredModule, _Resident]]:
        """Load all modules of a call and keep them in memory while it runs."""
        # Read from disk before locking, so that other calls can run meanwhile.
        weights = {key: self._weights(key) for key in keys if key.name not in self._resident}
        with self._entrance:  # held while waiting: later calls cannot pin anything, so the running ones finish
            weights |= {
                key: self._weights(key) for key in keys if key.name not in self._resident and key not in weights
            }
            with self._lock:
                while not self._load(keys, weights):
                    self._lock.wait()
                pinned = {key: self._resident[key.name] for key in keys}
                for key, resident in pinned.items():
                    resident.users += 1
                    self._resident.move_to_end(key.name)
        try:
            yield pinned
        finally:
            with self._lock:
                for resident in pinned.values():
                    resident.users -= 1
                self._lock.notify_all()

    def _load(self, keys: Sequence[StoredModule], weights: dict[StoredModule, _Weights]) -> bool:
        """Load missing modules, given their weights; False if modules in use prevent it. Requires the lock."""
        if all(key.name in self._resident for key in keys):
            return True
        present = {name: batched.room for name, batched in self._maps.items()}
        rooms = _rooms(present, weights.values())
        slots = self._slots_for(len(self._resident.keys() | {key.name for key in keys}), rooms)
        if slots != self._slots or rooms != present:
            if any(resident.users for resident in self._resident.values()):
                return False
            self._rebuild(slots, rooms)
            dropped = [key for key in keys if key.name not in self._resident and key not in weights]
            weights |= {key: self._weights(key) for key in dropped}
        names = {key.name for key in keys}
        missing = [key for key in keys if key.name not in self._resident]
        free = set(range(self._slots)) - {resident.slot for resident in self._resident.values()}
        idle = [name for name, resident in self._resident.items() if not resident.users and name not in names]
        if len(free) + len(idle) < len(missing):
            return False
        for name in idle[: max(0, len(missing) - len(free))]:  # least recently used first
            free.add(self._resident.pop(name).slot)
        for key in missing:
            self._place(key, weights[key], free.pop())
        return True

    def _weights(self, key: StoredModule) -> _Weights:
        """Read a module and its head from disk."""
        return _Weights(key.weights(self._bases), StoredHead.read(key.reader, self._backbone.device))

    def _place(self, key: StoredModule, weights: _Weights, slot: int) -> None:
        for name, batched in self._maps.items():
            batched.put(slot, weights.maps.get(name))
        self._resident[key.name] = _Resident(slot, weights.head)

    def _slots_for(self, modules: int, rooms: Mapping[str, Shapes]) -> int:
        """Return the number of slots: the present one if sufficient, else twice as many as needed, within memory."""
        slots = self._slots if modules <= self._slots else max(_MIN_SLOTS, 2 * modules)
        bytes_per_slot = sum(bytes_of(self._bases[name], room) for name, room in rooms.items())
        return min(slots, max(self.capacity, self._kept_bytes // max(1, bytes_per_slot)))

    def _rebuild(self, slots: int, rooms: Mapping[str, Shapes]) -> None:
        """Replace the stacks; modules in them are kept unless the number of slots shrinks.

        No call may be using them. Works map by map, so that only one stack at a time exists twice.
        """
        if slots < self._slots:
            self._resident.clear()
            self._maps.clear()
        for name, room in rooms.items():
            existing = self._maps.get(name)
            self._maps[name] = (
                existing.grown(slots, room) if existing else BatchedLinear(self._bases[name], slots, room)
            )
            self._suffix.shell.set_submodule(name, self._maps[name])
        self._slots = slots
        bytes_per_map = [bytes_of(self._bases[name], room) for name, room in rooms.items()]
        self._matrix_bytes = sum(bytes_per_map) / 2 / max(1, len(bytes_per_map))


def _rooms(present: dict[str, Shapes], added: Iterable[_Weights]) -> dict[str, Shapes]:
    """Return the room each map needs, by path, for present and added modules."""
    rooms = dict(present)
    for weights in added:
        for name, update in weights.maps.items():
            rooms[name] = room_for(rooms.get(name, {}), shapes_of(update))
    return rooms


def _in_pieces(rows_of: Mapping[StoredModule, list[int]], matrix_bytes: float) -> list[tuple[StoredModule, list[int]]]:
    """Divide each module's rows into pieces; large pieces of all modules come first (see `piece_size`).

    The number of large pieces is a power of two, so that few shapes of products occur.
    """
    size = piece_size([len(rows) for rows in rows_of.values()], matrix_bytes)
    large, single = [], []
    for key, rows in rows_of.items():
        whole = len(rows) - len(rows) % size
        large += [(key, rows[start : start + size]) for start in range(0, whole, size)]
        single += [(key, [row]) for row in rows[whole:]]
    if size > 1:
        kept = 1 << (len(large).bit_length() - 1)
        single += [(key, [row]) for key, rows in large[kept:] for row in rows]
        large = large[:kept]
    return large + single


def _apply_heads(represented: Tensor, shares: Sequence[tuple[_Resident, int]]) -> Iterator[Tensor]:
    """Apply the head of each piece to its rows; yield outputs `[k, O]`."""
    start = 0
    for resident, count in shares:
        yield resident.head.outputs(represented[start : start + count]).cpu()
        start += count
