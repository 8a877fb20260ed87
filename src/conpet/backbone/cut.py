"""Cut a Hugging Face transformer at a layer into a prefix and a suffix that share its weights.

Both halves are copies of the module tree (never of the weights) in which some layers are replaced:

- the *prefix* runs the layers up to the deepest one requested and records the output of chosen layers;
- the *suffix* skips the layers below the cut and reads their output from its caller.

The rest of the model's own `forward` (masks, rotary tables, final norm) runs unchanged and every layer keeps its
index, so no code here depends on an architecture; `Cut.holds` verifies the cut on the loaded model instead.
Per-call data is kept in a `ContextVar`, never on the modules: threads do not see each other's states.
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
    """Data of one forward call: the suffix's input states, and the states recorded by the prefix."""

    states: Tensor | None = None
    recorded: dict[int, Tensor] = field(default_factory=dict)
    as_tuple: bool = False


_call: ContextVar[_Call] = ContextVar("conpet_cut_call")


@contextmanager
def _calling(call: _Call) -> Iterator[_Call]:
    token = _call.set(call)
    try:
        yield call
    finally:
        _call.reset(token)


class _ReplacedLayer(nn.Module):
    """Replaces a layer but exposes its other attributes (some models read the mask type from a layer)."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        # A plain attribute, not a submodule: code that walks the tree (PEFT, the pool) must not find its linear maps.
        self.__dict__["layer"] = layer

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["layer"], name)


class _RecordingLayer(_ReplacedLayer):
    """Runs the layer and records its output as the states at cut `depth`."""

    def __init__(self, layer: nn.Module, depth: int) -> None:
        super().__init__(layer)
        self.depth = depth

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = self.__dict__["layer"](*args, **kwargs)
        call = _call.get()
        call.as_tuple = isinstance(output, tuple)
        call.recorded[self.depth] = output[0] if isinstance(output, tuple) else output
        return output


class _SkippedLayer(_ReplacedLayer):
    """Returns its input; the last skipped layer returns the states that the caller of the suffix passed in."""

    def __init__(self, layer: nn.Module, *, injects: bool, as_tuple: bool) -> None:
        super().__init__(layer)
        self.injects = injects
        self.as_tuple = as_tuple

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> Any:
        if self.injects:
            states = _call.get().states
            assert states is not None, "a suffix was called without states"  # noqa: S101
            hidden_states = states
        return (hidden_states,) if self.as_tuple else hidden_states


def find_layers(model: nn.Module) -> str | None:
    """Return the path of the model's list of transformer layers, or None unless there is exactly one."""
    config: Any = getattr(model, "config", None)
    layers = getattr(config, "num_hidden_layers", None)
    paths = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList)
        and len(module) == layers
        and not any(part.isdigit() for part in name.split("."))  # not a list inside a layer
    ]
    return paths[0] if len(paths) == 1 else None


def sharing(model: nn.Module) -> dict[int, Any]:
    """Return the memo for a `copy.deepcopy` that copies modules but shares every parameter and buffer."""
    return {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]}


@dataclass(frozen=True, slots=True)
class Cut:
    """How a loaded model is cut.

    Attributes:
        model: The whole model (base model without a language-model head), in evaluation mode.
        path: Path of its layer list, or None if it cannot be cut.
        as_tuple: Whether its layers return tuples.
    """

    model: nn.Module
    path: str | None
    as_tuple: bool = False

    @classmethod
    def of(cls, model: nn.Module) -> Cut:
        """Find out how a model can be cut; `holds` verifies the result."""
        path = find_layers(model)
        if path is None:
            return cls(model, None)
        ids, mask = _probe(model)
        try:
            with torch.no_grad(), _calling(_Call()) as call:
                run(cls(model, path)._truncated([1]), ids, mask)
        except _CUT_ERRORS as error:
            check_memory(error, "the backbone was cut into layers")
            return cls(model, None)
        return cls(model, path, call.as_tuple)

    @property
    def layers(self) -> int:
        """Number of layers that can be on either side of the cut (0 if the model cannot be cut)."""
        return len(self._layers())

    def prefix(self, depths: Sequence[int]) -> Prefix:
        """Build the part that computes the states after each layer in `depths` (1 to `layers`).

        Raises:
            BackboneError: The layer does not exist, or the model cannot be cut.
        """
        for depth in depths:
            self._check(depth)
        return Prefix(self._truncated(depths))

    def suffix(self, frozen_layers: int) -> Suffix:
        """Build the part above layer `frozen_layers` (0: the whole model, which then reads ids).

        Raises:
            BackboneError: The layer does not exist, or the model cannot be cut.
        """
        memo = sharing(self.model)
        if frozen_layers:
            self._check(frozen_layers)
            layers = self._layers()
            skipped = [
                _SkippedLayer(layer, injects=index == frozen_layers - 1, as_tuple=self.as_tuple)
                for index, layer in enumerate(layers[:frozen_layers])
            ]
            upper = [copy.deepcopy(layer, memo) for layer in layers[frozen_layers:]]
            self._replace_layers(memo, [*skipped, *upper])
        return Suffix(copy.deepcopy(self.model, memo), frozen_layers)

    def holds(self, depth: int) -> bool:
        """Tell whether prefix and suffix, cut at layer `depth`, together compute what the whole model computes."""
        ids, mask = _probe(self.model)
        try:
            with torch.no_grad():  # not inference mode: buffers it fills cannot take part in training later
                states = self.prefix([depth])(ids, mask)[depth]
                in_two_parts = self.suffix(depth)(ids, mask, states)
                whole = run(self.model, ids, mask)
        except _CUT_ERRORS as error:
            check_memory(error, f"the backbone's cut at layer {depth} was checked")
            return False
        return torch.allclose(in_two_parts[mask.bool()], whole[mask.bool()], rtol=1e-4, atol=1e-5)

    def _layers(self) -> list[nn.Module]:
        if self.path is None:
            return []
        layers = self.model.get_submodule(self.path)
        assert isinstance(layers, nn.ModuleList)  # noqa: S101
        return list(layers)

    def _truncated(self, depths: Sequence[int]) -> nn.Module:
        """Copy the model without the layers above the deepest of `depths`; layers in `depths` record their output."""
        memo = sharing(self.model)
        layers = self._layers()[: max(depths)]
        for depth in depths:
            layers[depth - 1] = _RecordingLayer(layers[depth - 1], depth)
        self._replace_layers(memo, layers)
        return copy.deepcopy(self.model, memo)

    def _replace_layers(self, memo: dict[int, Any], layers: Sequence[nn.Module]) -> None:
        """Make a deep copy with this memo use these layers instead of the model's own."""
        assert self.path is not None  # noqa: S101
        memo[id(self.model.get_submodule(self.path))] = nn.ModuleList(layers)

    def _check(self, depth: int) -> None:
        if not 1 <= depth <= self.layers:
            reason = "cannot be cut: use frozen_layers=0" if self.path is None else f"has {self.layers} layers"
            raise BackboneError(f"cannot cut at layer {depth}: {type(self.model).__name__} {reason}")


_CUT_ERRORS = (AttributeError, IndexError, KeyError, TypeError, ValueError, RuntimeError)
"""Exceptions from an architecture that uses its layers in a way that replaced layers do not support.

A `RuntimeError` may also mean that memory ran out: see `check_memory`."""


def _probe(model: nn.Module) -> tuple[Tensor, Tensor]:
    """Return ids and mask of two short inputs, one of them padded."""
    device = next(model.parameters()).device
    ids = torch.tensor([[5, 6, 7, 8, 9], [9, 8, 7, 0, 0]], device=device)
    return ids, torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], device=device)


class Prefix:
    """The frozen lower part of a backbone."""

    def __init__(self, shell: nn.Module) -> None:
        self._shell = shell

    def __call__(self, ids: Tensor, mask: Tensor | None) -> Mapping[int, Tensor]:
        """Return, for ids and mask `[n, T]` (None: no padding), the states `[n, T, d]` after each requested layer."""
        with _calling(_Call()) as call:
            run(self._shell, ids, mask)
        return call.recorded


class Suffix:
    """The upper part of a backbone, which carries the PET modules.

    Attributes:
        shell: The module tree over the backbone's weights. PET layers are inserted into it.
        frozen_layers: Number of layers below the cut.
    """

    def __init__(self, shell: nn.Module, frozen_layers: int) -> None:
        self.shell = shell
        self.frozen_layers = frozen_layers

    def __call__(self, ids: Tensor, mask: Tensor | None, states: Tensor | None) -> Tensor:
        """Return the last hidden states `[n, T, d]` from the states `[n, T, d]` after layer `frozen_layers`.

        With `frozen_layers > 0`, `ids` `[n, T]` only determine shapes, masks and positions; with `frozen_layers=0` they
        are the input. `mask` is None if there is no padding.
        """
        with _calling(_Call(states=states)):
            return run(self.shell, ids, mask)


def run(model: nn.Module, ids: Tensor, mask: Tensor | None) -> Tensor:
    """Return a base model's last hidden states `[n, T, d]`; pass no mask if there is no padding, which is faster."""
    options = {"use_cache": False} if hasattr(getattr(model, "config", None), "use_cache") else {}
    output = model(input_ids=ids, attention_mask=mask, return_dict=True, **options)
    hidden: Tensor = output.last_hidden_state
    return hidden
