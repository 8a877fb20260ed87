"""An exported folder has everything needed to use a module without conpet."""

from __future__ import annotations

from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from conpet import ConPET, Example, Task
from conpet.data import Span
from conpet.testing import live_of, tiny_settings
from tests.helpers.backbones import write_model
from tests.helpers.exported import examples_of, logits_of, script_of
from tests.helpers.workspaces import stream, workspace

TEXTS = ("hello vhxhh ooofh", "[MASK] </s> <s>", "my please nnknk " * 20)


CASES: dict[str, tuple[str, str | None, dict[str, Any]]] = {
    "lora": ("bert", None, {}),
    "dora with a slot": ("bert", "Ask {slot} about {text} now.", {"module.dora": True, "features.pooling": "slot"}),
    "slot after the text": ("bert", "{text} is {slot}.", {"module.rslora": True, "features.pooling": "slot+mean"}),
    "ia3, warmed up": ("llama", None, {"module": {"kind": "ia3"}, "backbone.warmup": "first-task"}),
    "static": ("llama", "{text} {slot}.", {"method": "emr"}),
}


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.parametrize("case", CASES)
def test_the_script_gives_the_logits(tmp_path: Path, case: str) -> None:
    architecture, template, settings = CASES[case]
    backbone = write_model(tmp_path / "model", architecture)
    named = {"backbone.name": str(backbone), "backbone.max_tokens": 32, "training.epochs": 1}
    if "module" in settings:
        named |= {"module": settings["module"]}
    learner = ConPET.create(tmp_path / "ws", **tiny_settings(**(settings | named)))
    for task in stream()[:2]:
        learner.learn(Task(task.name, task.train, template=template), evaluate=False)
    script = script_of(learner.export(stream()[1].name, tmp_path / "out"))
    loaded = script.load(str(backbone))
    labels = script.ABOUT["labels"]
    assert labels == list(stream()[1].labels)
    for text, logits in zip(TEXTS, logits_of(learner, 1, examples_of(TEXTS)), strict=True):
        rows = script.ABOUT["rows"]
        torch.testing.assert_close(script.logits(*loaded, text), logits[rows], rtol=0, atol=1e-4)
    assert script.ABOUT["backbone"]["tuned"] == (
        {"by": "warm-up", "tasks": [stream()[0].name], "examples": len(stream()[0].train)} if "warmed" in case else None
    )


def test_labels_keep_their_rows_after_a_rename(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 1)
    first, second = stream()[0].labels
    learner.rename(first, "zzz", evaluate=False)
    script = script_of(learner.export(stream()[0].name, tmp_path / "out"))
    loaded = script.load(str(learner.backbone.cut.model.config.name_or_path))
    within = dict(zip(script.ABOUT["labels"], script.logits(*loaded, TEXTS[0]).softmax(0).tolist(), strict=True))
    live = live_of(learner)
    (logits,) = logits_of(learner, 0, examples_of((TEXTS[2],)))
    assert within.keys() == {second, "zzz"}
    again = script.logits(*loaded, TEXTS[2])
    assert [live.state.tasks[0].labels[row] for row in script.ABOUT["rows"]] == script.ABOUT["labels"]
    torch.testing.assert_close(again, logits[script.ABOUT["rows"]], rtol=0, atol=1e-4)


LONG = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
RELATIONS = (
    Example.of_relation(("Ada", "was", "born", "in", "London", "."), Span(0, 1), Span(4, 5)),
    Example.of_relation(("the", "King", "of", "Spain", " "), Span(3, 4), Span(1, 4)),  # one inside the other
    Example.of_relation(("a", "b", "c"), Span(0, 1), Span(1, 3)),  # nothing between them
    Example.of_relation(LONG * 3, Span(20, 21), Span(9, 11)),
)
MENTIONS = (
    Example.of_mention(("Ada", "wrote", "it"), Span(0, 1)),
    Example.of_mention(("[MASK]", "", "x"), Span(2, 3)),
    Example.of_mention(LONG * 3, Span(14, 17)),
)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.parametrize("architecture", ["bert", "llama"])
@pytest.mark.parametrize(
    ("examples", "template", "pooling"),
    [
        (RELATIONS, None, "marked"),
        (RELATIONS, "{tail} and {head}: {sentence} {slot}.", "slot"),
        (MENTIONS, None, "marked"),
        (MENTIONS, "In {sentence} {mention} is", "slot+mean"),
    ],
)
def test_the_script_gives_the_logits_of_marked_inputs(
    tmp_path: Path, examples: tuple[Example, ...], template: str | None, pooling: str, architecture: str
) -> None:
    backbone = write_model(tmp_path / "model", architecture)
    settings = {"backbone.name": str(backbone), "backbone.max_tokens": 110, "features.pooling": pooling}
    learner = ConPET.create(tmp_path / "ws", **tiny_settings(**settings, **{"training.epochs": 1}))
    train = tuple(replace(example, label=f"label-{number % 2}") for number, example in enumerate(examples))
    learner.learn(Task("spans", train, template=template), evaluate=False)
    script = script_of(learner.export("spans", tmp_path / "out"))
    loaded = script.load(str(backbone))
    for example, logits in zip(examples, logits_of(learner, 0, examples), strict=True):
        row = {name: list(astuple(span)) for name in ("head", "tail", "mention") if (span := getattr(example, name))}
        found = script.logits(*loaded, {"tokens": list(example.tokens), **row})
        torch.testing.assert_close(found, logits, rtol=0, atol=1e-4)


def test_a_folder_without_script_says_why_and_how_an_input_becomes_logits(tmp_path: Path) -> None:
    learner = workspace(tmp_path)
    learner.learn(replace(stream()[0], settings={"module": "prefix"}), evaluate=False)
    folder = learner.export(stream()[0].name, tmp_path / "out")
    readme = (folder / "README.md").read_text(encoding="utf-8")
    for said in (
        "There is no script with this module: plain PEFT cannot load modules of kind prefix",
        "in conpet's own format",
        "and as many zeros.",
        learner.store.header().backbone["fingerprint"]["weights"],
    ):
        assert said in readme
    assert not (folder / "logits.py").exists()
