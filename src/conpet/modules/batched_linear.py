"""A linear map in which each row of a batch uses its own update."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from conpet.backbone.frozen_linear import stored_weight
from conpet.errors import BackboneError
from conpet.modules.adapter import MapUpdate
from conpet.modules.grouped_matmul import GroupedMatmul, SingleMatmul

_MATRICES = ("down", "up", "narrow", "widen")
"""Parts of an update that are matrices; the others are scales and shifts."""
_ALIGNMENT = 64
"""Alignment of torch's own memory, in bytes."""
Shapes = Mapping[str, tuple[int, ...]]
"""Shapes of the parts of an update, by name."""


@dataclass(frozen=True, slots=True)
class _Call:
    """Arguments of a forward call for the batched maps.

    Attributes:
        matmul: Multiplies rows by the matrices in their slots; None for the frozen maps alone.
        tokens: Padded tokens T of a row.
    """

    matmul: GroupedMatmul | None
    tokens: int


_call: ContextVar[_Call] = ContextVar("conpet_batched_call")


@contextmanager
def using(matmul: GroupedMatmul | None, tokens: int) -> Iterator[None]:
    """Set the slots that batched maps use within the context, in this thread only (see `_Call`)."""
    token = _call.set(_Call(matmul, tokens))
    try:
        yield
    finally:
        _call.reset(token)


def shapes_of(update: MapUpdate) -> Shapes:
    """Return the shapes of the parts of an update."""
    return {name: tuple(part.shape) for name, part in update.parts.items()}


def room_for(*needs: Shapes) -> Shapes:
    """Return the smallest shapes that hold updates of all these shapes."""
    room: dict[str, tuple[int, ...]] = {}
    for shapes in needs:
        for name, shape in shapes.items():
            room[name] = tuple(map(max, shape, room.get(name, shape)))
    return room


def bytes_of(base: nn.Linear, room: Shapes) -> int:
    """Return the bytes that a slot takes in the stack of a map."""
    return sum(prod(shape) * _dtype(name, stored_weight(base)).itemsize for name, shape in room.items())


class BatchedLinear(nn.Module):
    """A frozen linear map with a stack of updates (`MapUpdate`); each row of the input uses its own.

    Args:
        base: The frozen map.
        slots: Number of updates the stack holds.
        room: The parts in the stack, and the shapes they are padded to.
    """

    def __init__(self, base: nn.Linear, slots: int, room: Shapes) -> None:
        super().__init__()
        self.base = base
        self.room = room
        self._stacks = {name: self._stack(name, (slots, *shape)) for name, shape in room.items()}
        self._own: dict[int, Shapes] = {}
        """Shapes of the update in each slot."""

    def _stack(self, name: str, shape: tuple[int, ...]) -> Tensor:
        like = stored_weight(self.base)
        return torch.full(shape, _neutral(name), dtype=_dtype(name, like), device=like.device)

    def grown(self, slots: int, room: Shapes) -> BatchedLinear:
        """Return a copy with at least as many slots and as much room, holding the same updates."""
        larger = BatchedLinear(self.base, slots, room)
        for name, stack in self._stacks.items():
            present, rows, columns = stack.shape
            larger._stacks[name][:present, :rows, :columns] = stack
        larger._own.update(self._own)
        return larger

    def put(self, slot: int, update: MapUpdate | None) -> None:
        """Write an update into a slot; None leaves the base map unchanged."""
        parts = update.parts if update is not None else {}
        self._own[slot] = shapes_of(update) if update is not None else {}
        for name, stack in self._stacks.items():
            part, entry = parts.get(name), stack[slot]
            if part is None or part.shape != entry.shape:
                entry.fill_(_neutral(name))
            if part is not None:
                rows, columns = part.shape
                entry[:rows, :columns].copy_(part)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map `[n, T, in]` to `[n, T, out]`, or `[n * T, in]` (from models that flatten tokens) to `[n * T, out]`."""
        call = _call.get()
        if call.matmul is None:
            return self.base(hidden)  # type: ignore[no-any-return]
        if isinstance(call.matmul, SingleMatmul):
            return self._apply_updates(hidden, SingleMatmul(0), self._alone(call.matmul.slot))
        rows, tokens = call.matmul.examples, call.tokens
        assert rows is not None  # noqa: S101 - only a single matmul takes any number of rows
        if hidden.shape[:-1] not in ((rows, tokens), (rows * tokens,)):
            raise BackboneError(
                f"a linear map of this architecture reads shape {tuple(hidden.shape)}, but the batch has {rows} rows "
                f"of {tokens} tokens: cannot tell which module to use. Leave this map out of module.targets"
            )
        output = self._apply_updates(hidden.reshape(rows, tokens, -1), call.matmul, self._stacks)
        return output.view(*hidden.shape[:-1], -1)

    def _alone(self, slot: int) -> dict[str, Tensor]:
        """Return the update in a slot as a stack of its own.

        It has its own shapes and alignment, so the result does not depend on the updates of other slots.
        """
        alone = {}
        for name, (rows, columns) in self._own.get(slot, {}).items():
            stack = self._stacks[name]
            part = stack[slot, :rows, :columns]
            aligned = part.is_contiguous() and part.data_ptr() % _ALIGNMENT == 0
            alone[name] = (part if aligned else part.clone(memory_format=torch.contiguous_format)).unsqueeze(0)
        return alone

    def _apply_updates(self, hidden: Tensor, matmul: GroupedMatmul, stacks: Mapping[str, Tensor]) -> Tensor:
        """Map `[n, T, in]` to `[n, T, out]`, each row with the update in its slot of the stacks."""
        row_parts = {name: matmul.gather(stack) for name, stack in stacks.items() if name not in _MATRICES}
        scaled = (hidden * row_parts["scale_in"]).to(hidden.dtype) if "scale_in" in row_parts else hidden
        output: Tensor = self.base(scaled)
        if "scale_out" in row_parts:
            output = (output * row_parts["scale_out"] + row_parts.get("shift", 0)).to(output.dtype)
        if "down" in stacks:
            matmul.add(output, matmul.multiply(hidden, stacks["down"].mT), stacks["up"].mT)
        if "narrow" in stacks:
            narrow = matmul.multiply(output, stacks["narrow"]) + row_parts["narrow_bias"].to(output.dtype)
            widened = matmul.multiply(nn.functional.gelu(narrow), stacks["widen"])
            output = output + widened + row_parts["widen_bias"].to(output.dtype)
        return output


def _dtype(name: str, weight: Tensor) -> torch.dtype:
    """Return the dtype of a part: scales stay float32, because 16 bits would round 1 + small to 1."""
    return weight.dtype if name in _MATRICES else torch.float32


def _neutral(name: str) -> float:
    """Return the value with which a part has no effect."""
    return 1.0 if name.startswith("scale") else 0.0
