"""A linear map of which every row of a batch uses another version."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from conpet.errors import BackboneError
from conpet.modules.adapter import MapUpdate
from conpet.modules.grouped_matmul import GroupedMatmul

_MATRICES = ("down", "up", "narrow", "widen")
"""The parts of an update that rows are multiplied by; the others scale or shift them."""
Shapes = Mapping[str, tuple[int, ...]]
"""Sizes of the parts of an update, by name."""


@dataclass(frozen=True, slots=True)
class _Call:
    """What a forward call tells the banked maps.

    Attributes:
        products: Multiplies by the slots that the rows use; None: the frozen maps alone.
        tokens: Padded tokens of a row, T.
    """

    products: GroupedMatmul | None
    tokens: int


_call: ContextVar[_Call] = ContextVar("conpet_bank_call")


@contextmanager
def using(products: GroupedMatmul | None, tokens: int) -> Iterator[None]:
    """Let the banked maps use these slots while the context lasts, in this thread only (see `_Call`)."""
    token = _call.set(_Call(products, tokens))
    try:
        yield
    finally:
        _call.reset(token)


def shapes_of(update: MapUpdate) -> Shapes:
    """Return the sizes of an update's parts."""
    return {name: tuple(part.shape) for name, part in update.parts.items()}


def room_for(*needs: Shapes) -> Shapes:
    """Return the sizes that are enough for all of these."""
    room: dict[str, tuple[int, ...]] = {}
    for shapes in needs:
        for name, shape in shapes.items():
            room[name] = tuple(map(max, shape, room.get(name, shape)))
    return room


def bytes_of(base: nn.Linear, room: Shapes) -> int:
    """Return what a slot of a stack over a map takes."""
    return sum(prod(shape) * _dtype(name, base.weight).itemsize for name, shape in room.items())


class BatchedLinear(nn.Module):
    """A frozen linear map with a stack of updates (`MapUpdate`), of which every row of the input takes its own.

    Args:
        base: The frozen map.
        slots: Number of updates the stack holds.
        room: The parts it holds, and the sizes they are padded to.
    """

    def __init__(self, base: nn.Linear, slots: int, room: Shapes) -> None:
        super().__init__()
        self.base = base
        self.room = room
        self._stacks = {name: self._stack(name, (slots, *shape)) for name, shape in room.items()}

    def _stack(self, name: str, shape: tuple[int, ...]) -> Tensor:
        like = self.base.weight
        return torch.full(shape, _neutral(name), dtype=_dtype(name, like), device=like.device)

    def grown(self, slots: int, room: Shapes) -> BatchedLinear:
        """Return a copy with no fewer slots and no less room, whose stack holds the same updates."""
        larger = BatchedLinear(self.base, slots, room)
        for name, stack in self._stacks.items():
            held, rows, columns = stack.shape
            larger._stacks[name][:held, :rows, :columns] = stack
        return larger

    def put(self, slot: int, update: MapUpdate | None) -> None:
        """Write an update into a slot; None leaves the base map as it is."""
        parts = update.parts if update is not None else {}
        for name, stack in self._stacks.items():
            part, place = parts.get(name), stack[slot]
            if part is None or part.shape != place.shape:
                place.fill_(_neutral(name))
            if part is not None:
                rows, columns = part.shape
                place[:rows, :columns].copy_(part)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map `[n, T, in]`, or `[n * T, in]` from a model that flattens its tokens, to as many times `out`."""
        call = _call.get()
        if call.products is None:
            return self.base(hidden)  # type: ignore[no-any-return]
        rows, tokens = call.products.examples, call.tokens
        if rows is None:
            return self._mapped(hidden, call.products)
        if hidden.shape[:-1] not in ((rows, tokens), (rows * tokens,)):
            raise BackboneError(
                f"a linear map of this architecture reads {tuple(hidden.shape)} where the batch has {rows} rows of "
                f"{tokens} tokens, so it cannot tell whose module to use: leave it out of `targets`"
            )
        output = self._mapped(hidden.reshape(rows, tokens, -1), call.products)
        return output.view(*hidden.shape[:-1], -1)

    def _mapped(self, hidden: Tensor, products: GroupedMatmul) -> Tensor:
        """Map `[n, T, in]` to `[n, T, out]`, each row by the update of its slot."""
        stacks = self._stacks
        own = {name: products.of_rows(stack) for name, stack in stacks.items() if name not in _MATRICES}
        scaled = (hidden * own["scale_in"]).to(hidden.dtype) if "scale_in" in own else hidden
        output: Tensor = self.base(scaled)
        if "scale_out" in own:
            output = (output * own["scale_out"] + own.get("shift", 0)).to(output.dtype)
        if "down" in stacks:
            products.add(output, products.multiply(hidden, stacks["down"].mT), stacks["up"].mT)
        if "narrow" in stacks:
            narrow = products.multiply(output, stacks["narrow"]) + own["narrow_bias"].to(output.dtype)
            widened = products.multiply(nn.functional.gelu(narrow), stacks["widen"])
            output = output + widened + own["widen_bias"].to(output.dtype)
        return output


def _dtype(name: str, weight: Tensor) -> torch.dtype:
    """Return the format of a part: factors keep float32, for a half format would round 1 + small to 1."""
    return weight.dtype if name in _MATRICES else torch.float32


def _neutral(name: str) -> float:
    """Return the number with which a part does nothing."""
    return 1.0 if name.startswith("scale") else 0.0
