"""How often does watching raise an alarm if nothing changes, and how soon if something does? See docs/how-to/watch.md.

python benchmarks/watch.py [--kept build/refusal] [PART ...]

Parts: "false alarms", "drifts", "feedback" and "feedback by task". For the first two, held-out inputs are answered once
by a workspace of the method `logistic` with `minilm-l6`; streams are drawn from these answers and watched by
`conpet.watching`. For the others, held-out examples and answers are right or wrong by chance; they need no backbone.
Parts that are not named keep their results. One thread.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.provenance import measure_parts
from benchmarks.refusal import Classifier, _inputs, by_task, groups_of, learned
from benchmarks.refusal_data import FOLDERS, Part, parts
from conpet.backbone.backbone import Backbone
from conpet.backbone.load import load_backbone
from conpet.config import GateConfig
from conpet.data import Kind
from conpet.data.benchmarks import read_data
from conpet.refusal.calibration import Calibration
from conpet.report.text import wilson_interval
from conpet.state.refusal import judge
from conpet.state.slots import REFUSAL
from conpet.store.prediction_log import Judged, Watched
from conpet.watching import watch as watching
from conpet.watching.martingale import BLOCK
from conpet.watching.report import WatchOptions
from conpet.watching.watch import Watch

BACKBONE, BLOCK_WIDTH = "minilm-l6", 384
SETS = ("clinc150", "banking77", "hwu64")
SHUFFLES, LONG_RUNS, LONG = 300, 30, 20_000
RUNS, BEFORE, LONGEST = 30, (1000, 10_000), 10_000
"""Runs of a drift, inputs from the first up to the drift, and most inputs after it."""
NEW_LABELS = 15
HELD_OUT_CALIBRATION = 256
HELD_OUT, PROMISED = (60, 300, 3000), 0.94
"""Numbers of held-out examples, and the share of them that is answered right, in the long run."""
MARGIN, TASK_MARGIN = GateConfig().whole_margin / 100, GateConfig().task_margin / 100
FEEDBACK_RUNS, FEEDBACK, FALLS = 300, 3000, (0.05, 0.1, 0.2)
"""Runs, right labels that become known in each, and falls of the accuracy."""
FALLS_AFTER = (0, 500)
"""Right labels before a fall."""
TASKS, HELD_OUT_OF_TASK = (10, 100), (60, 300)
"""Numbers of tasks, and of held-out examples of each."""
FALLS_OF_TASK = (0.1, 0.2, 0.4)
TASK_RUNS, FEEDBACK_OF_TASK = 100, 600
"""Runs without a change, and right labels of each task that become known."""
OPTIONS = WatchOptions()
RESULT = "watch"


def main() -> None:
    torch.set_num_threads(1)
    options = {
        "false_alarm": OPTIONS.false_alarm,
        "reference": OPTIONS.reference,
        "block": BLOCK,
        "backbone": BACKBONE,
        "before": BEFORE,
        "longest": LONGEST,
    }
    measure_parts(RESULT, (__doc__ or "").split("\n")[0], {name: timed(part) for name, part in PARTS.items()}, options)


def timed(part: Callable[[Path], dict[str, Any]]) -> Callable[[Path], dict[str, Any]]:
    """Return a part that also says how much processor time it took."""

    def measured(kept: Path) -> dict[str, Any]:
        started = time.process_time()
        return {**part(kept), "processor_seconds": round(time.process_time() - started, 1)}

    return measured


@dataclass(frozen=True)
class Answers:
    """Answers of one workspace.

    Attributes:
        baseline: What its inputs are compared with.
        known: Answers to held-out inputs of learned labels, by label.
        others: Answers to other inputs, by what they are.
    """

    baseline: watching.Baseline
    known: Mapping[str, Sequence[Watched]]
    others: Mapping[str, Sequence[Watched]]

    @property
    def pool(self) -> list[Watched]:
        """The answers to all held-out inputs of learned labels."""
        return [one for of_label in self.known.values() for one in of_label]


def answers_of(data: str, kept: Path, *, without: Iterable[str] = ()) -> Answers:
    """Learn a data set without some labels, and answer its held-out inputs."""
    found = parts(data, BACKBONE, kept)
    left_out = set(without)
    groups = {name: [one for one in labels if one not in left_out] for name, labels in groups_of(data).items()}
    labels = [label for of_group in groups.values() for label in of_group]
    workspace = learned(by_task(found["train"], groups), BLOCK_WIDTH)
    validation = found["validation"].of(labels)
    rows = random.Random(0).sample(range(len(validation.labels)), min(HELD_OUT_CALIBRATION, len(validation.labels)))
    workspace = workspace.with_calibration(validation.at(rows))
    test = found["test"].of(labels)
    known: dict[str, list[Watched]] = {}
    for label, one in zip(test.labels, answered(workspace, test), strict=True):
        known.setdefault(label, []).append(one)
    others: dict[str, Sequence[Watched]] = {}
    if left_out:
        others["new intents"] = answered(workspace, found["test"].of(left_out))
    if "unknown" in found:
        others["out of scope"] = answered(workspace, found["unknown"])
    if "misspelt" in found:
        others["misspelt"] = answered(workspace, found["misspelt"].of(labels))
        others["japanese"] = answered(workspace, japanese(kept))
    calibration = Calibration.from_json(workspace.state.shared[REFUSAL].document(REFUSAL))
    held_out = {kind: fitted.scores for kind, fitted in calibration.kinds.items()}
    return Answers(watching.Baseline({name: tuple(of) for name, of in groups.items()}, held_out), known, others)


def answered(workspace: Classifier, part: Part) -> list[Watched]:
    """Return the answers to a part."""
    state = workspace.state
    scores = workspace.scores(part.features)
    verdicts = judge(workspace.method, state, _inputs(part.features), Kind.TEXT, scores)
    by_task = torch.zeros((len(scores), len(state.tasks))).index_add_(1, state.owner, scores.exp())
    owner = state.owner.tolist()
    rows = zip(scores.argmax(dim=1).tolist(), by_task.amax(dim=1).tolist(), verdicts, strict=True)
    return [
        Watched(
            0,
            0.0,
            str(Kind.TEXT),
            1,
            state.tasks[owner[column]].name,
            state.classes[column],
            verdict.in_scope,
            verdict.confidence,
            verdict.choice.decision,
            selector,
            verdict.scope,
        )
        for column, selector, verdict in rows
    ]


def japanese(kept: Path) -> Part:
    """Return Japanese sentences on any subject."""
    examples = list(read_data("sib200_ja", FOLDERS).train)
    path = kept / f"sib200_ja-{BACKBONE}.safetensors"
    if not path.exists():
        model = Backbone(load_backbone(BACKBONE, dtype="float32", device="cpu"))
        save_file({"features": model.states(examples, keep=False).features}, path)
    return Part(load_file(path)["features"], [str(one.label) for one in examples], examples)


def watch(answers: Answers, stream: Iterator[Watched], longest: int) -> Watch:
    """Watch a stream until an alarm, or up to a number of inputs."""
    watched = Watch(answers.baseline, OPTIONS)
    while watched.inputs < longest and not watched.alarm:
        block = list(islice(stream, BLOCK))
        if not block:
            break
        watched.add(block)
    return watched


def false_alarms_part(kept: Path) -> dict[str, Any]:
    """Count alarms in streams in which nothing changes."""
    result: dict[str, Any] = {}
    for data in SETS:
        answers = answers_of(data, kept)
        pool = answers.pool
        shuffled = [
            watch(answers, iter(random.Random(run).sample(pool, len(pool))), len(pool)) for run in range(SHUFFLES)
        ]
        generators = [random.Random(f"long {run}") for run in range(LONG_RUNS)]
        drawn = [watch(answers, _drawn(pool, generator), LONG) for generator in generators]
        result[data] = {
            "shuffled": {"inputs": len(pool), **_counted(shuffled)},
            "drawn": {"inputs": LONG, **_counted(drawn)},
        }
        print(data, json.dumps(result[data]), flush=True)
    return result


def _counted(runs: Sequence[Watch]) -> dict[str, Any]:
    """Return how many runs had an alarm."""
    alarms = [run for run in runs if run.alarm]
    names = Counter(name for run in alarms for name in {_family(one.name) for one in run.report().alarms})
    return {
        "runs": len(runs),
        "alarms": len(alarms),
        "share": len(alarms) / len(runs),
        "interval": list(wilson_interval(len(alarms), len(runs))),
        "signals": dict(names),
    }


def _drawn(pool: Sequence[Watched], generator: random.Random) -> Iterator[Watched]:
    while True:
        yield generator.choice(pool)


def drifts_part(kept: Path) -> dict[str, Any]:
    """Measure how soon planted drifts are found."""
    result: dict[str, Any] = {}
    for data in ("clinc150", "hwu64"):
        labels = sorted(label for of_group in groups_of(data).values() for label in of_group)
        new = random.Random(1).sample(labels, NEW_LABELS)
        answers = answers_of(data, kept, without=new)
        result[data] = {}
        for name, changed in drifts(answers).items():
            result[data][name] = {str(before): _delays(answers, changed, before) for before in BEFORE}
            print(data, name, json.dumps(result[data][name]), flush=True)
    return result


Mixture = Sequence[tuple[float, Sequence[Watched]]]
"""Weights and pools that inputs are drawn from."""


def drifts(answers: Answers) -> dict[str, Sequence[Mixture]]:
    """Return what inputs are drawn from after each drift; runs take turns if there are several."""
    pool = answers.pool
    found: dict[str, Sequence[Mixture]] = {}
    for source in ("new intents", "out of scope"):
        for share in (0.02, 0.05, 0.1):
            if source in answers.others:
                found[f"{source}, {share:.0%}"] = [[(1 - share, pool), (share, answers.others[source])]]
    tasks = [
        [one for label in labels for one in answers.known.get(label, ())] for labels in answers.baseline.labels.values()
    ]
    tripled = [[(1.0, pool), (2 * len(of_task) / len(pool), of_task)] for of_task in tasks if of_task]
    found["a task triples"] = tripled
    found["a label triples"] = [
        [(1.0, pool), (2 * len(of_label) / len(pool), of_label)] for of_label in answers.known.values()
    ]
    for source, name in (("misspelt", "misspelt"), ("japanese", "Japanese")):
        for share in (0.1, 1.0):
            if source in answers.others:
                mixture = [(1 - share, pool), (share, answers.others[source])]
                found[f"{name}, {share:.0%}"] = [[part for part in mixture if part[0]]]
    return found


def _delays(answers: Answers, mixtures: Sequence[Mixture], start: int) -> dict[str, Any]:
    delays, first, early = [], Counter[str](), 0
    for run in range(RUNS):
        generator = random.Random(f"drift {run}")
        stream = _changing(answers.pool, mixtures[run % len(mixtures)], start, generator)
        watched = watch(answers, stream, start + LONGEST)
        if watched.alarm and watched.inputs <= start:
            early += 1
        elif watched.alarm:
            delays.append(watched.inputs - start)
            first.update({_family(one.name) for one in watched.report().alarms})
    ordered = sorted(delays)
    runs = RUNS - early
    return {
        "runs": runs,
        "found": len(delays),
        "false_alarms_before": early,
        "median_delay": _quantile(ordered, runs, 0.5),
        "delay_of_nine_in_ten": _quantile(ordered, runs, 0.9),
        "first_signals": dict(first.most_common()),
    }


def _quantile(delays: Sequence[int], runs: int, share: float) -> int | None:
    """Return the delay within which a share of the runs had an alarm; None if fewer had."""
    rank = -(-runs * share // 1)
    return delays[int(rank) - 1] if rank <= len(delays) else None


def _changing(pool: Sequence[Watched], mixture: Mixture, start: int, generator: random.Random) -> Iterator[Watched]:
    for _ in range(start):
        yield generator.choice(pool)
    weights, pools = [weight for weight, _ in mixture], [drawn for _, drawn in mixture]
    while True:
        yield generator.choice(generator.choices(pools, weights)[0])


def feedback_part(_: Path) -> dict[str, Any]:
    """Count alarms of the accuracy if it is as promised, or lower by the margin, and measure how soon falls are found.

    Held-out examples are drawn anew in each run.
    """
    result: dict[str, Any] = {}
    for number in HELD_OUT:
        falls = {
            f"a fall of {100 * fall:.0f} points after {before:,}": _summed(
                [_first_alarm(number, run, fall, before) for run in range(FEEDBACK_RUNS)]
            )
            for fall in FALLS
            for before in FALLS_AFTER
        }
        same = {
            name: sum(_first_alarm(number, run, fall, 0) is not None for run in range(FEEDBACK_RUNS))
            for name, fall in (("as promised", 0.0), ("lower by the margin", MARGIN))
        }
        result[f"{number} held-out examples"] = {
            "false alarms": {
                name: {"alarms": alarms, "runs": FEEDBACK_RUNS, "interval": wilson_interval(alarms, FEEDBACK_RUNS)}
                for name, alarms in same.items()
            },
            **falls,
        }
        print(number, json.dumps(result[f"{number} held-out examples"]), flush=True)
    return result


def _first_alarm(held_out: int, run: int, fall: float, before: int) -> int | None:
    """Return the number of right labels after the fall at the alarm (negative before it), or None."""
    generator = random.Random(f"feedback {held_out} {run} {fall} {before}")
    right = sum(generator.random() < PROMISED for _ in range(held_out))
    watched = Watch(watching.Baseline({}, answered=(held_out, right), margin=MARGIN), OPTIONS)
    for at in range(0, before + FEEDBACK, watching.FEEDBACK_BLOCK):
        share = PROMISED - (fall if at >= before else 0.0)
        watched.add_feedback(
            Judged(0.0, "task", "a", "a" if generator.random() < share else "b") for _ in range(watching.FEEDBACK_BLOCK)
        )
        if watched.alarm:
            return at + watching.FEEDBACK_BLOCK - before
    return None


def feedback_by_task_part(_: Path) -> dict[str, Any]:
    """Count alarms of the accuracy of many tasks, and measure how soon a fall of one of them is found.

    Delays are in right labels of this task; the other tasks stay as promised.
    """
    result: dict[str, Any] = {}
    for tasks in TASKS:
        for held_out in HELD_OUT_OF_TASK:
            found: dict[str, Any] = {}
            for name, fall in (("as promised", 0.0), ("lower by the margin", TASK_MARGIN)):
                alarms = sum(_any_task_alarm(tasks, held_out, run, fall) for run in range(TASK_RUNS))
                found[name] = {"alarms": alarms, "runs": TASK_RUNS, "interval": wilson_interval(alarms, TASK_RUNS)}
            for fall in FALLS_OF_TASK:
                found[f"a fall of {100 * fall:.0f} points"] = _summed(
                    [_task_alarm(tasks, held_out, run, fall) for run in range(FEEDBACK_RUNS)]
                )
            result[f"{tasks} tasks, {held_out} held-out examples"] = found
            print(tasks, held_out, json.dumps(found), flush=True)
    return result


def _watch_of_tasks(tasks: int, held_out: int, generator: random.Random) -> Watch:
    """Return a watch of tasks with a label each, whose held-out examples are right by chance."""
    right = {
        f"task {task}": (held_out, sum(generator.random() < PROMISED for _ in range(held_out))) for task in range(tasks)
    }
    baseline = watching.Baseline(
        {name: (f"label of {name}",) for name in right},
        answered=(tasks * held_out, sum(of_task for _, of_task in right.values())),
        margin=MARGIN,
        answered_by_task=right,
        task_margin=TASK_MARGIN,
    )
    return Watch(baseline, OPTIONS)


def _judged_of_task(task: int, share: float, generator: random.Random) -> Judged:
    label = f"label of task {task}"
    return Judged(0.0, f"task {task}", label if generator.random() < share else "another", label)


def _any_task_alarm(tasks: int, held_out: int, run: int, fall: float) -> bool:
    """Return whether any task raises an alarm if the accuracy of all of them is lower by `fall`."""
    generator = random.Random(f"tasks {tasks} {held_out} {run} {fall}")
    watched = _watch_of_tasks(tasks, held_out, generator)
    for _ in range(FEEDBACK_OF_TASK):
        watched.add_feedback(_judged_of_task(task, PROMISED - fall, generator) for task in range(tasks))
    return any(one.name != "accuracy" for one in watched.report().alarms)


def _task_alarm(tasks: int, held_out: int, run: int, fall: float) -> int | None:
    """Return the number of right labels of the fallen task at its alarm, or None."""
    generator = random.Random(f"one of tasks {tasks} {held_out} {run} {fall}")
    watched = _watch_of_tasks(tasks, held_out, generator)
    for at in range(0, FEEDBACK_OF_TASK, watching.FEEDBACK_BLOCK):
        watched.add_feedback(_judged_of_task(0, PROMISED - fall, generator) for _ in range(watching.FEEDBACK_BLOCK))
        if any(one.name == "accuracy task 0" for one in watched.report().alarms):
            return at + watching.FEEDBACK_BLOCK
    return None


def _summed(alarms: Sequence[int | None]) -> dict[str, Any]:
    delays = sorted(one for one in alarms if one is not None and one > 0)
    early = sum(one is not None and one <= 0 for one in alarms)
    runs = len(alarms) - early
    return {
        "runs": runs,
        "found": len(delays),
        "false_alarms_before": early,
        "median_delay": _quantile(delays, runs, 0.5),
        "delay_of_nine_in_ten": _quantile(delays, runs, 0.9),
    }


def _family(signal: str) -> str:
    return signal.split(" ")[0]


PARTS = {
    "false alarms": false_alarms_part,
    "drifts": drifts_part,
    "feedback": feedback_part,
    "feedback by task": feedback_by_task_part,
}

if __name__ == "__main__":
    main()
