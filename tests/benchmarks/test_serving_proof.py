"""The proofs about the server: that they find what is wrong, and a small one of each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.serving_proof.answers import Expected, copy_of
from benchmarks.serving_proof.hostile import MARK, uploads
from benchmarks.serving_proof.kills import kill_processes
from benchmarks.serving_proof.load import Asked
from benchmarks.serving_proof.results import row, write
from benchmarks.serving_proof.scenes import variant
from benchmarks.serving_proof.swaps import Swap, stalls_of, wanted_change
from conpet import ConPET
from tests.helpers.workspaces import stream, workspace

TEXTS = [example.text for task in stream()[:2] for example in task.test]
GENERATIONS = {1: [{"a": 0.9, "b": 0.1}, {"a": 0.2, "b": 0.8}], 2: [{"a": 0.1, "b": 0.9}, {"a": 0.2, "b": 0.8}]}


def asked(generation: int, *scores: dict[str, float], status: int = 200, least: int = 0, mixed: int = 0) -> Asked:
    """Return an answer as a client notes it; its last prediction names another generation if `mixed` does."""
    predictions: list[dict[str, Any]] = []
    for one in scores:
        (label, score), *others = sorted(one.items(), key=lambda item: -item[1])
        runners_up = [{"label": other, "score": value} for other, value in others]
        predictions.append({"label": label, "score": score, "generation": generation, "runners_up": runners_up})
    predictions[-1]["generation"] = mixed or generation
    body = json.dumps({"generation": generation, "predictions": predictions}).encode()
    return Asked(0.0, 1.0, status, (0, len(scores)), body, least=least)


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (asked(1, *GENERATIONS[1]), {}),
        (asked(1, {"a": 0.9004, "b": 0.0996}), {}),
        (asked(1, *GENERATIONS[1], status=500), {"failed": [500]}),
        (asked(2, *GENERATIONS[2], mixed=1), {"mixed": 1}),
        (asked(2, *GENERATIONS[1]), {"wrong": 1, "older": 1}),
        (asked(1, *GENERATIONS[2]), {"wrong": 1}),
        (asked(1, {"a": 0.9, "c": 0.1}), {"wrong": 1}),
        (asked(1, *GENERATIONS[1], least=2), {"outdated": 1}),
        (asked(3, *GENERATIONS[1]), {"unknown": 1}),
    ],
)
def test_every_kind_of_wrong_answer_is_found(answer: Asked, fault: dict[str, Any]) -> None:
    expected = Expected(TEXTS[:2], 10, GENERATIONS)
    found = {name: value for name, value in vars(expected.faults([answer])).items() if value and name != "answers"}
    assert found == fault
    assert expected.distinct_changes() == 1


def test_the_longest_stall_is_that_of_requests_open_during_a_swap() -> None:
    def at(start: float, seconds: float, generation: int) -> Asked:
        answer = asked(generation, GENERATIONS[generation][0])
        answer.start, answer.end = start, start + seconds
        return answer

    other = at(1.0, 0.1, 1)
    many = [at(0.0, 9.0, 1)] * 10  # the first ones of the clients, while nothing is warm, do not count
    long = [at(0.5, 0.1, 1) for _ in range(3)]
    for one in (other, *long):
        one.texts = (0, 1)
    large = at(1.0, 0.4, 1)
    large.texts = (0, 32)
    during = [at(9.8, 0.15, 1), at(9.9, 0.3, 2)]
    late = at(20.0, 2.0, 2)
    found = stalls_of([*many, other, *long, large, *during, late], [Swap("learn", "a job", 2, 10.0)])
    assert found["longest_stall_ms"] == pytest.approx(200)
    assert found["touched"] == 2
    assert found["seen_after_seconds"] == pytest.approx(0.2)


def test_a_copy_of_a_workspace_answers_as_it_did_and_changes_always_differ(tmp_path: Path) -> None:
    learner = workspace(tmp_path, 2)
    expected = Expected(TEXTS, 10)
    first = expected.note(copy_of(learner.path, tmp_path / "copy"))
    assert expected.by_generation[first] == [
        {one.label: pytest.approx(one.score, abs=1e-4) for one in (answer, *answer.runners_up)}
        for answer in learner.predict(TEXTS, top_n=10)
    ]
    changed = learner.learn(variant(stream()[0], 0), evaluate=False)
    assert not changed.skipped
    assert expected.note(learner.path) > first
    assert expected.distinct_changes() == 1
    verbs = [wanted_change([*stream(), stream()[0]], number)["verb"] for number in range(4)]
    assert verbs == ["learn", "activate", "remove", "learn"]


def test_hostile_uploads_are_many_and_the_same_every_time() -> None:
    first, again = (list(uploads(7, 1 << 20)) for _ in range(2))
    assert [one.what for one, other in zip(first, again, strict=True) if one != other] == []
    assert len({one.what for one in first}) > 200
    assert any(MARK.encode() in one.content for one in first)


def test_a_killed_process_loses_nothing(tmp_path: Path) -> None:
    path = workspace(tmp_path, 2).path
    expected = Expected(TEXTS, 10)
    expected.note(path)
    outcome = kill_processes(path, tmp_path, expected, stream()[0], workers=1, kills=1)
    assert outcome.failures == []
    assert (outcome.tries, len(expected.by_generation)) == (1, 2)
    assert outcome.answers > 0
    assert ConPET.open(path).tasks[0].active.number == 2


def test_a_part_measured_again_replaces_its_rows_and_keeps_the_others_with_their_provenance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("benchmarks.provenance", "benchmarks.serving_proof.results"):
        monkeypatch.setattr(f"{module}.RESULTS", tmp_path)

    def kept(command: str, rows: dict[str, int], *, partial: bool) -> dict[str, Any]:
        made_by = {"command": command, "machine": {"load_before": 0.5}}
        measured = [row(what, value) for what, value in rows.items()]
        details = {what: {"seen": value} for what, value in rows.items()}
        path = write("proof", made_by, "two faults", measured, [command], details=details, partial=partial, seconds=1.0)
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return document

    kept("all", {"a": 1, "b": 2}, partial=False)
    again = kept("b and c", {"b": 3, "c": 4}, partial=True)
    assert {one["what"]: one["value"] for one in again["rows"]} == {"a": 1, "b": 3, "c": 4}
    assert again["details"] == {"a": {"seen": 1}, "b": {"seen": 3}, "c": {"seen": 4}}
    assert again["notes"] == ["all", "b and c"]
    assert (again["command"], [one["made_by"]["command"] for one in again["earlier"]]) == ("b and c", ["all"])
    assert kept("all again", {"a": 5}, partial=False)["earlier"] == []
