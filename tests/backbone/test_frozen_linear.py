"""Frozen linear maps give what plain ones give, in every pass, at any number of rows."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from conpet.backbone.frozen_linear import MAX_WEIGHT_BYTES, FrozenLinear, parameter_count, pulled_back, with_frozen_maps


def network(dtype: torch.dtype = torch.bfloat16, bias: bool = True) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(48, 96, bias=bias), nn.GELU(), nn.Linear(96, 32, bias=bias))
    return model.to(dtype).eval().requires_grad_(False)


def rows(count: int) -> torch.Tensor:
    return torch.randn(count, 48, generator=torch.Generator().manual_seed(count)).to(torch.bfloat16)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("count", [1, 7, 300])
def test_a_pass_gives_what_plain_maps_give(bias: bool, count: int) -> None:
    model, given = network(bias=bias), rows(count)
    quick = with_frozen_maps(model)
    with torch.inference_mode():
        torch.testing.assert_close(quick(given), model(given))
        torch.testing.assert_close(quick(given.view(1, count, 48)), model(given).view(1, count, 32))


def test_gradients_go_through_it() -> None:
    model, given = network(), rows(5)
    quick = with_frozen_maps(model)
    found = []
    for one in (quick, model):
        start = given.clone().requires_grad_(True)
        one(start).float().square().sum().backward()
        found.append(start.grad)
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize("quick", [True, False])
def test_a_gradient_is_pulled_back_through_the_weights(quick: bool) -> None:
    model = network()
    base: Any = (with_frozen_maps(model) if quick else model)[2]  # type: ignore[index]
    gradient = torch.randn(6, 32, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    torch.testing.assert_close(pulled_back(base, gradient), gradient @ base.weight)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_gradients_go_through_it_under_autocast(dtype: torch.dtype) -> None:
    model, given = network(), rows(5)
    quick = with_frozen_maps(model)
    found = []
    for one in (quick, model):
        start = given.to(dtype).view(1, 5, 48).requires_grad_(True)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            one(start).float().square().sum().backward()
        found.append(start.grad)
    assert torch.equal(found[0], found[1])


def test_it_leaves_the_model_alone_and_keeps_one_copy_of_each_weight() -> None:
    model = network()
    quick = with_frozen_maps(model)
    assert [type(one) for one in model.modules() if isinstance(one, nn.Linear)] == [nn.Linear, nn.Linear]
    biases = zip(quick.parameters(), (model[0].bias, model[2].bias), strict=True)  # type: ignore[index]
    assert all(one.data_ptr() == other.data_ptr() for one, other in biases)
    assert parameter_count(quick) == sum(one.numel() for one in model.parameters())


def test_saved_weights_are_the_plain_ones() -> None:
    model = network()
    saved = with_frozen_maps(model).state_dict()
    assert saved.keys() == model.state_dict().keys()
    assert all(torch.equal(saved[name], weight) for name, weight in model.state_dict().items())


def test_copies_of_a_map_share_its_weight() -> None:
    one = FrozenLinear(network()[0])  # type: ignore[index]
    assert copy.deepcopy(one).stored is one.stored


def test_a_map_of_another_number_format_is_refused_as_by_a_plain_one() -> None:
    quick = with_frozen_maps(network())
    with pytest.raises(RuntimeError, match="dtype"):
        quick(rows(2).float())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_other_number_formats_keep_their_plain_maps(dtype: torch.dtype) -> None:
    model = network(dtype)
    assert with_frozen_maps(model) is model


def test_a_model_too_large_to_be_converted_keeps_its_plain_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    monkeypatch.setattr("conpet.backbone.frozen_linear.MAX_WEIGHT_BYTES", 1000)
    assert MAX_WEIGHT_BYTES > 1000
    assert with_frozen_maps(model) is model


def test_a_build_without_the_kernels_keeps_its_plain_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    monkeypatch.setattr("conpet.backbone.frozen_linear._has_kernels", lambda: False)
    assert with_frozen_maps(model) is model
