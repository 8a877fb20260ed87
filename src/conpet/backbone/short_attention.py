"""Attention over short inputs on a CPU, in 16 bits, by separate products: where measured, faster than torch's kernel.

They also round alike in batches of all sizes: the scores of an input depend less on the rest of its batch.
Training and long inputs use torch's fused kernel.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from conpet.backbone.few_sizes import in_few_sizes

NAME = "conpet-short"
_FUSED = "sdpa"
MAX_TOKENS = 64
"""Longest inputs for which separate products were faster, measured on one core with heads of 32 and 64 dimensions."""

_VECTOR = 32
"""Numbers in the widest vector of 16 bits."""


def use_short_attention(model: nn.Module) -> None:
    """Make a model that uses torch's fused attention use separate products where they are faster."""
    config: Any = getattr(model, "config", None)
    if getattr(config, "_attn_implementation", None) == _FUSED:
        AttentionInterface.register(NAME, _attention)
        AttentionMaskInterface.register(NAME, sdpa_mask)
        config._attn_implementation = NAME


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Return the attention's output `[n, T, heads, d]`, in the form that Transformers calls it."""
    tokens, width = query.shape[2:]
    fits = tokens == key.shape[2] <= MAX_TOKENS
    known = attention_mask is None or attention_mask.dtype is torch.bool
    if torch.is_grad_enabled() or not fits or not known or any(option is not None for option in _unusual(options)):
        output, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, is_causal, **options
        )
        return output, None
    groups = getattr(module, "num_key_value_groups", 1)
    scores = _products(query, repeat_kv(key, groups).transpose(2, 3))
    scores *= width**-0.5 if scaling is None else scaling
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    if attention_mask is None and causal:
        attention_mask = torch.ones(tokens, tokens, dtype=torch.bool, device=query.device).tril_()
    if attention_mask is not None:
        scores.masked_fill_(attention_mask.logical_not(), -torch.inf)
    output = _products(_softmax(scores), repeat_kv(value, groups))
    return output.transpose(1, 2).contiguous(), None


def _products(left: Tensor, right: Tensor) -> Tensor:
    """Return `left @ right`, `[n, heads, rows, columns]`, computed in products of few sizes."""
    parts = list(in_few_sizes(len(left)))
    if len(parts) == 1:
        return left @ right
    products = left.new_empty(*left.shape[:-1], right.shape[-1])
    for part in parts:
        torch.bmm(left[part].flatten(0, 1), right[part].flatten(0, 1), out=products[part].flatten(0, 1))
    return products


def _softmax(scores: Tensor) -> Tensor:
    """Return the softmax over the last dimension, computed in float32.

    Torch's kernel handles what is left of a row after the widest vectors one number at a time.
    """
    if scores.shape[-1] % _VECTOR == 0:
        return scores.softmax(dim=-1)
    exact = scores.float()
    exact.sub_(exact.amax(dim=-1, keepdim=True)).exp_()
    return exact.div_(exact.sum(dim=-1, keepdim=True)).to(scores.dtype)


def _unusual(options: dict[str, Any]) -> list[Any]:
    """Return the values of options that only Transformers' own function handles."""
    return [options.get(name) for name in ("position_bias", "cache", "softcap")]
