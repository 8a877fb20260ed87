"""Cut a Hugging Face transformer at a layer into a prefix and a suffix that share its weights.

Both halves are copies of the module tree (not of the weights) in which some layers are exchanged:

- the *prefix* keeps the layers below the deepest one asked for and records what comes out of chosen layers;
- the *suffix* passes over the layers below the cut and takes their result as given.

The rest of the model's own `forward` (masks, rotary tables, final norm) runs unchanged and every layer keeps its
index, so nothing here knows an architecture by name; `Cut.verify` proves the cut on the loaded model instead.
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

from conpet.errors import BackboneError


@dataclass(slots=True)
class _Call:
    """What one forward call gives to and takes from the exchanged layers."""

    given: Tensor | None = None
    seen: dict[int, Tensor] = field(default_factory=dict)


_call: ContextVar[_Call] = ContextVar("conpet_cut_call")


@contextmanager
def _calling(call: _Call) -> Iterator[_Call]:
    token = _call.set(call)
    try:
        yield call
    finally:
        _call.reset(token)


class _Stand(nn.Module):
    """Stands in for a layer and keeps its other attributes readable (some models ask a layer for its mask type)."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("layer"), name)


class _Record(_Stand):
    """Runs the layer and records the hidden states behind it, as states at cut `depth`."""

    def __init__(self, layer: nn.Module, depth: int) -> None:
        super().__init__(layer)
        self.depth = depth

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        output = self.layer(hidden_states, *args, **kwargs)
        _call.get().seen[self.depth] = output[0] if isinstance(output, tuple) else output
        return output


class _Pass(nn.Module):
    """Takes a skipped layer's place: returns its input, or the states given to this call if it is the last skipped."""

    def __init__(self, layer: nn.Module, *, injects: bool, as_tuple: bool) -> None:
        super().__init__()
        self.injects = injects
        self.as_tuple = as_tuple
        # A plain attribute, not a submodule: only its mask type and the like may be asked for, its weights never.
        self.__dict__["stood_for"] = layer

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["stood_for"], name)

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> Any:
        if self.injects:
            given = _call.get().given
            assert given is not None, "a suffix was called without states"  # noqa: S101
            hidden_states = given
        return (hidden_states,) if self.as_tuple else hidden_states


def copy_structure(model: nn.Module) -> nn.Module:
    """Copy a module tree but share every parameter and buffer with the original."""
    memo = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]}
    return copy.deepcopy(model, memo)


def find_layers(model: nn.Module) -> str | None:
    """Return the path of the model's list of transformer layers, or None if there is no single one."""
    wanted = getattr(model.config, "num_hidden_layers", None)
    found = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList)
        and len(module) == wanted
        and not any(part.isdigit() for part in name.split("."))  # not a list inside a layer
    ]
    return found[0] if len(found) == 1 else None


def _exchange(model: nn.Module, path: str, layers: Sequence[nn.Module]) -> None:
    parent, _, leaf = path.rpartition(".")
    setattr(model.get_submodule(parent), leaf, nn.ModuleList(layers))


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
        """Find out how a model can be cut; one that fails the numerical proof counts as uncuttable."""
        path = find_layers(model)
        if path is None:
            return cls(model, None)
        seen: list[bool] = []
        layer = model.get_submodule(path)[0]
        handle = layer.register_forward_hook(lambda _module, _args, output: seen.append(isinstance(output, tuple)))
        ids = torch.tensor([[5, 6, 7, 8]], device=next(model.parameters()).device)
        try:
            with torch.inference_mode():
                plain = run(model, ids, torch.ones_like(ids))
        finally:
            handle.remove()
        cut = cls(model, path, bool(seen and seen[0]))
        return cut if cut._holds(ids, plain) else cls(model, None)

    @property
    def layers(self) -> int:
        """Number of layers that can stand on either side (0 where the model cannot be cut)."""
        return len(self.model.get_submodule(self.path)) if self.path else 0

    def prefix(self, depths: Sequence[int]) -> Prefix:
        """Build the part that computes the states behind the layers `depths` (1 to `layers`)."""
        self._check(max(depths), least=1)
        shell = copy_structure(self.model)
        assert self.path is not None  # noqa: S101
        layers = list(shell.get_submodule(self.path))[: max(depths)]
        for depth in depths:
            layers[depth - 1] = _Record(layers[depth - 1], depth)
        _exchange(shell, self.path, layers)
        return Prefix(shell)

    def suffix(self, split: int) -> Suffix:
        """Build the part above layer `split` (0: the whole model, which then reads ids)."""
        shell = copy_structure(self.model)
        if split:
            self._check(split, least=0)
            assert self.path is not None  # noqa: S101
            layers = list(shell.get_submodule(self.path))
            for index in range(split):
                layers[index] = _Pass(layers[index], injects=index == split - 1, as_tuple=self.as_tuple)
            _exchange(shell, self.path, layers)
        return Suffix(shell, split)

    def _check(self, depth: int, *, least: int) -> None:
        if not least <= depth <= self.layers:
            reason = "cannot be cut: use split=0" if self.path is None else f"has {self.layers} layers"
            raise BackboneError(f"cannot cut at layer {depth}: {type(self.model).__name__} {reason}")

    def _holds(self, ids: Tensor, plain: Tensor) -> bool:
        middle = max(1, self.layers // 2)
        mask = torch.ones_like(ids)
        try:
            with torch.inference_mode():
                states = self.prefix([middle])(ids, mask)[middle]
                again = self.suffix(middle)(ids, mask, states)
        except (AttributeError, IndexError, KeyError, TypeError, RuntimeError):
            return False  # the architecture does something with its layers that the exchange does not fit
        return torch.equal(again, plain) or torch.allclose(again, plain, rtol=1e-4, atol=1e-5)


class Prefix:
    """The frozen lower part. Call it with ids and mask `[n, T]`; it returns depth -> states `[n, T, d]`."""

    def __init__(self, shell: nn.Module) -> None:
        self._shell = shell

    def __call__(self, ids: Tensor, mask: Tensor) -> Mapping[int, Tensor]:
        with _calling(_Call()) as call:
            run(self._shell, ids, mask)
        return call.seen


class Suffix:
    """The upper part, the one that carries PET modules.

    Attributes:
        shell: The module tree; its weights are those of the backbone. PET layers are put into it.
        split: Number of layers below the cut.
    """

    def __init__(self, shell: nn.Module, split: int) -> None:
        self.shell = shell
        self.split = split

    def __call__(self, ids: Tensor, mask: Tensor, states: Tensor | None) -> Tensor:
        """Return the last hidden states `[n, T, d]` from the states `[n, T, d]` behind layer `split`.

        `ids` `[n, T]` only give shapes, masks and positions when `split > 0`; with `split=0` they are the input.
        """
        with _calling(_Call(given=states)):
            return run(self.shell, ids, mask)


def run(model: nn.Module, ids: Tensor, mask: Tensor) -> Tensor:
    """Return a base model's last hidden states `[n, T, d]`; an all-ones mask is left out, which is faster."""
    attention_mask = None if bool(mask.all()) else mask
    options = {"use_cache": False} if hasattr(model.config, "use_cache") else {}
    output = model(input_ids=ids, attention_mask=attention_mask, return_dict=True, **options)
    return output.last_hidden_state
