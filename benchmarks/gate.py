"""How often does the gate refuse a change that breaks nothing, and does it stop one that does?

The figures are in docs/how-to/gate.md.

python benchmarks/gate.py                     everything
python benchmarks/gate.py simulation          simulated answers only; the rest of the result stays
python benchmarks/gate.py clinc150 hwu64      these data sets only; the rest of the result stays

Simulation: ten tasks of 15 labels, with answers that are right in 95 of 100 cases and of which 4 in 100 change by
chance; then one label, one task or all labels get worse. Data sets: `minilm-l6`, method `dynamic`, tasks as they come
or by chance, 20 training and 20 validation examples of a label at most, one order and one seed. A learn that the gate
refuses is counted and then made, so that the stream goes on. At the end, bad labels are planted in copies of the
workspace.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from provenance import RESULTS, provenance, write_result

from conpet import ConPET, Example, Task
from conpet.commands.gate import Gate, Judged
from conpet.config import GateConfig
from conpet.data.benchmarks import read_data
from conpet.data.labelled import LabelledData, PerLabel
from conpet.data.recipe import StreamRecipe
from conpet.errors import GateRefusedError
from conpet.evaluation.gate import Comparison, GateReport, Level, judge

TASKS, LABELS = 10, 15
RIGHT, CHANCE = 0.95, 0.02
"""Share of right answers before, and shares of answers that are lost and gained by chance."""
EXAMPLES = (5, 10, 20)
FALLS = {"label": (20, 50, 80), "task": (2, 5, 10), "whole": (2, 5, 10)}
"""Points by which one label, all labels of one task, or all labels fall."""
RUNS = 200
SETTINGS = {
    "default": GateConfig(),
    "strict": GateConfig(label_margin=0, task_margin=0, whole_margin=0),
}
STREAMS = {
    "clinc150": StreamRecipe(),
    "banking77": StreamRecipe(by="random", tasks=7),
    "hwu64": StreamRecipe(by="random", tasks=8),
    "fewrel80": StreamRecipe(),
    "fewnerd53": StreamRecipe(),
    "semeval2010_task8": StreamRecipe(by="random", tasks=5),
}
PER_LABEL = PerLabel(20, 20, 0)
PLANTED_LABELS, PLANTED_EXAMPLES = 5, 20
RESULT = "gate"


def main() -> None:
    wanted = sys.argv[1:] or ["simulation", *STREAMS]
    path = RESULTS / f"{RESULT}.json"
    result = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"streams": {}}
    made_by = provenance()
    for name in wanted:
        if name == "simulation":
            result["simulation"] = {named: simulated(config) for named, config in SETTINGS.items()}
        else:
            result["streams"][name] = learned(name, STREAMS[name])
        result |= {
            "settings": GateConfig().model_dump(mode="json"),
            "tasks": TASKS,
            "labels_per_task": LABELS,
            "runs": RUNS,
            "train_and_validation_per_label": [PER_LABEL.train, PER_LABEL.validation],
            "made_by": made_by,
        }
        print(name, json.dumps(result["simulation" if name == "simulation" else "streams"]), flush=True)
        write_result(RESULT, result, made_by)


def simulated(config: GateConfig) -> dict[str, Any]:
    """Return the share of refused changes by examples of a label, for no change and for falls of a part."""
    draw = np.random.default_rng(0)

    def share(examples: int, affected: int, fall: float) -> float:
        return float(np.mean([refused(draw, examples, affected, fall, config) for _ in range(RUNS)]))

    parts = {"label": 1, "task": LABELS, "whole": TASKS * LABELS}
    return {
        str(examples): {
            "no_change": share(examples, 0, 0.0),
            **{
                part: {str(fall): share(examples, number, fall) for fall in FALLS[part]}
                for part, number in parts.items()
            },
        }
        for examples in EXAMPLES
    }


def refused(draw: np.random.Generator, examples: int, affected: int, fall: float, config: GateConfig) -> bool:
    """Simulate one change in which the first labels fall by some points, and judge it."""
    falls = np.where(np.arange(TASKS * LABELS) < affected, fall / 100, 0.0)
    rates = np.stack([CHANCE + falls, np.full_like(falls, CHANCE), 1 - 2 * CHANCE - falls], axis=1)
    lost, gained, _ = draw.multinomial(examples, rates).T
    by_task = [(each.reshape(TASKS, LABELS).sum(axis=1)) for each in (lost, gained)]
    parts = [
        (Level.WHOLE, [lost.sum()], [gained.sum()], examples * TASKS * LABELS),
        (Level.TASK, *by_task, examples * LABELS),
        (Level.LABEL, lost, gained, examples),
    ]
    comparisons = [
        Comparison(level, "", "", n, round(RIGHT * n), int(one), int(other))
        for level, losses, gains, n in parts
        for one, other in zip(losses, gains, strict=True)
    ]
    return GateReport(0, config, judge(comparisons, config)).refused


def learned(name: str, recipe: StreamRecipe) -> dict[str, Any]:
    """Learn a stream, and return what the gate said at each task, what it costs, and what planted faults do."""
    data = read_data(name, ())
    steps: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        workspace = ConPET.create(Path(folder) / "ws", backbone="minilm-l6", seed=0)
        for task in recipe.stream_of(data, PER_LABEL):
            with timed_gate() as seconds:
                started = time.process_time()
                report = attempted(workspace, lambda task=task: workspace.learn(task, evaluate=False))
                total = time.process_time() - started
            steps.append({**summary(report), "processor_seconds": total, "gate_processor_seconds": seconds()})
        planted = {
            fault: summary(planted_in(Path(folder), workspace, plant(workspace, data)))
            for fault, plant in PLANTS.items()
        }
        workspace.close()
    later = steps[1:]
    return {
        "tasks": len(steps),
        "refused": sum(step["refused"] for step in later),
        "judged": len(later),
        "gate_share": sum(step["gate_processor_seconds"] for step in steps)
        / sum(step["processor_seconds"] for step in steps),
        "steps": steps,
        "planted": planted,
    }


def attempted(workspace: ConPET, change: Callable[[], Any]) -> GateReport:
    """Make a change, also if the gate refuses it; return what the gate found."""
    try:
        done = change()
    except GateRefusedError as error:
        workspace.promote(error.candidate, gate=False)
        return error.report
    return (done[0] if isinstance(done, list) else done).gate


def summary(report: GateReport) -> dict[str, Any]:
    """Return the comparisons of a report in short: how many are broken, the largest falls, and all counts."""
    of_labels = [one for one in report.comparisons if one.level is Level.LABEL and one.n]
    of_tasks = [one for one in report.comparisons if one.level is Level.TASK and one.n]
    whole = [one for one in report.comparisons if one.level is Level.WHOLE]
    return {
        "refused": report.refused,
        "compared": report.compared,
        "changed": len(report.changed),
        "broken": Counter(str(one.level) for one in report.broken),
        "largest_fall": {
            "label": max((one.fall for one in of_labels), default=0.0),
            "task": max((one.fall for one in of_tasks), default=0.0),
            "whole": max((one.fall for one in whole), default=0.0),
        },
        "lost_to_new_labels": sum(taker.count for one in whole for taker in one.takers if taker.new),
        "lost": sum(one.lost for one in whole),
        "counts": [[str(one.level), one.n, one.lost, one.gained] for one in report.comparisons],
    }


class timed_gate:  # noqa: N801 - used as a context manager
    """Measures the processor time that the gate takes."""

    def __enter__(self) -> Callable[[], float]:
        self._judge, self._seconds = Gate.judge, 0.0

        def judged(gate: Gate) -> Judged:
            started = time.process_time()
            found = self._judge(gate)
            self._seconds += time.process_time() - started
            return found

        Gate.judge = judged  # type: ignore[method-assign]
        return lambda: self._seconds

    def __exit__(self, *_: object) -> None:
        Gate.judge = self._judge  # type: ignore[method-assign]


Plant = Callable[[ConPET, LabelledData], Callable[[ConPET], Any]]


def planted_in(folder: Path, workspace: ConPET, change: Callable[[ConPET], Any]) -> GateReport:
    """Make a change in a copy of a workspace, and return what the gate found."""
    copied = folder / "copy"
    shutil.rmtree(copied, ignore_errors=True)
    shutil.copytree(workspace.path, copied)
    with ConPET.open(copied) as copy:
        return attempted(copy, lambda: change(copy))


def unseen(workspace: ConPET, data: LabelledData, labels: Sequence[str]) -> Iterator[tuple[str, list[Example]]]:
    """Yield training examples of labels that the workspace has not learned, at most `PLANTED_EXAMPLES` of each."""
    stored = {
        example.input_key
        for task in recipe_tasks(workspace)
        for subset in (task.train, task.validation)
        for example in subset
    }
    for label in labels:
        own = [one for one in data.train if one.label == label and one.input_key not in stored]
        yield label, own[:PLANTED_EXAMPLES]


def recipe_tasks(workspace: ConPET) -> list[Task]:
    """Return the learned tasks with their stored examples."""
    from conpet.commands.extend import all_stored

    tasks = []
    for record in workspace.tasks:
        stored = {str(subset): tuple(examples) for subset, examples in all_stored(record.active).items()}
        tasks.append(Task(record.name, **stored))
    return tasks


def copied_labels(workspace: ConPET, data: LabelledData) -> Callable[[ConPET], Any]:
    """A new task whose labels are known ones under new names."""
    labels = workspace.tasks[0].active.labels
    chosen = random.Random(0).sample(labels, min(PLANTED_LABELS, len(labels) - 1))
    rows = [example.labelled(f"{label} (again)") for label, own in unseen(workspace, data, chosen) for example in own]
    return lambda copy: copy.learn(Task("planted", tuple(rows), (), ()), evaluate=False)


def swapped_labels(workspace: ConPET, data: LabelledData) -> Callable[[ConPET], Any]:
    """More examples of one task, each with the label of another one."""
    from conpet.data import Examples

    labels = workspace.tasks[0].active.labels
    following = dict(zip(labels, (*labels[1:], labels[0]), strict=True))
    rows = [example.labelled(following[label]) for label, own in unseen(workspace, data, labels) for example in own]
    return lambda copy: copy.extend(Examples(tuple(rows), (), ()), evaluate=False)


PLANTS: dict[str, Plant] = {
    "known labels under new names": copied_labels,
    "wrong labels in more examples": swapped_labels,
}


if __name__ == "__main__":
    main()
