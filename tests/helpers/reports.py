"""Reports to render in tests: small or large, with names of the caller's choice."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from conpet.report.data import (
    BackboneInfo,
    Event,
    ReportData,
    Score,
    StageCost,
    TaskInfo,
    Verb,
    WorkspaceInfo,
)
from conpet.report.label_results import (
    Average,
    ConfusedExample,
    ConfusedPair,
    LabelResults,
    LabelRow,
    Reliability,
    ReliabilityBin,
)

START = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
LLAMA_7B = BackboneInfo(
    name="llama-7b", architecture="LlamaForCausalLM", layers=32, frozen_layers=24, hidden_size=4096,
    parameters=6_738_415_616, dtype="bfloat16", fingerprint="0123abcd",
)  # fmt: skip


def event(names: list[str], learned: int, *, tested: bool = True, references: bool = True) -> Event:
    """Return the event of learning the last of the first `learned` names: each task has 8 of 10 right."""
    return Event(
        verb=Verb.LEARN,
        task=names[learned - 1],
        version=1,
        at=START + timedelta(minutes=learned),
        scores={name: Score(8, 10) for name in names[:learned]} if tested else {},
        whole_accuracy=0.8 if tested else None,
        average_accuracy=0.8 if tested else None,
        forgetting=0.0123 if tested and learned > 1 else None,
        backward_transfer=-0.0456 if tested and learned > 1 else None,
        selector_accuracy=0.9 if tested else None,
        within_task_accuracy=0.85 if tested else None,
        references={"nearest mean": 0.61, "ridge": 0.777} if tested and references else {},
        cost={
            "encode": StageCost(seconds=2.5, backbone_tokens=1000),
            "module": StageCost(seconds=4.0, backbone_tokens=234, optimiser_steps=12),
        },
        trainable_parameters=2_097_152,
        trainable_parameters_with_heads=2_200_000,
        bytes_stored=4_200_000 * learned,
        cache_hit_rate=0.5,
    )


def label_results(names: list[str]) -> LabelResults:
    """Return results in which one of ten examples of the first name is answered with the second one."""
    rows = tuple(
        LabelRow(
            label=name,
            task="t",
            precision=None if index else 0.9,
            recall=0.8,
            f1=0.85,
            support=10,
            answered=9,
            correct=8,
        )
        for index, name in enumerate(names)
    )
    example = ConfusedExample(row=3, text=f"a text on {names[0]}", score=0.7, answered_by="t")
    return LabelResults(
        label_scores=rows,
        macro_average=Average(precision=0.45, recall=0.8, f1=0.85),
        weighted_average=Average(precision=0.46, recall=0.8, f1=0.85),
        confusion=(ConfusedPair(label=names[0], answer=names[-1], count=9, support=10, examples=(example,) * 9),),
        calibration=Reliability(
            expected_calibration_error=0.034,
            overconfidence=-0.021,
            n=20,
            bins=(
                ReliabilityBin(low=0.0, high=0.5, n=0, score=None, accuracy=None),
                ReliabilityBin(low=0.5, high=1.0, n=20, score=0.81, accuracy=0.75),
            ),
        ),
    )


def report(names: list[str], *, tested: bool = True, references: bool = True, labels: int = 2) -> ReportData:
    """Return the report of a workspace that learned the tasks in order."""
    tasks = tuple(
        TaskInfo(
            name=name,
            labels=tuple(f"{name} label {number}" for number in range(labels)),
            version=1,
            train=20,
            validation=5,
            test=10 if tested else 0,
            module_parameters=2_097_152,
            head_parameters=102_848,
            bytes_stored=4_200_000,
        )
        for name in names
    )
    sizes = range(1, len(names) + 1)
    return ReportData(
        workspace=WorkspaceInfo(
            name="support", backbone=LLAMA_7B, method="dynamic",
            settings={"seed": 7, "module": {"rank": 4}}, created=START, conpet_version="0.1.0",
        ),
        tasks=tasks,
        events=tuple(event(names, size, tested=tested, references=references) for size in sizes),
        label_results=label_results(names) if tested and names else None,
        selector_confusion={name: {name: 9, names[0]: 1} for name in names} if tested else {},
        summary={"whole_accuracy": 0.8} if tested else {},
        generated=START + timedelta(days=1),
    )  # fmt: skip
