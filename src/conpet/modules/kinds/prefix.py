"""Prefix tuning (Li and Liang 2021) in the layers of a suffix.

PEFT's prompt modules are not used: they wrap a whole model and add prompts before its first layer or to the keys of all
layers, and cannot be injected into the layers above a cut (`peft.inject_adapter_in_model` rejects them).
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
from conpet.config import ModuleConfig
from conpet.errors import ConfigError, check_memory
from conpet.modules.kinds.base import InjectedModule, ModuleKind
from conpet.modules.kinds.settings import PrefixConfig
from conpet.modules.sublayers import adapted_layers, probe

_ATTENTION = "conpet_prefix"
"""Name under which `_attend` is registered in transformers."""
_KEY, _VALUE = "prefix_key", "prefix_value"
_DEVIATION = 0.02

_recorded: ContextVar[list[tuple[nn.Module, Tensor, Tensor]]] = ContextVar("conpet_prefix_attentions")
"""Attention modules called while `_recording`, each with its key and value."""


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Compute attention with torch's fused kernel, including the module's prefix if it has one.

    Query, key and value are `[n, heads, T, width]`; the additive mask is `[n, 1, T, T]` or None.
    """
    if (recorded := _recorded.get(None)) is not None:
        recorded.append((module, key, value))
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


# A new name in the tables of transformers; existing entries are unchanged.
AttentionInterface.register(_ATTENTION, _attend)
AttentionMaskInterface.register(_ATTENTION, eager_mask)


class Prefix(ModuleKind):
    """Trained keys and values before those of the tokens, in every attention above the cut.

    Every token attends to the whole prefix. Its keys have no position encoding. Initial values are small and random, so
    an untrained module changes the backbone's output, unlike other kinds.
    """

    name = "prefix"
    peft_type = "CONPET_PREFIX"
    Config = PrefixConfig
    note = (
        "prefix modules cannot share a forward pass: each module runs separately, which is slower when a batch needs "
        "many of them"
    )

    def document(self, backbone: Backbone, config: ModuleConfig) -> dict[str, Any]:
        """Return the document: the kind, the length and the shapes `[heads, width]` of each attention."""
        assert isinstance(config, PrefixConfig)  # noqa: S101 - see `Config`
        suffix = backbone.suffix()
        attentions = _attentions(backbone, suffix)
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
                for module, key, value in attentions
            },
        }

    def inject(
        self, backbone: Backbone, suffix: Suffix, document: Mapping[str, Any], generator: torch.Generator
    ) -> InjectedModule:
        """Give each attention a prefix and make the suffix attend to it."""
        _use_prefix_attention(backbone, suffix)
        parameters = {}
        for path, shapes in document["attentions"].items():
            attention = suffix.shell.get_submodule(path)
            for name in (_KEY, _VALUE):
                heads, width = shapes[name]
                drawn = torch.empty(heads, document["prefix_tokens"], width, dtype=torch.float32)
                drawn.normal_(std=_DEVIATION, generator=generator)
                parameters[f"{path}.{name}"] = nn.Parameter(drawn.to(backbone.device))
                attention.register_parameter(name, parameters[f"{path}.{name}"])
        return InjectedModule(parameters)


def _attentions(backbone: Backbone, suffix: Suffix) -> list[tuple[nn.Module, Tensor, Tensor]]:
    """Return the attention module of each layer of a suffix, with a key and a value it computed."""
    _use_prefix_attention(backbone, suffix)
    with _recording() as attentions:
        try:
            probe(backbone, suffix)
        except (RuntimeError, TypeError, ValueError) as error:
            check_memory(error, "the backbone's attention modules were located")
            raise _unsupported(backbone, str(error)) from error
    layers = len(adapted_layers(backbone))
    if not attentions or len(attentions) != layers:
        raise _unsupported(backbone, f"{len(attentions)} attention modules ran in {layers} layers")
    return attentions


def _use_prefix_attention(backbone: Backbone, suffix: Suffix) -> None:
    shell = suffix.shell
    if not isinstance(shell, PreTrainedModel):
        raise _unsupported(backbone, "it is not a model of the transformers library")
    shell.set_attn_implementation(_ATTENTION)


@contextmanager
def _recording() -> Iterator[list[tuple[nn.Module, Tensor, Tensor]]]:
    token = _recorded.set([])
    try:
        yield _recorded.get()
    finally:
        _recorded.reset(token)


def _unsupported(backbone: Backbone, reason: str) -> ConfigError:
    return ConfigError(
        f"module.kind=prefix needs layers above the cut that attend through transformers' attention interface; "
        f"{backbone.name} has none: {reason}. Use module.kind=lora, or another backbone"
    )
