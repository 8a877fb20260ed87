"""What a prediction needs and gives, whatever else is in its batch."""

from __future__ import annotations

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from conpet import ConPET, Example, Task
from conpet.testing import toy_stream
from conpet.testing.toy import tiny_settings
from tests.helpers.cli import conpet

HEADS = 4
"""Attention heads of the tiny model."""
PRODUCTS = {"matmul", "linear", "mm", "addmm", "bmm", "baddbmm", "baddbmm_", "_linear_pointwise", "_int_mm"}


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose modules always run, two for each input, and differ in rank."""
    always = {"selector.top_k": 2, "fusion.skip_above": None, "backbone.dtype": request.param}
    learner = ConPET.create(tmp_path_factory.mktemp(request.param) / "w", **tiny_settings(**always))
    for rank, task in zip((4, 3, 16), toy_stream(3, labels=2, train=8, test=4), strict=True):
        ranked = Task(task.name, task.train, task.validation, task.test, settings={"module": {"rank": rank}})
        learner.learn(ranked, evaluate=False)
    return learner.path


def texts(count: int, longest: int, seed: int = 0) -> list[str]:
    """Return different texts of very different lengths."""
    draw, words = random.Random(seed), [word for task in toy_stream(3) for word in task.train[0].text.split()]
    return [" ".join([*draw.choices(words, k=draw.randint(1, longest)), str(number)]) for number in range(count)]


def answers(workspace: ConPET, asked: Sequence[str]) -> dict[str, list[tuple[str | None, float]]]:
    """Return the labels and scores of texts."""
    predictions = workspace.predict(asked, top_n=6)
    return {
        text: [(one.label, one.score) for one in (prediction, *prediction.runners_up)]
        for text, prediction in zip(asked, predictions, strict=True)
    }


class Shapes(TorchDispatchMode):
    """Collects the shapes of matrix products in 16 or 8 bits, whose kernels are compiled for each of them."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[Any] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__.partition(".")[0]
        tensors = [one for one in args if isinstance(one, torch.Tensor)]
        if name in PRODUCTS and tensors[0].dtype in (torch.bfloat16, torch.int8):
            self.seen.add((name, *(tuple(one.shape) for one in tensors)))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("path", ["bfloat16"], indirect=True)
def test_inputs_of_all_lengths_need_few_shapes_of_matrix_products(path: Path) -> None:
    workspace, counts = ConPET.open(path), []
    workspace.predict(["loaded once"])
    asked = texts(2400, longest=20)
    with Shapes() as shapes:
        for start in range(0, len(asked), 300):
            list(workspace.predict_stream(asked[start : start + 300], top_n=1))
            counts.append(len(shapes.seen))
    assert 10 < counts[-1] < 500
    assert counts[-1] < 1.3 * counts[3]  # those of the first half serve the second
    batched = {
        name: {shape[0] for product, shape, *_ in shapes.seen if product == name} for name in ("bmm", "baddbmm_")
    }
    powers = {4**power for power in range(6)}
    assert batched["baddbmm_"] <= powers  # the modules of the rows of a batch
    assert batched["bmm"] <= powers | {HEADS * power for power in powers}  # and attention


def test_deterministic_scores_do_not_depend_on_the_rest_of_a_batch(path: Path) -> None:
    asked = texts(20, longest=30)
    fresh = ConPET.open(path, deterministic=True)
    alone = {text: one for text in asked for one in answers(fresh, [text]).values()}
    shuffled = random.Random(0).sample(asked, len(asked))
    for workspace in (fresh, ConPET.open(path, deterministic=True)):  # with cached logits, and without
        assert answers(workspace, asked) == alone
        for size in (2, 5, 17):
            part = shuffled[:size]
            assert answers(workspace, part) == {text: alone[text] for text in part}
    together = ConPET.open(path, deterministic=True)
    with ThreadPoolExecutor(4) as threads:
        for result in threads.map(lambda _: answers(together, shuffled), range(4)):
            assert result == alone


def test_deterministic_scores_do_not_depend_on_which_modules_were_read_before(path: Path) -> None:
    asked, other = texts(6, longest=8), toy_stream(3, labels=2, train=8, test=4)
    expected = answers(ConPET.open(path, deterministic=True), asked)
    for task in other:
        workspace = ConPET.open(path, deterministic=True)
        workspace.predict([example.text for example in task.test])
        assert answers(workspace, asked) == expected


def test_deterministic_scores_are_those_of_cached_states(path: Path) -> None:
    examples = [Example.of_text(text) for text in texts(20, longest=20)]
    backbone = ConPET.open(path, deterministic=True).backbone
    first = backbone.states(examples)  # written to the cache
    second, others = backbone.states(examples), ConPET.open(path).backbone.states(examples)
    for again in (second, backbone.states(examples[::-1], keep=False).select(range(19, -1, -1))):
        assert torch.equal(first.features, again.features)
        assert all(map(torch.equal, first.hidden or (), again.hidden or ()))
    torch.testing.assert_close(others.features, first.features, rtol=0, atol=0.2)


def test_the_setting_can_be_stored_and_overridden(tmp_path: Path) -> None:
    learner = ConPET.create(tmp_path / "w", **tiny_settings(**{"backbone.deterministic": True}))
    learner.learn(toy_stream(1)[0], evaluate=False)
    assert learner.backbone.deterministic
    assert ConPET.open(learner.path).backbone.deterministic
    assert not ConPET.open(learner.path, deterministic=False).backbone.deterministic


def test_predict_has_an_option_for_it(path: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    asked = texts(12, longest=20)
    rows.write_text("".join(f'{{"text": "{text}"}}\n' for text in asked))
    expected = [row[0][1] for row in answers(ConPET.open(path, deterministic=True), asked).values()]
    printed = conpet("predict", path, "-i", rows, "--deterministic", "--json")
    assert [row["score"] for row in printed.rows] == pytest.approx(expected, abs=1e-6)
