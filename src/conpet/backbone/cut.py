"""Cut a Hugging Face transformer at a layer into a prefix and a suffix that share its weights.

Both halves are copies of the module tree (never of the weights) in which some layers are exchanged:

- the *prefix* keeps the layers below the deepest one asked for and records what comes out of chosen layers;
- the *suffix* passes over the layers below the cut and takes their result as given.

The rest of the model's own `forward` (masks, rotary tables, final norm) runs unchanged and every layer keeps its
index, so nothing here knows an architecture by name; `Cut.holds` proves the cut on the loaded model instead.
What belongs to one call travels in a `ContextVar`, never on the modules: threads do not see each other's states.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from conpet.errors import BackboneError, check_memory


@dataclass(slots=True)
class _Call:
    """What one forward call gives to and takes from the exchanged layers."""

    given: Tensor | None = None
    seen: dict[int, Tensor] = field(default_factory=dict)
    as_tuple: bool = False


_call: ContextVar[_Call] = ContextVar("conpet_cut_call")


@contextmanager
def _calling(call: _Call) -> Iterator[_Call]:
    token = _call.set(call)
    try:
        yield call
    finally:
        _call.reset(token)


class _Stand(nn.Module):
    """Stands in for a layer, whose other attributes stay readable (some models ask a layer for its mask type)."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        # A plain attribute, not a submodule: who walks the tree (PEFT, the bank) must not find the layer's maps.
        self.__dict__["stood_for"] = layer

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["stood_for"], name)


class _Record(_Stand):
    """Runs the layer and records the hidden states behind it, as states at cut `depth`."""

    def __init__(self, layer: nn.Module, depth: int) -> None:
        super().__init__(layer)
        self.depth = depth

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = self.__dict__["stood_for"](*args, **kwargs)
        call = _call.get()
        call.as_tuple = isinstance(output, tuple)
        call.seen[self.depth] = output[0] if isinstance(output, tuple) else output
        return output


class _Pass(_Stand):
    """Takes a skipped layer's place: returns its input, or the states given to this call if it is the last skipped."""

    def __init__(self, layer: nn.Module, *, injects: bool, as_tuple: bool) -> None:
        super().__init__(layer)
        self.injects = injects
        self.as_tuple = as_tuple

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> Any:
        if self.injects:
            given = _call.get().given
            assert given is not None, "a suffix was called without states"  # noqa: S101
            hidden_states = given
        return (hidden_states,) if self.as_tuple else hidden_states


def find_layers(model: nn.Module) -> str | None:
    """Return the path of the model's list of transformer layers, or None if there is no single one."""
    config: Any = getattr(model, "config", None)
    wanted = getattr(config, "num_hidden_layers", None)
    found = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList)
        and len(module) == wanted
        and not any(part.isdigit() for part in name.split("."))  # not a list inside a layer
    ]
    return found[0] if len(found) == 1 else None


def sharing(model: nn.Module) -> dict[int, Any]:
    """Return the memory of a `copy.deepcopy` that copies modules but shares every parameter and buffer."""
    return {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]}


@dataclass(frozen=True, slots=True)
class Cut:
    """How one loaded model is cut.

    Attributes:
        model: The whole model (base model without a language-model head), in evaluation mode.
        path: Path of its layer list, or None where it cannot be cut.
        as_tuple: Whether its layers return tuples.
    """

    model: nn.Module
    path: str | None
    as_tuple: bool = False

    @classmethod
    def of(cls, model: nn.Module) -> Cut:
        """Find out how a model can be cut; `holds` proves it."""
        path = find_layers(model)
        if path is None:
            return cls(model, None)
        ids, mask = _probe(model)
        try:
            with torch.no_grad(), _calling(_Call()) as call:
                run(cls(model, path)._first([1]), ids, mask)
        except _MISFITS as error:
            check_memory(error, "the backbone was cut into layers")
            return cls(model, None)
        return cls(model, path, call.as_tuple)

    @property
    def layers(self) -> int:
        """Number of layers that can stand on either side (0 where the model cannot be cut)."""
        return len(self._layers())

    def prefix(self, depths: Sequence[int]) -> Prefix:
        """Build the part that computes the states behind the layers `depths` (1 to `layers`).

        Raises:
            BackboneError: There is no such layer, or the model cannot be cut.
        """
        for depth in depths:
            self._check(depth)
        return Prefix(self._first(depths))

    def suffix(self, frozen_layers: int) -> Suffix:
        """Build the part above layer `frozen_layers` (0: the whole model, which then reads ids).

        Raises:
            BackboneError: There is no such layer, or the model cannot be cut.
        """
        memo = sharing(self.model)
        if frozen_layers:
            self._check(frozen_layers)
            layers = self._layers()
            passed = [
                _Pass(layer, injects=index == frozen_layers - 1, as_tuple=self.as_tuple)
                for index, layer in enumerate(layers[:frozen_layers])
            ]
            kept = [copy.deepcopy(layer, memo) for layer in layers[frozen_layers:]]
            self._exchange(memo, [*passed, *kept])
        return Suffix(copy.deepcopy(self.model, memo), frozen_layers)

    def holds(self, depth: int) -> bool:
        """Tell whether prefix then suffix, cut at layer `depth`, give what the whole model gives."""
        ids, mask = _probe(self.model)
        try:
            with torch.no_grad():  # what inference mode leaves in a module's buffers cannot be trained through
                states = self.prefix([depth])(ids, mask)[depth]
                again = self.suffix(depth)(ids, mask, states)
                plain = run(self.model, ids, mask)
        except _MISFITS as error:
            check_memory(error, f"the backbone's cut at layer {depth} was checked")
            return False
        return torch.allclose(again[mask.bool()], plain[mask.bool()], rtol=1e-4, atol=1e-5)

    def _layers(self) -> list[nn.Module]:
        if self.path is None:
            return []
        found = self.model.get_submodule(self.path)
        assert isinstance(found, nn.ModuleList)  # noqa: S101
        return list(found)

    def _first(self, depths: Sequence[int]) -> nn.Module:
        """Copy the model but for its layers: up to the deepest one they are shared and recorded, above it left out."""
        memo = sharing(self.model)
        layers = self._layers()[: max(depths)]
        for depth in depths:
            layers[depth - 1] = _Record(layers[depth - 1], depth)
        self._exchange(memo, layers)
        return copy.deepcopy(self.model, memo)

    def _exchange(self, memo: dict[int, Any], layers: Sequence[nn.Module]) -> None:
        """Make a copy with this memory get other layers."""
        assert self.path is not None  # noqa: S101
        memo[id(self.model.get_submodule(self.path))] = nn.ModuleList(layers)

    def _check(self, depth: int) -> None:
        if not 1 <= depth <= self.layers:
            reason = "cannot be cut: use frozen_layers=0" if self.path is None else f"has {self.layers} layers"
            raise BackboneError(f"cannot cut at layer {depth}: {type(self.model).__name__} {reason}")


_MISFITS = (AttributeError, IndexError, KeyError, TypeError, ValueError, RuntimeError)
"""What an architecture raises that does something with its layers that the exchange does not fit.

A `RuntimeError` may also mean that memory ran out: see `check_memory`."""


def _probe(model: nn.Module) -> tuple[Tensor, Tensor]:
    """Return ids and mask of two short inputs, one of them padded."""
    device = next(model.parameters()).device
    ids = torch.tensor([[5, 6, 7, 8, 9], [9, 8, 7, 0, 0]], device=device)
    return ids, torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], device=device)


class Prefix:
    """The frozen lower part."""

    def __init__(self, shell: nn.Module) -> None:
        self._shell = shell

    def __call__(self, ids: Tensor, mask: Tensor | None) -> Mapping[int, Tensor]:
        """Return, for ids and mask `[n, T]` (None: no padding), the states `[n, T, d]` behind each layer asked for."""
        with _calling(_Call()) as call:
            run(self._shell, ids, mask)
        return call.seen


class Suffix:
    """The upper part, the one that carries PET modules.

    Attributes:
        shell: The module tree; its weights are those of the backbone. PET layers are put into it.
        split: Number of layers below the cut.
    """

    def __init__(self, shell: nn.Module, frozen_layers: int) -> None:
        self.shell = shell
        self.frozen_layers = frozen_layers

    def __call__(self, ids: Tensor, mask: Tensor | None, states: Tensor | None) -> Tensor:
        """Return the last hidden states `[n, T, d]` from the states `[n, T, d]` behind layer `frozen_layers`.

        With `frozen_layers > 0`, `ids` `[n, T]` only give shapes, masks and positions; with `frozen_layers=0` they are
        the input. `mask` is None where there is no padding.
        """
        with _calling(_Call(given=states)):
            return run(self.shell, ids, mask)


def run(model: nn.Module, ids: Tensor, mask: Tensor | None) -> Tensor:
    """Return a base model's last hidden states `[n, T, d]`; without padding give no mask, which is faster."""
    options = {"use_cache": False} if hasattr(getattr(model, "config", None), "use_cache") else {}
    output = model(input_ids=ids, attention_mask=mask, return_dict=True, **options)
    hidden: Tensor = output.last_hidden_state
    return hidden
