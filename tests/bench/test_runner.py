"""`conpet bench run`: results, going on after a kill, runs beside each other."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from conpet.bench import run as measuring
from conpet.bench.experiment import Experiment
from conpet.bench.results import Result, read_results
from conpet.bench.run import backwards, measured, on_validation, ordered
from conpet.data import Example, Span, Task
from conpet.errors import CorruptionError
from conpet.testing import toy_stream
from tests.helpers.bench import TOY, experiment_file
from tests.helpers.bench_results import made
from tests.helpers.cli import Result as Ran
from tests.helpers.cli import conpet

RIGHT = made("lda").model_dump(mode="json")


ORDERS = 2
LEARNERS: dict[str, Any] = {
    **TOY["learners"],
    "wild": {"method": "emr", "training": {"learning_rate": 1e30}},  # its runs fail
}
RUNS = ORDERS * len(LEARNERS)
"""Runs of the experiment that is killed: so many that it is not finished before."""
RESULTS = ORDERS * len(TOY["learners"])


class Killed(NamedTuple):
    """What an experiment said and left when it was killed with all its processes."""

    said: str
    results: dict[Path, int]
    """Its result files, each with the time it was written."""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Killed]:
    """Return the folder of an experiment that is killed after its first result."""
    folder = tmp_path_factory.mktemp("done")
    path = experiment_file(folder, orders=ORDERS, learners=LEARNERS)
    command = [sys.executable, "-m", "conpet", "bench", "run", str(path), "--workers", "2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    first = process.stdout.readline()
    workers = _children(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    _wait_for(workers)
    return folder, Killed(first, {one: one.stat().st_mtime_ns for one in folder.rglob("*-s0.json")})


@pytest.fixture(scope="module")
def ran(killed: tuple[Path, Killed]) -> Ran:
    """Go on with that experiment until it is finished."""
    folder, _ = killed
    return conpet("bench", "run", folder / "trial.yaml")


@pytest.fixture(scope="module")
def done(killed: tuple[Path, Killed], ran: Ran) -> Path:
    """Return the folder of that experiment when it is finished."""
    assert "FAILED" in ran.out, ran.err
    return killed[0]


def _children(process: int) -> list[Path]:
    """Return the processes that a process has started, as folders below /proc."""
    ids = Path(f"/proc/{process}/task/{process}/children").read_text(encoding="ascii").split()
    return [Path("/proc", number) for number in ids]


def _wait_for(workers: Sequence[Path]) -> None:
    """Wait until the workers of a killed run have ended, as they do with the process that started them."""
    assert workers
    deadline = time.monotonic() + 30
    while any(_runs(one) for one in workers):
        assert time.monotonic() < deadline, "a worker outlives the process that started it"
        time.sleep(0.05)


def _runs(process: Path) -> bool:
    """Tell whether a process is there, and not only waiting for its parent to take its exit status."""
    try:
        return (process / "stat").read_text(encoding="utf-8").rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


def result(folder: Path, learner: str, order: int = 0) -> Result:
    found = read_results(folder / "results" / "trial")
    return next(one for one in found if (one.learner, one.order) == (learner, order))


def measure(folder: Path, learner: str = "emr*", order: int = 0, scratch: str = "scratch") -> Result:
    """Do one run in this process."""
    runs = Experiment.read(folder / "trial.yaml").runs("trial")
    run = next(run for run in runs if (run.learner, run.order) == (learner, order))
    return measured(run, folder / scratch, [folder], {})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """Return the result of a run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    experiment_file(folder)
    return measure(folder)


def test_every_run_leaves_a_result_and_nothing_else(done: Path) -> None:
    files = {path.relative_to(done / "results" / "trial").as_posix() for path in (done / "results").rglob("*.*")}
    assert files == {f"toy/{name}-o{order}-s0.json" for name in ("emr-star", "lda") for order in range(ORDERS)}


def test_a_result_says_what_was_measured_and_how_it_came_about(done: Path) -> None:
    found = result(done, "emr*")
    assert found.settings["method"] == {"name": "emr"}
    assert found.protocol.examples == {"train": 6, "validation": 2, "test": 4}
    assert (found.labels, found.test_examples, len(found.tasks)) == (6, 24, 3)
    assert found.made_by["command"].startswith("python ")
    assert {"torch", "conpet", "python"} <= found.made_by["versions"].keys()
    assert found.made_by["machine"]["cores"] == os.cpu_count()
    assert all(cost is not None and cost.cpu_seconds > 0 and cost.bytes_on_disk > 0 for cost in found.costs)
    assert [bool(cost and cost.predict_seconds) for cost in found.costs] == [False, False, True]
    assert found.totals["steps"] == sum(cost.steps for cost in found.costs if cost) > 0


def test_the_accuracies_are_those_of_the_matrix(done: Path) -> None:
    found = result(done, "lda")
    last = found.matrix[-1]
    assert last is not None
    right, total = (sum(column) for column in zip(*last.values(), strict=True))
    assert found.metrics["whole_accuracy"] == right / total
    assert [len(row or ()) for row in found.matrix] == [1, 2, 3]
    assert found.metrics["whole_accuracy"] == pytest.approx(found.references["lda"])
    assert result(done, "emr*").metrics["selector_accuracy"] is None


def test_orders_shuffle_the_tasks_for_all_learners_alike(done: Path) -> None:
    assert result(done, "emr*", 0).tasks == ["text-0", "text-1", "text-2"]
    assert result(done, "emr*", 1).tasks == result(done, "lda", 1).tasks
    assert sorted(result(done, "lda", 1).tasks) == sorted(result(done, "lda", 0).tasks)
    assert result(done, "emr*", 0).protocol == result(done, "lda", 1).protocol
    assert {tuple(task.name for task in ordered(toy_stream(tasks=3), order)) for order in range(9)} > {
        tuple(result(done, "lda", 0).tasks)
    }


def test_finished_runs_are_not_repeated(done: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (done / "results").rglob("*.json")}
    ran = conpet("bench", "run", done / "trial.yaml", "--learner", "emr*", "--learner", "lda")
    assert ran.code == 0
    assert "4 runs, 4 have a result, 0 to do" in ran.err
    assert before == {path: path.stat().st_mtime_ns for path in (done / "results").rglob("*.json")}


def test_only_what_is_asked_for_is_run(tmp_path: Path) -> None:
    path = experiment_file(tmp_path)
    ran = conpet("bench", "run", path, "--learner", "lda", "--orders", 1, "--dry-run")
    assert ran.out.splitlines() == ["toy, lda, order 0"]
    assert not (tmp_path / "results").exists()
    wrong = conpet("bench", "run", path, "--learner", "ldaa")
    assert wrong.code == 1
    assert "no learner ldaa (did you mean 'lda'?); available: emr*, lda" in wrong.err
    none = conpet("bench", "run", path, "--variant", "foo")
    assert "the experiment has no variant foo, because it defines no variants; leave --variant out" in none.err
    more = conpet("bench", "run", path, "--orders", 3, "--dry-run")
    assert more.code == 1
    assert f"--orders 3: the experiment has orders 0 to 1; give at most 2, or raise 'orders' in {path}" in more.err


def test_results_of_a_changed_experiment_are_not_taken_for_its_own(done: Path, tmp_path: Path) -> None:
    changed = done / "changed"
    changed.mkdir()
    path = experiment_file(changed, budget={"training": {"epochs": 2, "batch_size": 16}})
    ran = conpet("bench", "run", path, "--results", done / "results" / "trial")
    assert ran.code == 1
    assert "the experiment changed after 4 of its results were written" in ran.err
    assert "emr-star-o0-s0.json: training.epochs 1 then, 2 now" in ran.err


def test_what_a_learner_does_not_read_is_no_cause_of_a_change(done: Path, tmp_path: Path) -> None:
    settings = {"backbone": {"frozen_layers": 1, "dtype": "auto"}}
    path = experiment_file(tmp_path, budget={"training": {"epochs": 2, "batch_size": 16}}, settings=settings)
    ran = conpet("bench", "run", path, "--results", done / "results" / "trial")
    assert ran.code == 1
    told = [line.partition(": ")[2] for line in ran.err.splitlines() if "lda-o" in line]
    assert told == ["training.epochs 1 then, 2 now"] * 2


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"made_by": {},\n "exp', "it is not readable as JSON at line 2"),
        ("", "it is not readable as JSON at line 1"),
        ('{"a": 1}', "the key 'made_by' is missing"),
        (RIGHT | {"metrics": {"whole_accuracy": "high"}}, "'metrics.whole_accuracy' must be a number, not 'high'"),
        (RIGHT | {"tasks": "one"}, "'tasks' must be a list, not 'one'"),
        (RIGHT | {"costs": [3]}, "'costs.0' must be a mapping of keys, not 3"),
        (RIGHT | {"more": 3}, "the key 'more' is unknown"),
        ([], "the content must be a mapping of keys, not []"),
    ],
)
def test_a_file_that_is_no_result_is_named(tmp_path: Path, content: Any, said: str) -> None:
    content = content if isinstance(content, str) else json.dumps(content)
    path = experiment_file(tmp_path)
    broken = tmp_path / "results" / "trial" / "toy" / "lda-o0-s0.json"
    broken.parent.mkdir(parents=True)
    broken.write_text(content, encoding="utf-8")
    ran = conpet("bench", "run", path)
    assert ran.code == 1
    assert f"lda-o0-s0.json is not a result of conpet bench: {said}; move it away or remove it" in ran.err
    with pytest.raises(CorruptionError):
        read_results(tmp_path / "results")


def test_an_interrupted_run_goes_on_after_its_last_finished_task(
    whole: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment_file(tmp_path)
    learned: list[str] = []
    real = measuring.ConPET.learn

    def dying(self: Any, task: Task, **more: Any) -> Any:
        if len(learned) == 2:
            learned.append("killed")
            raise KeyboardInterrupt
        learned.append(task.name)
        return real(self, task, **more)

    monkeypatch.setattr(measuring.ConPET, "learn", dying)
    with pytest.raises(KeyboardInterrupt):
        measure(tmp_path)
    gone_on = measure(tmp_path)
    assert learned == ["text-0", "text-1", "killed", "text-2"]
    assert gone_on.matrix == whole.matrix
    assert gone_on.metrics == whole.metrics
    assert not (tmp_path / "scratch").exists()


@pytest.mark.parametrize("damage", ["learned but not written down", "half a line", "asked in another way"])
def test_what_cannot_be_gone_on_with_begins_anew(
    whole: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    experiment_file(tmp_path)
    monkeypatch.setattr(measuring._Progress, "result", _die)
    with pytest.raises(KeyboardInterrupt):
        measure(tmp_path)
    monkeypatch.undo()
    steps = tmp_path / "scratch" / "steps.jsonl"
    lines = steps.read_text(encoding="utf-8").splitlines(keepends=True)
    if damage == "asked in another way":
        lines[0] = json.dumps({"asked": "other", "tasks": []}) + "\n"
    else:
        lines[-1] = lines[-1][:20] if damage == "half a line" else ""
    steps.write_text("".join(lines), encoding="utf-8")
    assert measure(tmp_path).matrix == whole.matrix


def test_a_line_that_was_cut_short_spoils_none_that_follow(
    whole: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment_file(tmp_path)
    real = measuring.ConPET.evaluate
    monkeypatch.setattr(measuring.ConPET, "evaluate", _die)
    with pytest.raises(KeyboardInterrupt):
        measure(tmp_path)
    with (tmp_path / "scratch" / "steps.jsonl").open("a", encoding="utf-8") as steps:
        steps.write('{"matrix": {"te')
    left: list[list[str]] = []

    def looking(self: Any) -> Any:
        left.append((tmp_path / "scratch" / "steps.jsonl").read_text(encoding="utf-8").splitlines())
        return real(self)

    monkeypatch.setattr(measuring.ConPET, "evaluate", looking)
    assert measure(tmp_path).matrix == whole.matrix
    assert [json.loads(line) for line in left[-1]]
    assert [len(lines) for lines in left] == [2, 4, 6]


def _die(*_: object) -> None:
    raise KeyboardInterrupt


def test_interrupted_while_it_is_evaluated_a_run_learns_no_task_again(
    whole: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment_file(tmp_path)
    learned: list[str] = []
    real = measuring.ConPET.learn

    def noted(self: Any, task: Task, **more: Any) -> Any:
        learned.append(task.name)
        return real(self, task, **more)

    monkeypatch.setattr(measuring.ConPET, "learn", noted)
    monkeypatch.setattr(measuring.ConPET, "evaluate", _die)
    with pytest.raises(KeyboardInterrupt):
        measure(tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(measuring.ConPET, "learn", noted)
    assert measure(tmp_path).matrix == whole.matrix
    assert learned == ["text-0", "text-1", "text-2"]


def test_killed_with_all_its_processes_it_goes_on(killed: tuple[Path, Killed], done: Path) -> None:
    _, before = killed
    assert before.said.startswith(f"[1/{RUNS}] toy")
    assert 1 <= len(before.results) < RESULTS
    assert len(read_results(done / "results")) == RESULTS
    assert all(one.stat().st_mtime_ns == when for one, when in before.results.items())


def test_runs_that_fail_are_told_and_the_others_are_done(ran: Ran, done: Path) -> None:
    assert ran.code == 1
    assert "toy, wild, order 0: FAILED" in ran.out
    assert "learning_rate" in ran.err
    assert re.search(rf"{ORDERS} of \d runs failed", ran.err)
    assert {one.learner for one in read_results(done / "results")} == {"emr*", "lda"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"learners": {"a": {"method": {"name": "ewc", "no": 1}}}},
            "unknown setting 'method.no'; have: fisher_examples",
        ),
        ({"learners": {"a": {"method": "emr", "replay": "fixd"}}}, "did you mean 'fixed'?"),
        ({"backbone": "minilm-l7"}, "no backbone 'minilm-l7'"),
        (
            {"variants": {"low": {}, "high": {"settings": {"backbone": {"frozen_layers": 5}}}}},
            "high, emr*, order 0: tiny-random has 4 layers, so",
        ),
        ({"stream": {"by": "random", "tasks": 4}}, "not 4"),
        (
            {"data": {"toy": {"first_tasks": 4}}},
            "'data.toy.first_tasks' is 4, but the stream has 3 tasks: give at most 3",
        ),
        (
            {"data": {"toy": {"first_tasks": 3}}, "stream": {"by": "similar-apart", "tasks": 2}},
            "but the stream has 2 tasks",
        ),
        ({"data": {"toy": {"out_of_scope": 5}}}, "'data.toy.out_of_scope' is 5, but the data has no out-of-scope"),
        ({"data": {"toyy": {}}}, "no data set, file or folder 'toyy' in FOLDER or "),
        ({"data": {"clinc15": {}}}, "(did you mean 'clinc150'?); data sets: clinc150, banking77"),
        ({"data": {"tacred": {}}}, "LDC2018T24; put these files into FOLDER/tacred: train.json"),
        ({"stream": {"grouping": "nope"}}, "toy has no grouping 'nope'; available: tasks"),
        (
            {"data": {"banking77": {}}, "stream": {"grouping": "nope"}},
            "no grouping 'nope': banking77 has no groups",
        ),
    ],
)
def test_what_is_wrong_is_said_before_the_first_run(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    path = experiment_file(tmp_path, **changes)
    for more in ([], ["--dry-run"]):
        ran = conpet("bench", "run", path, *more)
        assert ran.code == 1
        assert said.replace("FOLDER", str(tmp_path)) in ran.err
        assert not list(tmp_path.rglob("*-s0.json"))


def test_frozen_layers_that_no_learner_reads_are_not_refused(tmp_path: Path) -> None:
    settings = {"backbone": {"frozen_layers": 9}}
    path = experiment_file(tmp_path, settings=settings, learners={"lda": {"method": "lda"}}, orders=1)
    assert conpet("bench", "run", path, "--dry-run").out == "toy, lda, order 0\n"


def test_what_should_be_known_of_the_data_is_said_once(tmp_path: Path) -> None:
    rows = [f"{label} {number},{label}" for label in ("few", "many", "more", "most") for number in range(20)]
    (tmp_path / "mine.csv").write_text("\n".join(["text,label", "only one,lone", *rows[19:]]), encoding="utf-8")
    path = experiment_file(tmp_path, data={"mine.csv": {}}, stream={"by": "random", "tasks": 2})
    ran = conpet("bench", "run", path, "--dry-run")
    assert ran.code == 0, ran.err
    assert [line for line in ran.err.splitlines() if line.startswith("note: ")] == [
        "note: mine.csv: no test set: 12 training rows were split off with seed 0",
        "note: mine.csv: no validation set: 6 training rows were split off with seed 0",
        "note: mine.csv: 2 of 5 labels have no test example, so accuracy does not cover them: few, lone",
    ]


def test_every_wrong_row_of_the_data_is_named(tmp_path: Path) -> None:
    path = experiment_file(tmp_path, data={"bad.jsonl": {}})
    (tmp_path / "bad.jsonl").write_text('{"text": "no label"}\n' * 30, encoding="utf-8")
    ran = conpet("bench", "run", path, "--dry-run")
    assert "bad.jsonl, emr*, order 0: bad cannot be read" in ran.err
    assert "30 rows (1-30): missing label" in ran.err
    assert "DataError" not in ran.err


def test_data_that_were_changed_since_are_noticed(done: Path, tmp_path: Path) -> None:
    path = experiment_file(tmp_path)
    rows = next((tmp_path / "toy").rglob("test.jsonl"))
    rows.write_text("".join(rows.read_text(encoding="utf-8").splitlines(keepends=True)[1:]), encoding="utf-8")
    ran = conpet("bench", "run", path, "--results", done / "results" / "trial")
    assert ran.code == 1
    assert "the data of toy changed since" in ran.err


def test_joint_training_is_measured_where_it_counts(tmp_path: Path) -> None:
    experiment_file(tmp_path, learners={"joint": {"method": "joint"}})
    found = measure(tmp_path, "joint")
    assert found.matrix[:2] == [None, None]
    assert found.costs[:2] == [None, None]
    assert found.matrix[2] is not None
    assert found.costs[2] is not None
    assert found.metrics["forgetting"] is None
    assert found.totals["steps"] == found.costs[2].steps


def test_numbers_say_after_which_tasks_to_evaluate(tmp_path: Path) -> None:
    experiment_file(tmp_path, learners={"lda": {"method": "lda"}}, evaluate_after=[2])
    found = measure(tmp_path, "lda")
    assert [row is not None for row in found.matrix] == [False, True, True]
    assert [bool(cost and cost.predict_seconds) for cost in found.costs] == [False, True, True]


@pytest.mark.parametrize(("when", "numbers"), [("half", [1]), ("last", [2]), ("doubling", [1])])
def test_a_learner_is_consolidated_where_the_experiment_says(tmp_path: Path, when: str, numbers: list[int]) -> None:
    experiment_file(tmp_path, learners={"lda": {"method": "lda"}}, consolidate={"lda": when})
    found = measure(tmp_path, "lda")
    assert ["consolidation" in cost.stages for cost in found.costs if cost] == [
        index in numbers for index in range(len(found.tasks))
    ]


def test_the_price_of_a_prediction_is_that_of_inputs_never_seen() -> None:
    relation = Example.of_relation(["Ada", "was", "born", "in", "London"], Span(0, 1), Span(4, 5), "born_in")
    turned = backwards(relation)
    assert turned.tokens == ("London", "in", "born", "was", "Ada")
    assert (turned.head, turned.tail, turned.label) == (Span(4, 5), Span(0, 1), None)
    assert backwards(Example.of_text("a b c", "x")) == Example.of_text("c b a")


def test_choices_are_measured_on_half_of_the_validation_examples() -> None:
    task = toy_stream(tasks=1, labels=2, validation=4)[0]
    chosen = on_validation(task)
    assert set(chosen.validation) | set(chosen.test) == set(task.validation)
    assert not set(chosen.test) & set(task.test)
    assert [sum(one.label == label for one in chosen.test) for label in task.labels] == [2, 2]


def test_the_first_tasks_alone_can_be_measured_on_validation(tmp_path: Path) -> None:
    data = {"toy": {"train": 6, "validation": 4, "first_tasks": 2, "measured_on": "validation"}}
    experiment_file(tmp_path, data=data)
    found = measure(tmp_path, "lda")
    assert found.tasks == ["text-0", "text-1"]
    assert found.test_examples == 2 * 2 * 2


def test_threads_are_divided_among_the_workers(killed: tuple[Path, Killed], done: Path) -> None:
    cores = os.cpu_count() or 1
    divided = {2: max(1, cores // 2), 1: cores}
    for path in (done / "results" / "trial").rglob("*.json"):
        made_by = Result.read(path).made_by
        assert made_by["workers"] == (2 if path in killed[1].results else 1)
        assert made_by["threads"] == divided[made_by["workers"]]


def test_two_processes_do_not_run_into_one_folder(tmp_path: Path) -> None:
    from filelock import FileLock

    path = experiment_file(tmp_path)
    running = tmp_path / "results" / "trial" / ".running"
    running.mkdir(parents=True)
    with FileLock(running / "lock"):
        ran = conpet("bench", "run", path)
    assert ran.code == 1
    assert "another process is writing results" in ran.err
