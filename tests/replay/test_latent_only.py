"""Latent-only mode: no texts or token ids on disk, the same answers as with texts, and its limitations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conpet import ConPET, Example, Task
from conpet.artifact import InMemoryObject
from conpet.backbone.states import Encoded, States
from conpet.commands.report import report_data
from conpet.data import Kind
from conpet.errors import ConfigError
from conpet.modules import optimisation
from conpet.replay.latent import pack, unpack
from conpet.replay.memory import StoredExamples, Subset, latent_memory
from conpet.replay.memory_writer import examples_without_test_labels
from conpet.testing import ask, tiny_settings, toy_stream
from conpet.testing.checks import TOLERANCE
from tests.helpers.workspaces import Stopped, frozen_state, stop_at, stream, workspace

LATENT: dict[str, Any] = {"replay.latent_only": True, "selector": "learned"}
ID = "customer-4711"


def named_stream() -> list[Task]:
    """Return the stream, with ids on its examples."""

    def named(examples: Sequence[Example]) -> tuple[Example, ...]:
        return tuple(replace(example, id=f"{ID}-{number}") for number, example in enumerate(examples))

    return [
        replace(task, train=named(task.train), validation=named(task.validation), test=named(task.test))
        for task in stream()
    ]


def examples_of(tasks: Iterable[Task]) -> list[Example]:
    return [example for task in tasks for some in (task.train, task.validation, task.test) for example in some]


def words_of(tasks: Iterable[Task]) -> set[bytes]:
    """Return the words of five letters, which are those of topics and labels."""
    return {word.encode() for example in examples_of(tasks) for word in example.text.split() if len(word) == 5}


def ids_of(learner: ConPET, tasks: Iterable[Task]) -> set[bytes]:
    """Return six token ids from the middle of every text, in every form in which they might be written."""
    found = set()
    for one in learner.backbone.encode(examples_of(tasks)):
        middle = one.ids[len(one.ids) // 3 :][:6]
        assert len(middle) == 6
        found |= {np.array(middle, kind).tobytes() for kind in ("<i8", "<i4", "<i2")}
        found |= {separator.join(map(str, middle)).encode() for separator in (", ", ",")}
    return found


def files_with(folder: Path, patterns: set[bytes]) -> set[str]:
    contents = [(path.name, path.read_bytes()) for path in folder.rglob("*") if path.is_file()]
    return {name for name, content in contents if any(pattern in content for pattern in patterns)}


# Nothing of a text


@pytest.mark.parametrize("more", [{}, {"replay.retention": "k-means", "replay.memory_examples": 8}])
def test_no_file_holds_a_word_or_the_token_ids_of_an_example(
    more: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = workspace(tmp_path, **LATENT, **more)
    first, second, third = named_stream()
    learner.learn(first)
    learner.learn(second)
    learner.learn(replace(first, train=first.train[::2]))
    learner.rollback(first.name, 1)
    monkeypatch.setattr(optimisation, "CHECKPOINT_SECONDS", -1.0)
    with pytest.raises(Stopped):  # files left by an interruption are searched as well
        learner.learn(third, progress=stop_at("module", 0.5))
    assert learner.store.scratches()
    tasks = [first, second, third]
    words, ids = words_of(tasks), ids_of(learner, tasks)
    assert len(words) > 20
    assert files_with(learner.path, words | {ID.encode()}) == set()
    assert files_with(learner.path, ids) == set()


def test_the_search_finds_texts_and_ids_where_they_are(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 1)
    tasks = list(stream())[:1]
    assert files_with(learner.path, words_of(tasks)) == {"train.jsonl", "validation.jsonl", "test.jsonl"}
    ids = learner.backbone.encode(tasks[0].test)[0].ids
    np.array(ids).tofile(tmp_path / "ws" / "ids.bin")
    (tmp_path / "ws" / "ids.json").write_text(str(list(ids)))
    assert files_with(learner.path, ids_of(learner, tasks)) == {"ids.bin", "ids.json"}


def test_the_history_and_the_report_say_nothing_of_texts(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2, **LATENT)
    said = report_data(learner.store).to_json().encode()
    assert not [word for word in words_of(stream()) if word in said]


# All that works as with texts


def test_answers_and_accuracies_are_those_of_a_workspace_with_texts(tmp_path: Path) -> None:
    latent = workspace(tmp_path, 3, "latent", **LATENT)
    plain = workspace(tmp_path, 3, "plain", **{**LATENT, "replay.latent_only": False})
    assert latent.evaluate() == plain.evaluate()
    texts = [example.text for task in stream() for example in task.test]
    for one, other in zip(ask(latent, texts), ask(plain, texts), strict=True):
        assert one == pytest.approx(other, abs=TOLERANCE)


@pytest.mark.parametrize("replay", ["fixed", "dynamic"])
def test_past_examples_never_pass_the_prefix_again(
    replay: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = workspace(tmp_path, 2, **{"replay.schedule": replay, "backbone.cache": False}, **LATENT)
    new = stream()[2]
    backbone, seen = learner.backbone, []
    states = backbone.states

    def watched(examples: Sequence[Example], *arguments: Any, **more: Any) -> States:
        seen.extend(examples)
        return states(examples, *arguments, **more)

    monkeypatch.setattr(backbone, "states", watched)
    assert learner.learn(new).tasks_seen == 3
    assert {example.text for example in seen} == {example.text for example in examples_of([new])}
    seen.clear()
    assert (learner.evaluate().whole_accuracy or 0) > 0.6
    assert seen == []


def test_versions_come_and_go(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2, **LATENT)
    texts = [example.text for task in stream()[:2] for example in task.test]
    before, first = ask(learner, texts), stream()[0]
    learner.learn(replace(first, train=first.train[::2]))
    assert learner.rollback(first.name, 1).evaluation is not None
    after = ask(ConPET.open(learner.path), texts)
    assert all(one.keys() == other.keys() for one, other in zip(before, after, strict=True))
    learner.remove(first.name)
    assert learner.evaluate().tasks.keys() == {stream()[1].name}


def test_all_kinds_of_examples_live_beside_each_other(tmp_path: Path) -> None:
    learner = workspace(tmp_path, **LATENT)
    for kind in Kind:
        for task in toy_stream(2, 2, 8, 2, 4, kind=kind):
            report = learner.learn(task)
    assert report.evaluation is not None
    assert (report.evaluation.whole_accuracy or 0) > 0.6


@pytest.mark.parametrize("retention", ["reservoir", "class-balanced", "k-means"])
def test_a_limit_in_bytes_is_one_of_states(retention: str, tmp_path: Path) -> None:
    limit = 60_000
    learner = workspace(tmp_path, **{"replay.memory_bytes": limit, "replay.retention": retention}, **LATENT)
    counts = []
    for task in stream():
        learner.learn(task, evaluate=False)
        memories = [examples_without_test_labels(record.active) for record in learner.tasks]
        sizes = [
            tensor.numel() * tensor.element_size()
            for memory in memories
            for tensor in memory.reader.tensors(Subset.TRAIN).values()
        ]
        assert 0 < sum(sizes) <= limit
        counts.append(sum(memory.count(Subset.TRAIN) for memory in memories))
    assert counts[-1] < 3 * len(stream()[0].train)
    assert examples_without_test_labels(learner.tasks[0].active).count(Subset.TEST) == len(stream()[0].test)


# What it rules out


def test_without_a_prefix_there_is_nothing_to_keep(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"latent_only=true .*frozen_layers=0 .*freeze at least one layer"):
        ConPET.create(tmp_path / "ws", **tiny_settings(replay={"latent_only": True}, backbone={"frozen_layers": 0}))
    assert list(tmp_path.iterdir()) == []


def test_a_second_template_for_a_kind_is_refused_before_anything_is_learned(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 1, **LATENT)
    other = replace(stream()[1], template="{text}? It is")
    message = "template, '{text}[?] It is', differs from that of task 'text-0', the default one: .*the same template"
    with frozen_state(learner):
        with pytest.raises(ConfigError, match=message):
            learner.check([other])
        with pytest.raises(ConfigError, match=message):
            learner.learn(other)
        with pytest.raises(ConfigError, match="'text-2': its template, the default one, differs from that of task"):
            workspace(tmp_path, 0, "empty", **LATENT).check([other, stream()[2]])
        with pytest.raises(ConfigError, match="'text-0'"):  # its first version can be rolled back to
            learner.learn(replace(stream()[0], template="{text}? It is"))
    relations = replace(toy_stream(1, 2, 4, 0, 0, kind=Kind.RELATION)[0], template="{sentence} So {head} is to {tail}")
    learner.check([stream()[1], relations])
    assert learner.learn(relations).tasks_seen == 2


def test_who_wants_the_text_of_a_past_example_is_told_why_there_is_none(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 1, **LATENT)
    memory = examples_without_test_labels(learner.tasks[0].active)
    with pytest.raises(ConfigError, match=r"'text-0'.*latent_only=true.*their texts cannot be read"):
        memory.examples(Subset.TEST)
    with pytest.raises(ConfigError, match=r"another template \('{text}!'\)"):
        memory.states(learner.backbone, Subset.TEST, template="{text}!")


# States as stored


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_states_are_read_as_they_were_packed(dtype: torch.dtype) -> None:
    hidden = tuple(
        torch.randn(length, 3, generator=torch.Generator().manual_seed(length)).to(dtype) for length in (2, 5, 1)
    )
    encoded = tuple(Encoded(tuple(range(len(one))), len(one) - 1) for one in hidden)
    states = States(encoded, hidden, torch.randn(3, 4))
    labels = ["a", "b", "a"]
    artifact = latent_memory(dict.fromkeys(Subset, states), dict.fromkeys(Subset, labels))
    memory = StoredExamples("t", None, Kind.TEXT, InMemoryObject(artifact))
    found = memory.states(None, Subset.TRAIN, [2, 0, 0])  # type: ignore[arg-type] - no backbone is asked
    assert found.hidden is not None
    assert [one.dtype for one in found.hidden] == [dtype] * 3
    assert all(torch.equal(one, hidden[row]) for one, row in zip(found.hidden, (2, 0, 0), strict=True))
    assert torch.equal(found.features, states.features[[2, 0, 0]])
    assert [(len(one.ids), one.slot) for one in found.encoded] == [(1, 0), (2, 1), (2, 1)]
    assert (memory.labels(Subset.TRAIN), memory.indices, memory.count(Subset.TEST)) == (labels, [0, 1, 2], 3)


def test_states_of_one_length_are_told_apart() -> None:
    hidden = (torch.zeros(4, 2), torch.ones(4, 2), torch.zeros(4, 2))
    encoded = tuple(Encoded((1, 2, 3, 4), 3) for _ in hidden)
    first, second, third = unpack(pack(States(encoded, hidden, torch.zeros(3, 1))), range(3)).encoded
    assert first == third != second
    assert len({first, second, third}) == 2


def test_no_examples_are_no_trouble() -> None:
    states = States((), (), torch.zeros(0, 3))
    assert len(unpack(pack(states), [])) == 0
