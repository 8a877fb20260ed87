"""All registered components fulfil their contracts, and the contract suites find components that do not."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from conpet.data import Kind
from conpet.errors import UnknownNameError
from conpet.fusion.paper import PaperFusion
from conpet.methods import METHODS
from conpet.methods.dynamic import DynamicMethod
from conpet.modules.kinds import MODULE_KINDS
from conpet.selectors import SELECTORS
from conpet.selectors.linear import LinearSelector
from conpet.testing import (
    METHOD_CHECKS,
    ContractError,
    Trial,
    check_fusion_contract,
    check_method_contract,
    check_selector_scores,
    tiny_settings,
    toy_stream,
)

ELSEWHERE = "reloaded_elsewhere"
HERE = [check for check in METHOD_CHECKS if check != ELSEWHERE]
VARIANTS: dict[str, dict[str, Any]] = {
    "learned, the paper's fusion, k=2": {"fusion": "paper", "selector": {"name": "learned", "top_k": 2}},
    "no prefix, a small memory by k-means": {
        "backbone": {"frozen_layers": 0},
        "replay": {"retention": "k-means", "memory_examples": 6},
    },
    "latent only": {"replay": {"latent_only": True}, "selector": "learned"},
}
"""Settings that take other paths through the code; no check in a second process is needed for them."""

KINDS: dict[str, dict[str, Any]] = {name: {"module": name} for name in MODULE_KINDS if name != "lora"}
KINDS["dora"] = {"module": {"dora": True, "rslora": True}}
KIND_CHECKS = ("changes_nothing", "same_seed_same_bytes", "batches_do_not_matter")
"""The checks that a module kind could break."""


@pytest.mark.parametrize("check", HERE)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_keeps_the_contract(method: str, check: str, tmp_path: Path) -> None:
    METHOD_CHECKS[check](Trial(tmp_path, tiny_settings(method=method)))


def test_every_method_gives_the_same_answers_in_another_process(tmp_path: Path) -> None:
    """One process is asked about all methods: to start it takes longer than to answer."""
    METHOD_CHECKS[ELSEWHERE](*(Trial(tmp_path / method, tiny_settings(method=method)) for method in METHODS))


def test_other_answers_in_another_process_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def other(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        _, texts, _ = json.loads(command[-1])
        return subprocess.CompletedProcess(command, 0, json.dumps([[{"wrong": 1.0} for _ in texts]]), "")

    monkeypatch.setattr(subprocess, "run", other)
    with pytest.raises(ContractError, match=r"other labels in another process \(method ncm\)"):
        METHOD_CHECKS[ELSEWHERE](Trial(tmp_path, tiny_settings(method="ncm")))


@pytest.mark.parametrize("check", HERE)
@pytest.mark.parametrize("variant", VARIANTS)
def test_other_settings_keep_it_too(variant: str, check: str, tmp_path: Path) -> None:
    METHOD_CHECKS[check](Trial(tmp_path, tiny_settings(**VARIANTS[variant])))


@pytest.mark.parametrize("check", KIND_CHECKS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_module_kind_keeps_it(kind: str, check: str, tmp_path: Path) -> None:
    METHOD_CHECKS[check](Trial(tmp_path, tiny_settings(**KINDS[kind])))


@pytest.mark.parametrize("selector", SELECTORS)
def test_every_selector_keeps_its_contract(selector: str, tmp_path: Path) -> None:
    check_selector_scores(Trial(tmp_path, tiny_settings(selector=selector)))


def test_a_method_that_adds_up_to_more_than_one_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def greedy(self: PaperFusion, evidence: Any) -> torch.Tensor:
        return torch.where(evidence.impossible, -torch.inf, evidence.modules.clamp(min=0))

    monkeypatch.setattr(PaperFusion, "log_probabilities", greedy)
    with pytest.raises(ContractError, match="sum to"):
        METHOD_CHECKS["scores_are_probabilities"](Trial(tmp_path, tiny_settings(fusion="paper")))
    with pytest.raises(ContractError, match="do not sum to 1"):
        check_fusion_contract("paper")


def test_a_method_that_depends_on_the_batch_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = LinearSelector.log_probabilities

    def centred(self: LinearSelector, states: Any) -> torch.Tensor:
        scores = whole(self, states)
        return scores - scores.mean(dim=0)

    monkeypatch.setattr(LinearSelector, "log_probabilities", centred)
    with pytest.raises(ContractError, match=r"the scores of input .* differ by"):
        METHOD_CHECKS["batches_do_not_matter"](Trial(tmp_path, tiny_settings()))


def test_a_method_that_learns_by_chance_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learn_task = DynamicMethod.learn_task

    def unseeded(self: DynamicMethod, state: Any, task_data: Any, context: Any) -> Any:
        object.__setattr__(context, "seed", torch.seed() % 1000)
        return learn_task(self, state, task_data, context)

    monkeypatch.setattr(DynamicMethod, "learn_task", unseeded)
    with pytest.raises(ContractError, match=r"adapter_model\.safetensors"):
        METHOD_CHECKS["same_seed_same_bytes"](Trial(tmp_path, tiny_settings()))


def test_what_is_not_registered_has_no_contract() -> None:
    with pytest.raises(UnknownNameError, match=r"have: .*dynamic"):
        check_method_contract("guessing")


@pytest.mark.parametrize("kind", Kind)
def test_the_toy_stream_is_the_same_for_the_same_seed(kind: Kind) -> None:
    first, second, other = toy_stream(kind=kind), toy_stream(kind=kind), toy_stream(kind=kind, seed=1)
    assert [task.digest for task in first] == [task.digest for task in second]
    assert not {example.input_key for example in first[0].train} & {example.input_key for example in other[0].train}


def test_the_toy_stream_has_the_shape_asked_for() -> None:
    stream = toy_stream(2, 4, 3, 2, 1)
    assert [len(task.labels) for task in stream] == [4, 4]
    assert [(len(task.train), len(task.validation), len(task.test)) for task in stream] == [(12, 8, 4)] * 2
