"""Candidates: changes that the gate refused; see them, judge them again, make them, discard them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

from conpet.commands.rows import with_inputs
from conpet.config import GateConfig
from conpet.errors import CandidateOutdatedError, GateRefusedError, UnknownNameError
from conpet.evaluation.answers import AnsweredExample
from conpet.evaluation.gate import AnswerPair, GateReport
from conpet.store import ActionLog, Snapshot, Store, TaskRecord, VersionRecord

_SHOWN = 5
"""Most labels and tasks that a message lists."""


def newest(store: Store) -> int:
    """Return the number of the newest candidate for the present generation.

    Raises:
        UnknownNameError: There is none.
    """
    present = [record.number for record in store.candidates() if not record.outdated]
    if not present:
        raise UnknownNameError(
            "there is no candidate for the present generation: no change was refused since the last one"
        )
    return present[-1]


def report_of(store: Store, number: int, settings: Mapping[str, Any] | None = None) -> GateReport:
    """Return the report of a candidate for the present generation, with the inputs whose answers change.

    Args:
        store: The workspace's store.
        number: The candidate.
        settings: Settings of the section `gate` to judge it by, where they differ from those it was judged by.

    Raises:
        UnknownNameError: There is no such candidate.
        CandidateOutdatedError: The workspace has changed since it was made.
        ConfigError: A setting is unknown or wrong.
    """
    report = GateReport.from_json(store.candidate(number).report)
    if settings:
        report = report.judged(GateConfig.parse({**report.config.model_dump(), **settings}))
    with store.snapshot() as snapshot:
        return replace(report, changed=tuple(_with_inputs(snapshot, report)))


def discard(
    store: Store, actions: ActionLog, number: int, *, actor: str | None = None, wait_seconds: float | None = None
) -> None:
    """Delete a candidate, and record who did it, of which change and tasks; see `ConPET.discard`."""
    with store.write("discard", wait_seconds) as writer:
        about: dict[str, Any] = {}
        with suppress(UnknownNameError, CandidateOutdatedError):
            report = store.candidate(number).report
            about = {"change": report["verb"], "tasks": report["tasks"]}
        writer.drop_candidate(number)
        actions.append(actor or store.actor, "candidate-discarded", candidate=number, **about)


def refusal(report: GateReport, number: int, path: Path, kept: str) -> GateRefusedError:
    """Return the error of a change that the gate refuses.

    Args:
        report: What the gate found.
        number: Number of the candidate.
        path: The workspace's folder.
        kept: A sentence on the candidate, without its full stop.
    """
    worst = report.broken or (() if report.dearer else report.not_proven)
    lines = [f"  {one}" for one in worst[:_SHOWN]]
    if len(worst) > _SHOWN:
        lines.append(f"  ... and {len(worst) - _SHOWN} more")
    proof_only = not (report.broken or report.dearer)
    option, how = ("--set require_proof=false", "without the proof") if proof_only else ("--no-gate", "anyway")
    lines.append(
        f"Nothing was changed. {kept}: `conpet gate {path} {number}` shows what would change, "
        f"`conpet promote {path} {number} {option}` makes the change {how}, "
        f"`conpet candidates {path} --discard {number}` discards it"
    )
    return GateRefusedError(
        "\n".join([f"the gate refuses this change ({report.title}): {report}", *lines]), number, report
    )


def _with_inputs(snapshot: Snapshot, report: GateReport) -> list[AnswerPair]:
    """Return the pairs with the inputs of their examples, if the workspace stores texts."""
    found: list[AnswerPair] = []
    ordered = sorted(report.changed, key=lambda pair: (str(pair.before.task), pair.before.row))
    for task, group in groupby(ordered, key=lambda pair: str(pair.before.task)):
        own = list(group)
        version = _compared_version(snapshot.task(task), report)
        if version is None:
            found += own
            continue
        befores = with_inputs(version, "validation", [pair.before for pair in own], _always)
        found += [replace(pair, before=before) for pair, before in zip(own, befores, strict=True)]
    return found


def _compared_version(task: TaskRecord, report: GateReport) -> VersionRecord | None:
    """Return the version of a task whose held-out examples were compared; None if only a kept generation has it."""
    number = report.versions.get(task.name, task.active.number)
    return next((version for version in task.versions if version.number == number), None)


def _always(answer: AnsweredExample) -> bool:
    return True
