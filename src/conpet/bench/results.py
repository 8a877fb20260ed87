"""The result of a run, and its file."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from conpet.errors import CorruptionError

STEPS = "steps.jsonl"
"""File in the folder of an unfinished run: a header, then two lines per task, for learning and measuring."""
_NOUNS = {"float": "number", "int": "whole number", "string": "text", "list": "list"}
"""Expected value by the first word of an error type; all others are mappings of keys."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Protocol(_Record):
    """Conditions that two comparable runs share: everything that does not depend on the learner.

    Attributes:
        data: Name of the data set.
        examples: Most examples per label, by subset; None for all.
        stream: The `StreamRecipe`, without default values.
        digest: Digest of all examples of all tasks, in the order of the source.
        backbone: Name of the backbone.
        fingerprint: Digest of its weights, tokenizer and configuration.
        budget: Budget settings of the experiment, nested by section.
    """

    data: str
    examples: Mapping[str, int | None]
    stream: Mapping[str, Any]
    digest: str
    backbone: str
    fingerprint: str
    budget: Mapping[str, Any]


class TaskCost(_Record):
    """The cost of learning a task.

    Attributes:
        cpu_seconds: Processor seconds, without the evaluation.
        seconds: Wall seconds, without the evaluation.
        stages: Wall seconds by stage.
        tokens: Tokens through the backbone (see `conpet.cost.Meter`).
        cached_tokens: Tokens whose states came from the cache.
        steps: Optimiser steps.
        bytes_on_disk: Size of the workspace afterwards.
        predict_seconds: Processor seconds per test example in the evaluation afterwards, or None.
    """

    cpu_seconds: float
    seconds: float
    stages: Mapping[str, float]
    tokens: int
    cached_tokens: int
    steps: int
    bytes_on_disk: int
    predict_seconds: float | None = None


class Result(_Record):
    """The result of a learner on a stream, with one order and seed.

    Attributes:
        made_by: Commit, versions, machine, command, time.
        experiment: Name of the experiment.
        data: Name of the data set.
        variant: Name of the variant of the experiment; "" if it has only one.
        learner: Name of the learner in the experiment.
        order: Number of the order of tasks; 0 is that of the source.
        seed: Number of the seed.
        asked: Digest of everything the run specified, to detect a changed experiment.
        protocol: The conditions that comparable runs share.
        settings: All settings of the workspace, nested by section.
        tasks: Names of the tasks, in the order they were learned.
        labels: Number of labels.
        test_examples: Number of test examples.
        metrics: Final metrics by name; None if not measured. Accuracies are fractions.
        references: Final whole accuracy by reference classifier.
        matrix: After each task, correct answers and test examples by task; None if not evaluated.
        costs: The cost of each task; None if a method that retrains on everything skipped the training.
        totals: "cpu_seconds", "seconds", "tokens" and "steps" of learning over all tasks; "run_cpu_seconds" with the
            evaluations; "trainable_parameters" and "head_parameters" of the last task; final "bytes_stored" by the
            learner and "bytes_on_disk".
        migrated: What was changed in the file after the run, and when; None for an unchanged file. Settings without a
            place in the nested form (a LoRA rank with bottleneck modules, the steps of an untrained selector) were
            left out. Measurements are never changed.
    """

    made_by: Mapping[str, Any]
    experiment: str
    data: str
    variant: str
    learner: str
    order: int
    seed: int
    asked: str
    protocol: Protocol
    settings: Mapping[str, Any]
    tasks: Sequence[str]
    labels: int
    test_examples: int
    metrics: Mapping[str, float | None]
    references: Mapping[str, float]
    matrix: Sequence[Mapping[str, tuple[int, int]] | None]
    costs: Sequence[TaskCost | None]
    totals: Mapping[str, float]
    migrated: str | None = None

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a result file.

        Raises:
            CorruptionError: It is not a result file.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise CorruptionError(
                f"{path} is not a result of conpet bench: {_first_wrong(error)}; move it away or remove it"
            ) from None

    def write(self, path: Path) -> None:
        """Write the result to a temporary file and rename it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{os.getpid()}.part")
        excluded = {"migrated"} if self.migrated is None else None
        text = json.dumps(self.model_dump(mode="json", exclude=excluded), indent=1, ensure_ascii=False)
        with aside.open("w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)


def _first_wrong(error: ValidationError) -> str:
    """Describe the first error of a result file."""
    first = error.errors()[0]
    kind, name = first["type"], ".".join(map(str, first["loc"]))
    if kind == "json_invalid":
        place = re.search(r"line \d+", first["msg"])
        return f"it is not readable as JSON{f' at {place[0]}' if place else ''}"
    if kind == "missing":
        return f"the key {name!r} is missing"
    if kind == "extra_forbidden":
        return f"the key {name!r} is unknown"
    noun = _NOUNS.get(kind.partition("_")[0], "mapping of keys")
    return f"{repr(name) if name else 'the content'} must be a {noun}, not {first['input']!r:.60}"


def read_results(folder: Path) -> list[Result]:
    """Read all result files below a folder, in the order of their paths; unfinished runs are ignored."""
    paths = sorted(folder.rglob("*.json"))
    return [
        Result.read(path) for path in paths if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
