"""Find the sublayers of a suffix by watching it run: no architecture is named."""

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
    """The linear maps of one layer that have a known part in it, by their paths.

    Attributes:
        keys_values: Those that carry something from one token to others: keys and values, or all in one map.
        attention_out: The last one of the attention sublayer.
        feed_forward_out: The last one of the feed-forward sublayer.
    """

    keys_values: tuple[str, ...]
    attention_out: str
    feed_forward_out: str


def find_sublayers(backbone: Backbone, kind: str) -> list[Sublayer]:
    """Find the sublayers of every layer above the cut.

    A layer is taken to begin with maps that all read the same states (query, key and value); the first map behind them
    ends the attention, the last one ends the layer. What of the former are keys and values is proved by changing each
    map's output at one token and watching other tokens.

    Args:
        backbone: The frozen model.
        kind: The PET kind that asks, for messages.

    Raises:
        ConfigError: There are no layers above the cut, or they are built otherwise.
    """
    layers = adapted_layers(backbone)
    if not layers:
        raise ConfigError(
            f"module.kind={kind} sits on transformer layers, of which {backbone.name} has none above the cut: use "
            "fewer frozen layers, another backbone, or module.kind=lora with backbone.frozen_layers=0"
        )
    suffix = backbone.suffix()
    every = linear_paths(backbone)
    paths = [[path for path in every if path.startswith(f"{backbone.cut.path}.{index}.")] for index in layers]
    try:
        with _watched(suffix, every) as seen:
            probe(backbone, suffix)
        return [_dissected(backbone, suffix, seen, inside) for inside in paths]
    except _UnlikeError as error:
        raise ConfigError(
            f"module.kind={kind} needs layers of an attention and a feed-forward sublayer made of linear maps "
            f"(torch.nn.Linear); those of {backbone.name} are not: {error}. Use module.kind=lora or another backbone"
        ) from None


class _UnlikeError(Exception):
    """A layer is not built as supposed."""


def _dissected(backbone: Backbone, suffix: Suffix, seen: dict[str, Tensor], inside: list[str]) -> Sublayer:
    called = [path for path in seen if path in inside]
    if not called:
        raise _UnlikeError("a layer has no linear maps")
    readers = [path for path in called if seen[path] is seen[called[0]]]
    behind = [path for path in called if path not in readers]
    if len(behind) < 2:
        raise _UnlikeError(f"{called[0]} and its neighbours read the same states")
    attention_out, feed_forward_out = behind[0], behind[-1]
    for path in (attention_out, feed_forward_out):
        if _linear(suffix, path).out_features != backbone.hidden_size:
            raise _UnlikeError(f"{path} does not give {backbone.hidden_size} numbers")
    carrying = tuple(path for path in readers if _carries(backbone, suffix, path, attention_out, seen[attention_out]))
    if not carrying:
        raise _UnlikeError(f"nothing that {called[0]} and its neighbours give reaches another token")
    return Sublayer(carrying, attention_out, feed_forward_out)


def _carries(backbone: Backbone, suffix: Suffix, path: str, behind: str, plain: Tensor) -> bool:
    """Tell whether what a map gives for the first token reaches later tokens' inputs (else `plain`) of map `behind`."""
    disturbed = _linear(suffix, path).register_forward_hook(_disturb_first)
    with _watched(suffix, [behind]) as seen:
        probe(backbone, suffix)
    disturbed.remove()
    return not torch.allclose(seen[behind][:, 1:].float(), plain[:, 1:].float(), rtol=1e-3, atol=1e-5)


def _disturb_first(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
    rising = torch.linspace(-1, 1, output.shape[-1], dtype=output.dtype, device=output.device)
    disturbed = output.clone()
    disturbed[:, 0] += 3 * rising.abs() + rising
    return disturbed


def _linear(suffix: Suffix, path: str) -> nn.Linear:
    found = suffix.shell.get_submodule(path)
    assert isinstance(found, nn.Linear)  # noqa: S101
    return found


@contextmanager
def _watched(suffix: Suffix, paths: list[str]) -> Iterator[dict[str, Tensor]]:
    """Yield a mapping that receives, in the order of the calls, what each map was given last."""
    seen: dict[str, Tensor] = {}

    def watch(path: str) -> Any:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            seen[path] = inputs[0]

        return _linear(suffix, path).register_forward_pre_hook(hook)

    handles = [watch(path) for path in paths]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def probe(backbone: Backbone, suffix: Suffix) -> None:
    """Run a suffix on one short made-up input."""
    ids = torch.arange(5, 5 + _TOKENS, device=backbone.device).unsqueeze(0)
    states = None
    if backbone.frozen_layers:
        wave = torch.sin(torch.arange(_TOKENS * backbone.hidden_size, device=backbone.device) * 0.7)
        states = wave.view(1, _TOKENS, -1).to(backbone.dtype)
    with torch.no_grad():
        suffix(ids, torch.ones_like(ids), states)
