"""Find the sublayers of a suffix by observing a forward pass, so that no architecture is hard-coded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from conpet.backbone.backbone import Backbone
from conpet.backbone.cut import Suffix
from conpet.errors import ConfigError

_TOKENS = 4


def adapted_layers(backbone: Backbone) -> list[int]:
    """Return the indices of the layers above the cut."""
    return list(range(backbone.frozen_layers, backbone.cut.layers))


def linear_maps(backbone: Backbone) -> tuple[str, ...]:
    """Return the leaf names of the linear maps in the suffix, sorted (`("down_proj", "gate_proj", ...)`)."""
    return tuple(sorted({path.rpartition(".")[2] for path in linear_paths(backbone)}))


def linear_paths(backbone: Backbone) -> list[str]:
    """Return the paths of the linear maps in the suffix, in the order of the module tree."""
    inside = tuple(f"{backbone.cut.path}.{index}." for index in adapted_layers(backbone))
    return [
        name
        for name, module in backbone.cut.model.named_modules()
        if isinstance(module, nn.Linear) and (backbone.cut.path is None or name.startswith(inside))
    ]


@dataclass(frozen=True, slots=True)
class Sublayer:
    """Paths of the linear maps of a layer whose role is known.

    Attributes:
        keys_values: Maps whose output reaches other tokens: keys and values, or one map for both.
        attention_out: Last map of the attention sublayer.
        feed_forward_out: Last map of the feed-forward sublayer.
    """

    keys_values: tuple[str, ...]
    attention_out: str
    feed_forward_out: str


def find_sublayers(backbone: Backbone, kind: str) -> list[Sublayer]:
    """Find the sublayers of every layer above the cut.

    A layer is assumed to begin with maps that all read the same states (query, key and value); the next map ends the
    attention, and the last map ends the layer. Keys and values are identified by changing the output of each map at one
    token and observing the other tokens.

    Args:
        backbone: The frozen model.
        kind: Name of the module kind, for messages.

    Raises:
        ConfigError: There are no layers above the cut, or they have another structure.
    """
    layers = adapted_layers(backbone)
    if not layers:
        raise ConfigError(
            f"module.kind={kind} adapts transformer layers, and {backbone.name} has none above the frozen ones: lower "
            "backbone.frozen_layers, use another backbone, or use module.kind=lora with backbone.frozen_layers=0"
        )
    suffix = backbone.suffix()
    all_paths = linear_paths(backbone)
    paths_by_layer = [
        [path for path in all_paths if path.startswith(f"{backbone.cut.path}.{index}.")] for index in layers
    ]
    try:
        with _recorded_inputs(suffix, all_paths) as inputs:
            probe(backbone, suffix)
        return [_find_sublayer(backbone, suffix, inputs, paths) for paths in paths_by_layer]
    except _StructureError as error:
        raise ConfigError(
            f"module.kind={kind} needs layers with an attention and a feed-forward sublayer made of linear maps "
            f"(torch.nn.Linear); those of {backbone.name} differ: {error}. Use module.kind=lora, or another backbone"
        ) from None


class _StructureError(Exception):
    """A layer does not have the assumed structure."""


def _find_sublayer(backbone: Backbone, suffix: Suffix, inputs: dict[str, Tensor], layer_paths: list[str]) -> Sublayer:
    called = [path for path in inputs if path in layer_paths]
    if not called:
        raise _StructureError("a layer has no linear maps")
    readers = [path for path in called if inputs[path] is inputs[called[0]]]
    others = [path for path in called if path not in readers]
    if len(others) < 2:
        raise _StructureError(f"fewer than two maps follow those that read the same states as {called[0]}")
    attention_out, feed_forward_out = others[0], others[-1]
    for path in (attention_out, feed_forward_out):
        if _linear(suffix, path).out_features != backbone.hidden_size:
            raise _StructureError(f"{path} does not have {backbone.hidden_size} outputs")
    keys_values = tuple(
        path for path in readers if _reaches_other_tokens(backbone, suffix, path, attention_out, inputs[attention_out])
    )
    if not keys_values:
        raise _StructureError(f"no output of {called[0]} or of the maps that read the same states reaches other tokens")
    return Sublayer(keys_values, attention_out, feed_forward_out)


def _reaches_other_tokens(backbone: Backbone, suffix: Suffix, path: str, later: str, undisturbed: Tensor) -> bool:
    """Tell whether a map's output for the first token affects the input of the map `later` for other tokens."""
    hook = _linear(suffix, path).register_forward_hook(_disturb_first)
    with _recorded_inputs(suffix, [later]) as inputs:
        probe(backbone, suffix)
    hook.remove()
    return not torch.allclose(inputs[later][:, 1:].float(), undisturbed[:, 1:].float(), rtol=1e-3, atol=1e-5)


def _disturb_first(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
    rising = torch.linspace(-1, 1, output.shape[-1], dtype=output.dtype, device=output.device)
    disturbed = output.clone()
    disturbed[:, 0] += 3 * rising.abs() + rising
    return disturbed


def _linear(suffix: Suffix, path: str) -> nn.Linear:
    module = suffix.shell.get_submodule(path)
    assert isinstance(module, nn.Linear)  # noqa: S101
    return module


@contextmanager
def _recorded_inputs(suffix: Suffix, paths: list[str]) -> Iterator[dict[str, Tensor]]:
    """Yield a mapping that receives the last input of each map, in the order of calls."""
    recorded: dict[str, Tensor] = {}

    def record(path: str) -> Any:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            recorded[path] = inputs[0]

        return _linear(suffix, path).register_forward_pre_hook(hook)

    handles = [record(path) for path in paths]
    try:
        yield recorded
    finally:
        for handle in handles:
            handle.remove()


def probe(backbone: Backbone, suffix: Suffix) -> None:
    """Run a suffix on a short synthetic input."""
    ids = torch.arange(5, 5 + _TOKENS, device=backbone.device).unsqueeze(0)
    states = None
    if backbone.frozen_layers:
        wave = torch.sin(torch.arange(_TOKENS * backbone.hidden_size, device=backbone.device) * 0.7)
        states = wave.view(1, _TOKENS, -1).to(backbone.dtype)
    with torch.no_grad():
        suffix(ids, torch.ones_like(ids), states)
