"""A map with a low-rank update, as one operation: what the plain formula and its derivatives give."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from conpet.modules.low_rank import LowRankLinear

SCALE = 0.7
Formula = Callable[[Tensor, LowRankLinear], Tensor]


def plain(hidden: Tensor, layer: LowRankLinear) -> Tensor:
    return layer.base(hidden) + SCALE * (hidden @ layer.down.T) @ layer.up.T


def made(*, bias: bool, dropout: float = 0.0) -> LowRankLinear:
    torch.manual_seed(0)
    base = nn.Linear(6, 5, bias=bias).requires_grad_(False)
    down, up = nn.Parameter(torch.randn(2, 6)), nn.Parameter(torch.randn(5, 2))
    return LowRankLinear(base, down, up, SCALE, nn.Dropout(dropout) if dropout else nn.Identity())


def derivatives(layer: LowRankLinear, formula: Formula, *, of_input: bool) -> list[Tensor]:
    hidden = torch.linspace(-1, 1, 3 * 4 * 6).view(3, 4, 6).requires_grad_(of_input)
    output = formula(hidden, layer)
    wanted = [layer.down, layer.up, *([hidden] if of_input else [])]
    return [output.detach(), *torch.autograd.grad((output * torch.arange(5)).sum(), wanted)]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("of_input", [True, False])
def test_output_and_derivatives_are_those_of_the_formula(bias: bool, of_input: bool) -> None:
    layer = made(bias=bias)
    expected = derivatives(layer, plain, of_input=of_input)
    found = derivatives(layer, lambda hidden, one: one(hidden), of_input=of_input)
    torch.testing.assert_close(found, expected)
    assert layer.base.weight.grad is None


def test_a_past_update_is_added_and_gets_no_gradient() -> None:
    layer, past = made(bias=True), (torch.randn(3, 6), torch.randn(5, 3))
    layer.add_frozen_update(*past)
    expected = derivatives(
        layer, lambda hidden, one: plain(hidden, one) + (hidden @ past[0].T) @ past[1].T, of_input=True
    )
    torch.testing.assert_close(derivatives(layer, lambda hidden, one: one(hidden), of_input=True), expected)


def test_dropout_touches_what_the_update_reads_and_only_in_training() -> None:
    layer = made(bias=True, dropout=0.5)
    hidden = torch.ones(2, 3, 6)
    torch.manual_seed(1)
    dropped = layer(hidden)
    torch.manual_seed(1)
    rows = layer.dropout(hidden.view(-1, 6))
    expected = layer.base(hidden) + (SCALE * (rows @ layer.down.T) @ layer.up.T).view(2, 3, 5)
    torch.testing.assert_close(dropped, expected)
    layer.eval()
    torch.testing.assert_close(layer(hidden), plain(hidden, layer))


def test_half_formats_are_computed_in_theirs_and_learned_in_float32() -> None:
    layer = made(bias=True)
    exact = derivatives(layer, plain, of_input=True)
    layer.base.to(torch.bfloat16)
    found = derivatives(layer, lambda hidden, one: one(hidden), of_input=True)
    assert [one.dtype for one in found] == [torch.bfloat16, torch.float32, torch.float32, torch.float32]
    for one, other in zip(found, exact, strict=True):
        torch.testing.assert_close(one.float(), other, rtol=0.03, atol=0.2)


@pytest.mark.parametrize("shares", [(2, 2, 2), (1, 3, 2), (4, 0, 2), (0, 3, 3)])
def test_updates_trained_in_one_batch_each_see_their_own_rows_alone(shares: tuple[int, int, int]) -> None:
    layers = [made(bias=True) for _ in shares]
    for number, layer in enumerate(layers):
        layer.up.data *= number + 1
    hidden = torch.linspace(-1, 1, 6 * 4 * 6).view(6, 4, 6).requires_grad_(True)
    weights = torch.arange(6.0).view(6, 1, 1) * torch.arange(5)
    wanted = [hidden, *(one for layer, share in zip(layers, shares, strict=True) if share for one in layer.maps)]
    parts = zip(hidden.split(list(shares)), layers, strict=True)
    alone = torch.cat([plain(part, layer) for part, layer in parts])
    expected = [alone.detach(), *torch.autograd.grad((alone * weights).sum(), wanted)]
    layers[0].batch_with(layers[1:])
    layers[0].share(shares)
    together = layers[0](hidden)
    torch.testing.assert_close([together.detach(), *torch.autograd.grad((together * weights).sum(), wanted)], expected)
