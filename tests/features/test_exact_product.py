"""Products of whole numbers are exact, whatever computes them."""

from __future__ import annotations

import pytest
import torch

from conpet.features import exact_product
from conpet.features.exact_product import MAX_ROW, MAX_WEIGHT, ExactProduct


@pytest.mark.parametrize("instructions", [True, False], ids=["8-bit", "float64"])
@pytest.mark.parametrize(("rows", "width"), [(1, 300), (3, 300), (128, 300), (200, 300), (2, 13_107), (2, 13_108)])
def test_products_are_exact(rows: int, width: int, instructions: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if instructions and not exact_product._has_instructions():
        pytest.skip(
            "no exact 8-bit products on this processor: conpet multiplies in float64, which the other cases test"
        )
    monkeypatch.setattr(exact_product, "_has_instructions", lambda: instructions)
    draw = torch.Generator().manual_seed(rows)
    numbers = torch.randint(-MAX_ROW, MAX_ROW + 1, (rows, width), generator=draw)
    weights = torch.randint(-MAX_WEIGHT, MAX_WEIGHT + 1, (width, 40), generator=draw)
    numbers[0], weights[:, 0], weights[:, 1] = MAX_ROW, MAX_WEIGHT, -MAX_WEIGHT  # the largest sums
    product = ExactProduct(weights.to(torch.int16)).of(numbers.double())
    assert product.dtype is torch.float64
    assert torch.equal(product, (numbers @ weights).double())
