"""Rows that measure predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from benchmarks.speed.bench import Bench
from benchmarks.speed.checking import same_answers
from benchmarks.speed.machine import achieved, pass_work
from benchmarks.speed.profiling import profiled
from benchmarks.speed.rivals import Mixed, Padded, by_length, padded, plain_forward, plain_model
from benchmarks.speed.row import Row
from benchmarks.speed.timing import Goal, Measured, Pairs, check_close, in_turns, timed
from conpet import ConPET
from conpet.artifact import InMemoryObject
from conpet.backbone.backbone import Backbone
from conpet.backbone.states import Encoded, States
from conpet.config import Settings
from conpet.data import Example
from conpet.heads.labels import LabelHead, label_document
from conpet.modules.module import PetModule, StoredModule, module_artifact
from conpet.modules.pool import ModulePool
from conpet.state.engine import answer
from conpet.state.live import Live
from conpet.testing import live_of


def examples(texts: Sequence[str]) -> list[Example]:
    """Return texts as examples."""
    return [Example.of_text(text) for text in texts]


def batches_of(backbone: Backbone, texts: Sequence[str]) -> list[Padded]:
    """Return texts as batches for the rival; this is not timed."""
    return by_length(backbone.encode(examples(texts)), backbone)


def against_forward(bench: Bench, live: Live, *, as_they_are: bool = False) -> Pairs[Any, Any, Any]:
    """Predict texts in turns with plain forward passes of the backbone over the same batches.

    Args:
        bench: The environment.
        live: The state that predicts.
        as_they_are: Whether the texts are test utterances with their words in order.
    """
    backbone = live.method.backbone
    model = plain_model(backbone.loaded)
    read, texts, pairs = bench.utterances if as_they_are else bench.texts, bench.sizes.texts, bench.sizes.pairs

    def prepare(number: int) -> tuple[list[str], list[Padded]]:
        inputs = read(number, texts)
        return inputs, batches_of(backbone, inputs)

    return in_turns(
        prepare,
        lambda given: answer(live, examples(given[0])),
        lambda given: plain_forward(model, given[1]),
        pairs,
        profile=profiled,
    )


def point(backbone: Backbone, given: Sequence[Padded], seconds: float) -> dict[str, Any]:
    """Return the point of a pass through all layers on the roofline."""
    work = pass_work(backbone, [batch.ids.numel() for batch in given], range(backbone.cut.layers))
    return achieved(work, seconds, backbone.dtype)


class Predict(Row):
    name = "predict-few-tasks"
    goals: ClassVar[Mapping[str, Goal]] = {
        "predict-few-tasks": Goal(
            "predict, 10 tasks, top-1", "one plain forward pass of the backbone, same batches", "at most", 1.10
        )
    }

    def measure(self, bench: Bench) -> Mapping[str, Measured]:
        workspace = bench.few()
        pairs = against_forward(bench, live_of(workspace))
        texts, batches = pairs.given[-1]
        equal = same_answers(bench, workspace, texts, [prediction.label for prediction in pairs.ours[-1]])
        backbone = workspace.backbone
        return {
            self.name: pairs.measured(
                equal,
                **about(backbone, len(texts)),
                tokens=sum(len(encoded.ids) for encoded in backbone.encode(examples(texts))),
                roofline={
                    "prediction": point(backbone, batches, median(pairs.seconds[0])),
                    "plain forward": point(backbone, batches, median(pairs.seconds[1])),
                },
            )
        }


class PredictEncoder(Row):
    name = "predict-encoder"
    goals: ClassVar[Mapping[str, Goal]] = {
        "predict-encoder": Goal(
            "predict test utterances, 10 tasks, all defaults of `minilm-l6`",
            "one plain forward pass of the backbone, same batches",
            "at most",
            1.15,
        )
    }

    def measure(self, bench: Bench) -> Mapping[str, Measured]:
        workspace = bench.encoder()
        live = live_of(workspace)
        pairs = against_forward(bench, live, as_they_are=True)
        texts, _ = pairs.given[-1]
        labels = [prediction.label for prediction in pairs.ours[-1]]
        equal = same_answers(bench, workspace, texts, labels)
        always = answer(live_of(workspace, **{"fusion.skip_above": None}), examples(texts))
        changed = sum(label != prediction.label for label, prediction in zip(labels, always, strict=True))
        return {self.name: pairs.measured(equal, **about(workspace.backbone, len(texts)), changed_by_skipping=changed)}


class PredictTopThree(Row):
    name = "predict-top-3"
    goals: ClassVar[Mapping[str, Goal]] = {
        "predict-top-3": Goal(
            "predict, 10 tasks, top-3, top quarter adapted", "one plain forward pass, same batches", "at most", 1.6
        )
    }

    def measure(self, bench: Bench) -> Mapping[str, Measured]:
        workspace = bench.few()
        live = live_of(workspace, **{"selector.top_k": 3})
        pairs = against_forward(bench, live)
        texts, _ = pairs.given[-1]
        equal = same_answers(bench, workspace, texts, [prediction.label for prediction in pairs.ours[-1]], top_k=3)
        share = workspace.backbone.suffix_share
        return {
            self.name: pairs.measured(equal, **about(workspace.backbone, len(texts)), floor={"ratio": 1 + 2 * share})
        }


class OneText(Row):
    name = "predict-one-text"
    goals: ClassVar[Mapping[str, Goal]] = {
        "predict-one-text": Goal(
            "one request, one short text, 10 tasks", "one plain forward pass of that text", "at most", 1.3
        )
    }

    def measure(self, bench: Bench) -> Mapping[str, Measured]:
        workspace = bench.few()
        workspace.predict(["loaded once"])
        backbone = workspace.backbone
        model = plain_model(backbone.loaded)

        def prepare(number: int) -> tuple[list[str], list[Padded]]:
            inputs = bench.texts(number, 1)
            return inputs, batches_of(backbone, inputs)

        pairs = in_turns(
            prepare,
            lambda given: workspace.predict(given[0]),
            lambda given: plain_forward(model, given[1]),
            6 * bench.sizes.pairs,
            profile=profiled,
        )
        asked = [given[0][0] for given in pairs.given]
        equal = same_answers(bench, workspace, asked[:1], [pairs.ours[0][0].label])
        return {
            self.name: pairs.measured(
                equal,
                **about(backbone, 1),
                roofline={"one text": point(backbone, pairs.given[-1][1], median(pairs.seconds[0]))},
            )
        }


class PredictManyTasks(Row):
    name = "predict-many-tasks"
    goals: ClassVar[Mapping[str, Goal]] = {
        "predict-many-tasks": Goal(
            "predict, 1,000 tasks, top-1, inputs of all tasks in turn, after two predictions per task",
            "conpet: the same with 10 tasks",
            "at most",
            1.05,
        ),
        "predict-many-tasks-hot": Goal(
            "predict, 1,000 tasks, top-1, inputs of 10 of them", "conpet: the same with 10 tasks", "at most", 1.05
        ),
    }

    def measure(self, bench: Bench) -> Mapping[str, Measured]:
        counts = bench.sizes.few, bench.sizes.many
        (few, _), (many, first_use) = (asked_before(bench, tasks) for tasks in counts)
        measured = {}
        # New inputs, because outputs of modules are cached.
        for key, asked, first in (("predict-many-tasks", counts[1], 0), ("predict-many-tasks-hot", counts[0], 100)):
            pairs = in_turns(
                lambda number, asked=asked, first=first: (
                    toy_texts(bench, first + number, asked),
                    toy_texts(bench, first + number, counts[0]),
                ),
                lambda given: many.predict(given[0]),
                lambda given: few.predict(given[1]),
                bench.sizes.pairs,
                profile=profiled,
            )
            texts = pairs.given[-1][0]
            equal = same_answers(bench, many, texts, [prediction.label for prediction in pairs.ours[-1]])
            used = {prediction.task for prediction in pairs.ours[-1]}
            detail = {**about(many.backbone, len(texts)), "modules_used": len(used)}
            measured[key] = pairs.measured(equal, **detail)
        measured["predict-many-tasks"].detail["first_use_seconds"] = first_use
        measured["predict-many-tasks"].detail["by_tasks"] = prediction_times(bench)
        return measured


def asked_before(bench: Bench, tasks: int) -> tuple[ConPET, float]:
    """Return a workspace after two predictions per tiny task, and the seconds of a first prediction.

    Afterwards, the modules are in memory, and the closed forms have solved for their weights, which happens once after
    as many inputs as labels.
    """
    space = ConPET.open(bench.many(tasks), device=bench.device)
    first, second = ([task.test[number].text for task in bench.toys[:tasks]] for number in (0, 1))
    _, seconds, _ = timed(space.predict, first)
    space.predict(second)
    return space, seconds / tasks


def toy_texts(bench: Bench, number: int, spread: int) -> list[str]:
    """Return inputs of the first tiny tasks in turn: the words of test examples in another order."""
    generator = torch.Generator().manual_seed(1000 + number)
    texts = []
    for place in range(bench.sizes.texts):
        tests = bench.toys[(number * bench.sizes.texts + place) % spread].test
        words = tests[place % len(tests)].text.split()
        order = torch.randperm(len(words), generator=generator).tolist()
        texts.append(" ".join([*(words[index] for index in order), str(number % 1000)]))
    return texts


def prediction_times(bench: Bench) -> dict[str, list[float]]:
    """Return seconds per prediction by number of modules, for the figure."""
    sizes = sorted({1, bench.sizes.few, bench.sizes.hundred - 1, bench.sizes.many})
    spaces = {tasks: asked_before(bench, tasks)[0] for tasks in sizes}
    found: dict[str, list[float]] = {str(tasks): [] for tasks in sizes}
    for number in range(500, 501 + bench.sizes.pairs // 2):
        for tasks, space in spaces.items():
            _, seconds, _ = timed(space.predict, toy_texts(bench, number, tasks))
            if number > 500:  # excludes what is loaded once
                found[str(tasks)].append(seconds / bench.sizes.texts)
    return found


class MixedBatch(Row):
    name = "mixed-batch"
    goals: ClassVar[Mapping[str, Goal]] = {
        "mixed-batch": Goal(
            "a batch of 32 rows, each with its own module, all layers adapted", "PEFT `adapter_names`", "at least", 2.0
        ),
        "mixed-batch-overhead": Goal(
            "that mixed batch", "plain forward pass of the backbone without modules", "at most", 1.3
        ),
    }

    def measure(self, bench: Bench) -> Mapping[str, Measured]:
        backbone, rows = bench.backbone(bench.sizes.large, frozen_layers=0), bench.sizes.modules
        modules = [random_module(backbone, seed) for seed in range(rows)]
        head = nn.Linear(backbone.representation_size, 4)
        stored = [stored_module(module, head) for module in modules]
        mixed = Mixed(backbone, modules[0].document, [module.tensors() for module in modules])
        pool = ModulePool(backbone, capacity=rows)

        def prepare(number: int) -> tuple[States, Padded]:
            encoded = of_length(backbone, bench, number)
            states = States(tuple(encoded), None, torch.zeros(rows, backbone.feature_size))
            return states, padded(encoded, range(rows), backbone)

        def ours(given: tuple[States, Padded]) -> list[Tensor]:
            outputs = pool.outputs(given[0], [[key] for key in stored])
            return [logits[key] for logits, key in zip(outputs, stored, strict=True)]

        peft = in_turns(prepare, ours, lambda given: mixed(given[1]), bench.sizes.pairs)
        weight = head.weight.detach().to(backbone.device)
        theirs = nn.functional.linear(peft.theirs[-1], weight, head.bias.detach().to(backbone.device))
        equal = check_close(f"logits of {rows} modules", torch.stack(peft.ours[-1]), theirs, bench.tolerance(backbone))
        model = plain_model(backbone.loaded)
        plain = in_turns(prepare, ours, lambda given: plain_forward(model, [given[1]]), bench.sizes.pairs)
        detail = {**about(backbone, rows), "tokens_a_row": bench.sizes.tokens, "rank": 8}
        return {
            "mixed-batch": peft.measured(equal, **detail),
            "mixed-batch-overhead": plain.measured(equal, **detail, floor={"ratio": 1 + lora_share(backbone)}),
        }


def random_module(backbone: Backbone, seed: int) -> PetModule:
    """Return a LoRA module with a random B, so that it changes the outputs (training starts with B = 0)."""
    module = PetModule(backbone, Settings.parse({}).for_task({}), seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters.values():
            drawn = torch.empty(parameter.shape).normal_(std=0.02, generator=generator)
            parameter.copy_(drawn)
    return module


def stored_module(module: PetModule, head: nn.Linear) -> StoredModule:
    """Return a module and head in memory, in the form the pool reads."""
    document = label_document([str(label) for label in range(head.out_features)])
    return StoredModule.of(InMemoryObject(module_artifact(module.adapter(), LabelHead().tensors(head), document)))


def of_length(backbone: Backbone, bench: Bench, number: int) -> list[Encoded]:
    """Return rows of exactly `sizes.tokens` tokens."""
    rows, length = bench.sizes.modules, bench.sizes.tokens
    ids = [
        token
        for encoded in backbone.encode(examples(bench.texts(number, min(1000, rows * length // 4))))
        for token in encoded.ids
    ]
    ids = ids * (1 + rows * length // len(ids))
    return [Encoded(tuple(ids[row * length : (row + 1) * length]), length - 1) for row in range(rows)]


def lora_share(backbone: Backbone) -> float:
    """Return the operations of rank-8 LoRA on all linear maps, as a fraction of those of the maps."""
    stack = backbone.cut.model.get_submodule(str(backbone.cut.path))
    maps = [module for module in stack.modules() if isinstance(module, nn.Linear)]
    added = 8 * sum(linear.in_features + linear.out_features for linear in maps)
    return added / sum(linear.weight.numel() for linear in maps)


class HalfFormat(Row):
    name = "bf16"
    goals: ClassVar[Mapping[str, Goal]] = {
        "bf16-forward": Goal("bfloat16: predict new inputs, without cached states", "conpet: float32", "at least", 2.0),
        "bf16-accuracy": Goal("bfloat16: test accuracy of the same modules", "conpet: float32", "within", 0.3),
    }

    def measure(self, bench: Bench) -> Mapping[str, Measured]:
        workspace = bench.few()
        half, full = (in_format(bench, workspace, dtype) for dtype in ("bfloat16", "float32"))
        pairs = in_turns(
            bench.texts,
            lambda texts: answer(half, examples(texts)),
            lambda texts: answer(full, examples(texts)),
            bench.sizes.pairs,
        )
        tests = [
            example for task in bench.tasks[: bench.sizes.few] for example in spaced(task.test, bench.sizes.tested)
        ]
        inputs = [example.labelled(None) for example in tests]
        answers = [answer(live, inputs, top_n=1) for live in (half, full)]
        right = [
            100 * sum(answered.label == test.label for answered, test in zip(side, tests, strict=True)) / len(tests)
            for side in answers
        ]
        same = sum(left.label == right.label for left, right in zip(*answers, strict=True)) / len(tests)
        equal = f"{100 * same:.1f}% of {len(tests)} answers"
        detail = {**about(half.method.backbone, bench.sizes.texts), "tested": len(tests)}
        return {
            "bf16-forward": pairs.measured(equal, **detail),
            "bf16-accuracy": Measured(right[:1], right[1:], equal, unit="%", detail=detail),
        }


def in_format(bench: Bench, workspace: ConPET, dtype: str) -> Live:
    """Return the state of a workspace with a backbone in another number format."""
    live = live_of(workspace)  # a separate state, because fitted values depend on the backbone
    method = type(live.method)(bench.backbone(bench.sizes.large, dtype=dtype), live.method.settings)
    return Live(method, live.state, live.snapshot)


def spaced(rows: Sequence[Example], count: int) -> Sequence[Example]:
    """Return at least `count` evenly spread examples, if there are enough."""
    return rows[:: max(1, len(rows) // count)]


def about(backbone: Backbone, inputs: int) -> dict[str, Any]:
    """Return a description of the work, for the result file."""
    return {
        "backbone": backbone.name,
        "dtype": str(backbone.dtype).removeprefix("torch."),
        "layers": backbone.cut.layers,
        "frozen_layers": backbone.frozen_layers,
        "inputs": inputs,
    }
