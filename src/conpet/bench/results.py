"""What one run of an experiment measured, and the file it stands in."""

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
"""File in the folder of a run on its way: what was asked for, then two lines for each task, learned and measured."""
_NOUNS = {"float": "number", "int": "whole number", "string": "text", "list": "list"}
"""First word of a kind of error to what the value should be; all others should be mappings of keys."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Protocol(_Record):
    """What must be equal for two runs to be compared: all that is given to a learner, whichever it is.

    Attributes:
        data: Name of the data set.
        examples: Split to the most examples of a label; None: all.
        stream: How labels became tasks: what a `StreamRecipe` says beside its defaults.
        digest: Digest of all examples of all tasks, in the order of the source.
        backbone: Its name.
        fingerprint: Digest of its weights, tokenizer and configuration.
        budget: Settings of how much is trained and kept, nested by section, as the experiment gives them.
    """

    data: str
    examples: Mapping[str, int | None]
    stream: Mapping[str, Any]
    digest: str
    backbone: str
    fingerprint: str
    budget: Mapping[str, Any]


class TaskCost(_Record):
    """What learning one task cost.

    Attributes:
        cpu_seconds: Seconds that the processor worked at it, evaluation left out.
        seconds: The same in wall time.
        stages: Stage to wall seconds.
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
    """One learner on one stream, in one order, with one seed.

    Attributes:
        made_by: Commit, versions, machine, command, time.
        experiment: Name of the experiment.
        data: Name of the data set.
        variant: Name of the variant of the experiment, "" where it has but one.
        learner: Name of the learner in the experiment.
        order: Number of the order of tasks; 0 is that of the source.
        seed: Number of the seed.
        asked: Digest of all that was asked for, by which a changed experiment is noticed.
        protocol: What a comparable run has in common with this one.
        settings: All settings of the workspace, nested by section.
        tasks: Names of the tasks, in the order they were learned.
        labels: Number of labels.
        test_examples: Number of test examples.
        metrics: Name to value in the end; None where it was not measured. Accuracies are fractions.
        references: Closed form to whole accuracy in the end.
        matrix: After each task, task to right answers and test examples; None where nothing was measured.
        costs: What each task cost; None where a method that retrains on everything was not measured.
        totals: "cpu_seconds", "seconds", "tokens" and "steps" of learning over all tasks; "run_cpu_seconds" with the
            evaluations; "trainable_parameters" and "head_parameters" of the last task; "bytes_stored" by the learner
            and "bytes_on_disk" in the end.
        migrated: What was changed in the file after the run, and when; None for a file as the run wrote it. Values of
            settings that the nested form has no place for (a LoRA rank beside bottleneck modules, the steps of a
            selector that is not trained) were left out. What was measured is never changed.
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
            CorruptionError: It is not one.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise CorruptionError(
                f"{path} is not a result of conpet bench: {_first_wrong(error)}; move it away or remove it"
            ) from None

    def write(self, path: Path) -> None:
        """Write the file aside and put it in place at once."""
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{os.getpid()}.part")
        left_out = {"migrated"} if self.migrated is None else None
        text = json.dumps(self.model_dump(mode="json", exclude=left_out), indent=1, ensure_ascii=False)
        with aside.open("w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)


def _first_wrong(error: ValidationError) -> str:
    """Say the first thing that is wrong in a result file."""
    first = error.errors()[0]
    kind, name = first["type"], ".".join(map(str, first["loc"]))
    if kind == "json_invalid":
        place = re.search(r"line \d+", first["msg"])
        return f"it is not readable as JSON{f' at {place[0]}' if place else ''}"
    if kind == "missing":
        return f"the key {name!r} is missing"
    if kind == "extra_forbidden":
        return f"the key {name!r} is not known"
    noun = _NOUNS.get(kind.partition("_")[0], "mapping of keys")
    return f"{repr(name) if name else 'the whole of it'} is no {noun}, but {first['input']!r:.60}"


def read_results(folder: Path) -> list[Result]:
    """Read all result files below a folder, in the order of their paths; runs on their way are passed over."""
    paths = sorted(folder.rglob("*.json"))
    return [
        Result.read(path) for path in paths if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
