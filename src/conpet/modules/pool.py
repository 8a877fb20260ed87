"""Many modules in one pass: a suffix whose rows each use the module they need, nothing switched globally."""

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
from conpet.heads.stored import StoredHead
from conpet.modules.adapter import MapUpdate
from conpet.modules.batched_linear import BatchedLinear, Shapes, bytes_of, room_for, shapes_of, using
from conpet.modules.grouped_matmul import GroupedMatmul, OneForAll, mixed, piece_size
from conpet.modules.module import PetModule, StoredModule

_FEWEST_SLOTS = 4
KEPT_BYTES = 512 * 1024**2
"""Memory up to which modules stay there, though no pass needs so many."""


@dataclass(frozen=True, slots=True, eq=False)
class _Weights:
    """What is read of a stored module before it takes a slot.

    Attributes:
        maps: Path of a linear map in the backbone to what the module does to it.
        head: Its head.
    """

    maps: Mapping[str, MapUpdate]
    head: StoredHead


@dataclass(slots=True)
class _Resident:
    slot: int
    head: StoredHead
    users: int = 0


@dataclass(frozen=True, slots=True)
class _Alone:
    """A module of a kind that shares no pass with others, in a suffix of its own."""

    module: PetModule
    head: StoredHead


class ModulePool:
    """Holds a bounded number of modules in memory and runs any mixture of them.

    Rows that use different modules share one pass where the kinds allow it (`ModuleKind.batched`); the others are run
    module by module, each in a suffix of its own.

    Safe for threads: a call pins the modules it uses, and slots are refilled only when nobody uses them. Calls that
    need other modules than are in memory wait their turn, so a stream of calls cannot starve one of them.

    Args:
        backbone: The frozen model.
        capacity: Number of modules that one pass may need at most; so many are held, and of those that are run by
            themselves no more.
        kept_bytes: Modules beyond that are held as long as all together take no more memory.
    """

    def __init__(self, backbone: Backbone, capacity: int = 128, kept_bytes: int = KEPT_BYTES) -> None:
        self._backbone = backbone
        self.capacity = capacity
        self._kept_bytes = kept_bytes
        self._entrance = threading.Lock()
        self._lock = threading.Condition()
        # By name: to keep a module itself would keep the state of the workspace it was read from on the disk.
        self._resident: OrderedDict[Hashable, _Resident] = OrderedDict()
        self._alone: OrderedDict[Hashable, _Alone] = OrderedDict()
        self._suffix = backbone.suffix()
        self._bases = {n: m for n, m in self._suffix.shell.named_modules() if isinstance(m, nn.Linear)}
        self._maps: dict[str, BatchedLinear] = {}
        self._slots = 0
        self._matrix_bytes = 0.0  # of one of the two matrices that a module has on a map, on average

    def outputs(self, states: States, wanted: Sequence[Sequence[StoredModule]]) -> list[dict[StoredModule, Tensor]]:
        """Run the modules each example wants.

        Args:
            states: Prefix states of n examples.
            wanted: Per example the keys of the modules to run, possibly none.

        Returns:
            Per example, module to its head's outputs `[O]`, float32.
        """
        results: list[dict[StoredModule, Tensor]] = [{} for _ in wanted]
        together = [[key for key in keys if key.kind.batched] for keys in wanted]
        for pieces in self._batches(states, together):
            rows = [row for _, some in pieces for row in some]
            with self._pinned(list(dict.fromkeys(key for key, _ in pieces))) as residents:
                batch = states.collate(rows, pad=self._backbone.encoder.pad, device=self._backbone.device)
                shares = [(residents[key], len(some)) for key, some in pieces]
                represented = self._represent(batch, [(resident.slot, count) for resident, count in shares])
                for (key, some), outputs in zip(pieces, _apply_heads(represented, shares), strict=True):
                    for row, values in zip(some, outputs, strict=True):
                        results[row][key] = values
        for row, key, outputs in self._alone_outputs(states, wanted):
            results[row][key] = outputs
        return results

    def represent(self, states: States, module: StoredModule | None) -> Tensor:
        """Return the representations `[n, R]`, float32, of n examples by one module, or by the frozen suffix (None)."""
        represented = torch.empty(len(states), self._backbone.representation_size)
        with self._runner(module) as run:
            for indices in self._backbone.batching.batches([len(one.ids) for one in states.encoded]):
                batch = states.collate(indices, pad=self._backbone.encoder.pad, device=self._backbone.device)
                represented[indices] = run(batch).cpu()
        return represented

    @contextmanager
    def _runner(self, module: StoredModule | None) -> Iterator[Callable[[Batch], Tensor]]:
        """Yield what represents batches by one module."""
        if module is None:
            yield lambda batch: self._represent(batch, None)
        elif module.kind.batched:
            with self._pinned([module]) as residents:
                yield lambda batch: self._represent(batch, [(residents[module].slot, len(batch.ids))])
        else:
            alone = self._by_itself(module)
            with torch.inference_mode():
                yield alone.module.represent

    def _alone_outputs(
        self, states: States, wanted: Sequence[Sequence[StoredModule]]
    ) -> Iterator[tuple[int, StoredModule, Tensor]]:
        """Run, one after the other, the modules that share no pass; yield row, key and outputs."""
        rows_of: dict[StoredModule, list[int]] = {}
        for row, keys in enumerate(wanted):
            for key in keys:
                if not key.kind.batched:
                    rows_of.setdefault(key, []).append(row)
        for key, rows in rows_of.items():
            alone = self._by_itself(key)
            represented = self.represent(states.select(rows), key).to(self._backbone.device)
            for row, outputs in zip(rows, alone.head.outputs(represented), strict=True):
                yield row, key, outputs.cpu()

    def _by_itself(self, key: StoredModule) -> _Alone:
        """Return a module in a suffix of its own, kept while it is among the last used."""
        with self._lock:
            found = self._alone.get(key.name)
            if found is None:
                head = StoredHead.read(key.reader, self._backbone.device)
                found = _Alone(PetModule.of(self._backbone, key.adapter()), head)
                while len(self._alone) >= self.capacity:
                    self._alone.popitem(last=False)  # whoever is running it keeps it until then
                self._alone[key.name] = found
            self._alone.move_to_end(key.name)
            return found

    def _batches(
        self, states: States, wanted: Sequence[Sequence[StoredModule]]
    ) -> Iterator[list[tuple[StoredModule, list[int]]]]:
        """Cut all (example, module) pairs into batches of like length that need at most `capacity` modules.

        A batch is given as pieces, a module and its examples each, those of equal size behind one another.
        """
        pairs = [(index, key) for index, keys in enumerate(wanted) for key in keys]
        for batch in self._backbone.batching.batches([len(states.encoded[index].ids) for index, _ in pairs]):
            rows_of: dict[StoredModule, list[int]] = {}
            for place in batch:
                index, key = pairs[place]
                rows_of.setdefault(key, []).append(index)
            modules = list(rows_of)
            for start in range(0, len(modules), self.capacity):
                some = {key: rows_of[key] for key in modules[start : start + self.capacity]}
                yield list(some.items()) if len(some) == 1 else _in_pieces(some, self._matrix_bytes)

    def _represent(self, batch: Batch, pieces: Sequence[tuple[int, int]] | None) -> Tensor:
        """Represent a batch by the slot of each piece and so many rows, or by the frozen suffix (None)."""
        products: GroupedMatmul | None = None
        if pieces:
            slots = {slot for slot, _ in pieces}
            products = OneForAll(slots.pop()) if len(slots) == 1 else mixed(pieces, self._backbone.device)
        with using(products, batch.ids.shape[1]), torch.inference_mode():
            meter().tokens += batch.tokens * self._backbone.suffix_share
            return self._backbone.pooling(self._suffix(batch.ids, batch.padding, batch.hidden), batch)

    @contextmanager
    def _pinned(self, keys: Sequence[StoredModule]) -> Iterator[dict[StoredModule, _Resident]]:
        """Bring all modules of a call into memory and keep them there while it runs."""
        # Read before anything is locked: other calls go on meanwhile.
        weights = {key: self._weights(key) for key in keys if key.name not in self._resident}
        with self._entrance:  # held while waiting: whoever comes later pins nothing, so those inside will finish
            weights |= {k: self._weights(k) for k in keys if k.name not in self._resident and k not in weights}
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

    def _bring(self, keys: Sequence[StoredModule], weights: dict[StoredModule, _Weights]) -> bool:
        """Place what is missing, given its weights; False while modules in use stand in the way. The lock is held."""
        if all(key.name in self._resident for key in keys):
            return True
        present = {name: batched.room for name, batched in self._maps.items()}
        rooms = _rooms(present, weights.values())
        slots = self._slots_for(len(self._resident.keys() | {key.name for key in keys}), rooms)
        if slots != self._slots or rooms != present:
            if any(resident.users for resident in self._resident.values()):
                return False
            self._rebuild(slots, rooms)
            gone = [key for key in keys if key.name not in self._resident and key not in weights]
            weights |= {key: self._weights(key) for key in gone}
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

    def _weights(self, key: StoredModule) -> _Weights:
        """Read a module and its head from disk."""
        return _Weights(key.weights(self._bases), StoredHead.read(key.reader, self._backbone.device))

    def _place(self, key: StoredModule, weights: _Weights, slot: int) -> None:
        for name, batched in self._maps.items():
            batched.put(slot, weights.maps.get(name))
        self._resident[key.name] = _Resident(slot, weights.head)

    def _slots_for(self, modules: int, rooms: Mapping[str, Shapes]) -> int:
        """Return how many slots there should be: those there are, or twice as many as needed, as memory allows."""
        wanted = self._slots if modules <= self._slots else max(_FEWEST_SLOTS, 2 * modules)
        each = sum(bytes_of(self._bases[name], room) for name, room in rooms.items())
        return min(wanted, max(self.capacity, self._kept_bytes // max(1, each)))

    def _rebuild(self, slots: int, rooms: Mapping[str, Shapes]) -> None:
        """Put other stacks in place of the present ones, with what these hold unless there are fewer slots now.

        Nobody is using them. It goes map by map, so that no more than one is there twice.
        """
        if slots < self._slots:
            self._resident.clear()
            self._maps.clear()
        for name, room in rooms.items():
            held = self._maps.get(name)
            self._maps[name] = held.grown(slots, room) if held else BatchedLinear(self._bases[name], slots, room)
            self._suffix.shell.set_submodule(name, self._maps[name])
        self._slots = slots
        both = [bytes_of(self._bases[name], room) for name, room in rooms.items()]
        self._matrix_bytes = sum(both) / 2 / max(1, len(both))


def _rooms(present: dict[str, Shapes], coming: Iterable[_Weights]) -> dict[str, Shapes]:
    """Return the room each map needs, by path, for what is there and what is coming."""
    rooms = dict(present)
    for weights in coming:
        for name, update in weights.maps.items():
            rooms[name] = room_for(rooms.get(name, {}), shapes_of(update))
    return rooms


def _in_pieces(rows_of: Mapping[StoredModule, list[int]], matrix_bytes: float) -> list[tuple[StoredModule, list[int]]]:
    """Cut each module's rows into pieces, large ones of all modules first (see `piece_size`)."""
    size = piece_size([len(rows) for rows in rows_of.values()], matrix_bytes)
    large, single = [], []
    for key, rows in rows_of.items():
        whole = len(rows) - len(rows) % size
        large += [(key, rows[start : start + size]) for start in range(0, whole, size)]
        single += [(key, [row]) for row in rows[whole:]]
    return large + single


def _apply_heads(represented: Tensor, shares: Sequence[tuple[_Resident, int]]) -> Iterator[Tensor]:
    """Apply each piece's own head to its rows; yield outputs `[k, O]`."""
    start = 0
    for resident, count in shares:
        yield resident.head.outputs(represented[start : start + count]).cpu()
        start += count
