"""Separate products give what torch's fused attention gives, with padding, masks and shared heads."""

from __future__ import annotations

import pytest
import torch

from conpet.backbone.cut import run
from conpet.backbone.short_attention import MAX_TOKENS, NAME, use_short_attention
from tests.helpers.backbones import tiny_model


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("architecture", ["llama", "bert", "gpt-neox", "mpnet"])
def test_it_gives_what_the_fused_attention_gives(architecture: str, padded: bool) -> None:
    model = tiny_model(architecture)
    draw = torch.Generator().manual_seed(0)
    for tokens in (1, 9, 32, MAX_TOKENS + 1):
        ids = torch.randint(5, 50, (5, tokens), generator=draw)
        mask = torch.ones_like(ids)
        mask[1, max(1, tokens // 2) :] = 0
        given = mask if padded else None
        with torch.inference_mode():
            expected = run(model, ids, given)
            short = tiny_model(architecture)
            use_short_attention(short)
            found = run(short, ids, given)
        inside = mask.bool() if padded else torch.ones_like(ids).bool()
        torch.testing.assert_close(found[inside], expected[inside], rtol=1e-4, atol=1e-5)
    fused = getattr(model.config, "_attn_implementation", None) == "sdpa"
    assert (short.config._attn_implementation == NAME) is fused
