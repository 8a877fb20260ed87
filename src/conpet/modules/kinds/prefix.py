"""Prefix tuning (Li and Liang 2021) in the layers of a suffix.

Of our own: PEFT's prompt kinds wrap a whole model and put prompts before its first layer, or before the keys of all
layers; none can be injected into the layers above a cut (`peft.inject_adapter_in_model` refuses them).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, eager_mask

from conpet.backbone.backbone import Backbone
from conpet.backbone.cut import Suffix
from conpet.config import ModuleConfig, Positive
from conpet.errors import ConfigError, check_memory
from conpet.modules.kinds.base import InjectedModule, ModuleKind
from conpet.modules.sublayers import adapted_layers, probe

_ATTENTION = "conpet_prefix"
"""What the attention below is called in transformers."""
_KEY, _VALUE = "prefix_key", "prefix_value"
_DEVIATION = 0.02

_seen: ContextVar[list[tuple[nn.Module, Tensor, Tensor]]] = ContextVar("conpet_prefix_seen")
"""Where the attentions of a suffix report themselves while they are looked for."""


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Attend as torch's fused kernel does, over the module's prefix too, if it has one.

    Query, key and value are `[n, heads, T, width]`; the mask, added to scores, is `[n, 1, T, T]` or None.
    """
    if (seen := _seen.get(None)) is not None:
        seen.append((module, key, value))
    if hasattr(module, _KEY):
        rows, length = len(key), key.shape[2]
        if attention_mask is None:
            causal = bool(getattr(module, "is_causal", True))
            attention_mask = torch.zeros(1, 1, length, length, dtype=query.dtype, device=query.device)
            attention_mask = attention_mask.fill_(-torch.inf).triu(1) if causal else attention_mask
        key, value = (
            torch.cat([getattr(module, name).to(states).expand(rows, -1, -1, -1), states], dim=2)
            for name, states in ((_KEY, key), (_VALUE, value))
        )
        attention_mask = nn.functional.pad(attention_mask, (key.shape[2] - length, 0))
    attended: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    return attended


# A new name in transformers' table: what stands there under other names stays as it is.
AttentionInterface.register(_ATTENTION, _attend)
AttentionMaskInterface.register(_ATTENTION, eager_mask)


class PrefixConfig(ModuleConfig):
    """Settings of prefix tuning.

    Attributes:
        tokens: Number of trained keys and values before the tokens.
    """

    tokens: Positive = 16


class Prefix(ModuleKind):
    """Trained keys and values before those of the tokens, in every attention above the cut.

    Every token sees the whole prefix. Keys are used as they are, without a position. All begin as small random
    numbers, so that, unlike other kinds, an untrained module changes what the backbone gives.
    """

    name = "prefix"
    peft_type = "CONPET_PREFIX"
    Config = PrefixConfig
    note = (
        "prefix modules cannot share a pass: inputs that need different ones are run module by module, which is slower "
        "where many modules are asked at once"
    )

    def document(self, backbone: Backbone, config: ModuleConfig) -> dict[str, Any]:
        """Return our own document: the kind, the length and the shapes `[heads, width]` of each attention."""
        assert isinstance(config, PrefixConfig)  # noqa: S101 - as `Config` says
        suffix = backbone.suffix()
        found = _attentions(backbone, suffix)
        names = {id(module): name for name, module in suffix.shell.named_modules()}
        return {
            "peft_type": self.peft_type,
            "base_model_name_or_path": backbone.name,
            "prefix_tokens": config.tokens,
            "attentions": {
                names[id(module)]: {
                    _KEY: [key.shape[1], key.shape[3]],
                    _VALUE: [value.shape[1], value.shape[3]],
                }
                for module, key, value in found
            },
        }

    def inject(
        self, backbone: Backbone, suffix: Suffix, document: Mapping[str, Any], generator: torch.Generator
    ) -> InjectedModule:
        """Give each attention its prefix and let the suffix attend to it."""
        _switch(backbone, suffix)
        parameters = {}
        for path, shapes in document["attentions"].items():
            attention = suffix.shell.get_submodule(path)
            for name in (_KEY, _VALUE):
                heads, width = shapes[name]
                drawn = torch.empty(heads, document["prefix_tokens"], width)
                drawn.normal_(std=_DEVIATION, generator=generator)
                parameters[f"{path}.{name}"] = nn.Parameter(drawn.to(backbone.device))
                attention.register_parameter(name, parameters[f"{path}.{name}"])
        return InjectedModule(parameters)


def _attentions(backbone: Backbone, suffix: Suffix) -> list[tuple[nn.Module, Tensor, Tensor]]:
    """Return the attentions of a suffix, one a layer, each with a key and a value it computed."""
    _switch(backbone, suffix)
    with _looking() as found:
        try:
            probe(backbone, suffix)
        except (RuntimeError, TypeError, ValueError) as error:
            check_memory(error, "the backbone's attentions were looked for")
            raise _refused(backbone, str(error)) from error
    if not found or len(found) != len(adapted_layers(backbone)):
        raise _refused(backbone, f"{len(found)} attentions ran in {len(adapted_layers(backbone))} layers")
    return found


def _switch(backbone: Backbone, suffix: Suffix) -> None:
    shell = suffix.shell
    if not isinstance(shell, PreTrainedModel):
        raise _refused(backbone, "it is no model of the transformers library")
    shell.set_attn_implementation(_ATTENTION)


@contextmanager
def _looking() -> Iterator[list[tuple[nn.Module, Tensor, Tensor]]]:
    token = _seen.set([])
    try:
        yield _seen.get()
    finally:
        _seen.reset(token)


def _refused(backbone: Backbone, reason: str) -> ConfigError:
    return ConfigError(
        f"module.kind=prefix needs layers above the cut that attend through transformers' attention interface; "
        f"{backbone.name} has none: {reason}. Use module.kind=lora or another backbone"
    )
