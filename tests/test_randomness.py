"""The caller's generators are left as they were, CUDA's too."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from conpet.backbone.load import load_backbone
from conpet.backbone.tiny import write_tiny_random
from conpet.modules.optimisation import Schedule, optimise
from conpet.randomness import kept, seeded
from conpet.testing import Trial, tiny_settings
from tests.helpers.backbones import mask_tokenizer, tiny_model
from tests.helpers.workspaces import stream


@contextmanager
def left_alone() -> Iterator[None]:
    """Check that the block moves none of the generators on this machine's CPU."""
    before = torch.get_rng_state(), repr(np.random.get_state()), random.getstate()
    yield
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (repr(np.random.get_state()), random.getstate()) == before[1:]


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> list[torch.Generator]:
    """Put three generators in the place of those of CUDA devices 0 to 2, of which 1 is the current device."""
    generators = [torch.Generator().manual_seed(number) for number in range(3)]

    def seed_all(seed: int) -> None:
        for generator in generators:
            generator.manual_seed(seed)

    def set_state(state: torch.Tensor, index: int) -> None:
        generators[index].set_state(state)

    monkeypatch.setattr(torch.cuda, "default_generators", tuple(generators))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seed_all)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda index: generators[index].get_state())
    monkeypatch.setattr(torch.cuda, "set_rng_state", set_state)
    return generators


@pytest.mark.parametrize(
    ("devices", "used"), [([], []), (["cpu"], []), (["cuda:2", "cpu", "cuda:2"], [2]), (["cuda"], [1])], ids=str
)
def test_only_the_devices_in_use_are_seeded_and_all_are_restored(
    devices: list[str], used: list[int], cuda: list[torch.Generator]
) -> None:
    before = [generator.get_state() for generator in cuda]
    drawn = []
    for _ in range(2):
        with left_alone(), seeded(5, [torch.device(name) for name in devices]):
            drawn.append(torch.rand(3))
            seeds = [generator.initial_seed() for generator in cuda]
            for index in used:
                torch.rand(3, generator=cuda[index])
    assert torch.equal(*drawn)
    assert torch.equal(drawn[0], torch.rand(3, generator=torch.Generator().manual_seed(5)))
    assert seeds == [5 if index in used else index for index in range(3)]
    assert all(torch.equal(generator.get_state(), state) for generator, state in zip(cuda, before, strict=True))


def test_what_a_library_draws_is_given_back(cuda: list[torch.Generator]) -> None:
    before = cuda[2].get_state()
    with left_alone(), kept([torch.device("cuda:2")]):
        torch.rand(3)
        torch.rand(3, generator=cuda[2])
    assert torch.equal(cuda[2].get_state(), before)


def train(_: Path) -> None:
    weight = nn.Parameter(torch.zeros(3))
    optimise({"weight": weight}, lambda _: (weight - torch.rand(3)).square().sum(), Schedule(3, 0.1, seed=2))


@pytest.mark.parametrize("work", [train, write_tiny_random])
def test_no_cuda_generator_is_touched_by_work_on_the_cpu(
    work: Callable[[Path], Any], cuda: list[torch.Generator], tmp_path: Path
) -> None:
    before = [generator.get_state() for generator in cuda]
    with left_alone():
        work(tmp_path)
    assert all(torch.equal(generator.get_state(), state) for generator, state in zip(cuda, before, strict=True))


def test_loading_a_model_whose_file_lacks_weights_draws_nothing(tmp_path: Path) -> None:
    model = tiny_model("bert")
    model.save_pretrained(
        tmp_path, state_dict={name: one for name, one in model.state_dict().items() if not name.startswith("pooler.")}
    )
    mask_tokenizer().save_pretrained(tmp_path)
    with left_alone():
        load_backbone(str(tmp_path), dtype="float32", device="cpu")


@pytest.mark.parametrize(
    "settings",
    [
        {"module": {"dropout": 0.3}},
        {"module": {"dora": True}},
        {"module": "prefix"},
        {"backbone.warmup": "first-task", "selector": "learned"},
    ],
    ids=str,
)
def test_a_workspace_draws_nothing_of_its_callers(settings: dict[str, Any], tmp_path: Path) -> None:
    with left_alone():
        workspace = Trial(tmp_path, tiny_settings(**settings)).workspace()
        for task in stream()[:2]:
            workspace.learn(task)
        workspace.predict([example.text for example in stream()[0].test])
