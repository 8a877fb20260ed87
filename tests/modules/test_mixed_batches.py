"""Modules of all kinds in one pool: each gives what it gives alone, whatever else is asked."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

from conpet.backbone import backbone as backbone_module
from conpet.backbone.states import Batching
from conpet.cost import metered
from conpet.modules.kinds import MODULE_KINDS
from conpet.modules.module import StoredModule
from conpet.modules.pool import ModulePool
from tests.helpers.backbones import EXAMPLES, LAYERS
from tests.helpers.modules import (
    ARCHITECTURES,
    VARIANTS,
    bench,
    head_of,
    represented,
    shaken,
    stored,
)


class Mixture:
    """One module of every kind, two of some, and what each gives alone."""

    def __init__(self, architecture: str) -> None:
        self.backbone = bench(architecture)
        self.states = self.backbone.states(EXAMPLES)
        self.expected: dict[StoredModule, Tensor] = {}
        shapes: Mapping[str, list[dict[str, Any]]] = {
            "lora": [{}, {"module": {"rank": 5, "alpha": 3.0}}],
            "houlsby": [{}, {"module": {"width": 2}}],
            "prefix": [{}, {"module": {"tokens": 6}}],
        }
        for variant in VARIANTS:
            for values in shapes.get(variant, [{}]):
                seed = len(self.expected)
                module, head = shaken(self.backbone, variant, seed, **values), head_of(self.backbone, seed, seed + 2)
                self.expected[stored(module, head)] = head(represented(self.backbone, module)).detach()
        self.modules = list(self.expected)

    def check(self, pool: ModulePool, turn: int = 0) -> None:
        count = len(self.modules)
        wanted = [[self.modules[(row + turn + step * 3) % count] for step in range(3)] for row in range(len(EXAMPLES))]
        for row, found in enumerate(pool.outputs(self.states, wanted)):
            assert set(found) == set(wanted[row])
            for module, logits in found.items():
                torch.testing.assert_close(logits, self.expected[module][row], rtol=0, atol=1e-5)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def mixture(request: pytest.FixtureRequest) -> Mixture:
    return Mixture(request.param)


def test_every_mixture_of_kinds_gives_what_each_module_gives_alone(mixture: Mixture) -> None:
    pool = ModulePool(mixture.backbone)
    for turn in range(len(mixture.modules)):
        mixture.check(pool, turn)


def test_a_pool_that_holds_two_modules_serves_all_kinds(mixture: Mixture) -> None:
    pool = ModulePool(mixture.backbone, capacity=2, kept_bytes=0)
    for turn in range(4):
        mixture.check(pool, turn)
        assert max(len(pool._resident), len(pool._unbatched)) <= 2


@pytest.mark.parametrize("capacity", [2, 64])
def test_threads_ask_one_pool_for_all_kinds(mixture: Mixture, capacity: int) -> None:
    pool = ModulePool(mixture.backbone, capacity=capacity, kept_bytes=0)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda turn: mixture.check(pool, turn), range(12)))


def test_modules_share_a_pass_or_their_kind_says_that_they_cannot(
    mixture: Mixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backbone_module, "ON_CPU", Batching(tokens=2048, per_pass=2048))
    for name in MODULE_KINDS:
        kind = MODULE_KINDS[name]()
        assert kind.batched is (kind.note is None)
    together = [module for module in mixture.modules if module.kind.batched]
    assert len(together) == len(mixture.modules) - 2
    pool, passes = ModulePool(mixture.backbone), []
    pool._suffix.shell.register_forward_pre_hook(lambda *_: passes.append(1))
    pool.outputs(mixture.states.select([0, 2, 4]), [together] * 3)
    assert passes == [1]


def test_every_pass_is_counted_whatever_the_kind() -> None:
    backbone = bench("llama")
    states = backbone.states(EXAMPLES[:1])
    length = len(states.encoded[0].ids)
    for variant in VARIANTS:
        module = stored(shaken(backbone, variant), head_of(backbone, 0, 2))
        with metered() as costs:
            ModulePool(backbone).represent(states, module)
        assert costs.tokens == length * 2 / LAYERS
