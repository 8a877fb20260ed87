"""The sentences of hand-written pages that state a measured figure, made from the result files.

python benchmarks/stated.py             # print them, page by page
python benchmarks/stated.py --check     # fail if a page lacks one of its sentences

After repeating a measurement, copy the new sentence into the page.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from conpet.evaluation.composite import shown_money
from conpet.features.classifiers import PRIOR_EXAMPLES
from conpet.modules.parameter_count import llama_7b_count
from conpet.report.text import duration, percent

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true")
    checking = parser.parse_args().check
    missing = 0
    for page, sentences in stated().items():
        text = squeezed((ROOT / page).read_text(encoding="utf-8"))
        for sentence in sentences:
            if checking and squeezed(sentence) not in text:
                print(f"{page} lacks this sentence from the result files:\n{sentence}\n", file=sys.stderr)
                missing += 1
            elif not checking:
                print(f"{page}:\n{sentence}\n")
    return int(bool(missing))


def stated() -> Mapping[str, Sequence[str]]:
    """Return the sentences of each page, by its path."""
    demo, speed, selectors, growing = (result(name) for name in ("demo", "speed", "selectors", "growing"))
    return {
        "README.md": [*demo_sentences(demo), *speed_in_short(speed["rows"])],
        "docs/how-to/small-tasks.md": [
            "With `smollm2-135m` on two CPU cores, learning ten 8-example tasks in one batch is "
            f"{ratio(speed['rows'], 'learn-together', 1)} times as fast as learning them one by one"
        ],
        "docs/how-to/merge-and-upgrade.md": growing_lines(growing),
        "docs/how-to/refusal.md": refusal_lines(result("refusal")),
        "docs/how-to/gate.md": gate_lines(result("gate")),
        "docs/how-to/cost.md": cost_lines(result("cost")),
        "docs/how-to/watch.md": watch_lines(result("watch")),
        "docs/how-to/audit.md": [
            *prediction_log_lines(result("prediction-log")),
            *overview_lines(result("prediction-log-1000-tasks")),
        ],
        "docs/how-to/check-data.md": data_check_lines(result("data-check")),
        "docs/how-to/dashboard.md": dashboard_lines(result("dashboard")),
        "docs/explanation/storage.md": parameter_sentences(demo),
        "docs/explanation/batches.md": memory_lines(result("memory")["runs"]),
        "docs/explanation/defaults.md": [
            *selector_sentences(selectors),
            last_weight_sentence(result("last-weight")),
            *prior_lines([result(f"prior-{backbone}") for backbone in ("minilm-l6", "mpnet-base")]),
            *refit_lines([result(f"refit-{backbone}") for backbone in ("minilm-l6", "mpnet-base")]),
            *share_lines([result(f"share-{backbone}") for backbone in ("minilm-l6", "mpnet-base")]),
            *speed_in_full(speed["rows"]),
        ],
        **learn_sentences(),
    }


def result(name: str) -> dict[str, Any]:
    """Return the content of a result file."""
    content: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return content


def squeezed(text: str) -> str:
    """Return text with all white space as single blanks, since pages wrap lines."""
    return " ".join(text.split())


def demo_sentences(demo: Mapping[str, Any]) -> list[str]:
    """Return the demo's result: ten lines of its output, and the sentences of README."""
    summary, cost = demo["summary"], demo["summary"]["cost"]
    best = max(summary["references"], key=summary["references"].get)
    reference = summary["references"][best]
    low, high = demo["whole_accuracy_interval_95_over_examples"]
    tests = sum(total for _, total in demo["report"]["events"][-1]["scores"].values())
    labels = sum(map(len, summary["labels"].values()))
    lines = {
        "whole accuracy": percent(summary["whole_accuracy"]),
        "average accuracy": percent(summary["average_accuracy"]),
        "forgetting": points(summary["forgetting"]),
        "backward transfer": points(summary["backward_transfer"]),
        "selector accuracy": percent(summary["selector_accuracy"]),
        "within-task accuracy": percent(summary["within_task_accuracy"]),
        f"reference: {best}": f"{percent(reference)} ({100 * (summary['whole_accuracy'] - reference):+.1f})",
        "trained parameters": f"{cost['trainable_parameters']:,} ({cost['times_fewer']:.0f}× fewer than the backbone)",
        "stored": f"{cost['bytes_stored'] / 1e6:.1f} MB",
        "peak memory": f"{cost['peak_memory'] / 1e9:.2f} GB",
    }
    return [
        f"the {labels} intents of CLINC150 as {words(len(summary['tasks']))} tasks",
        f"On two CPU cores this took {duration(demo['seconds'])}",
        " ".join(f"{name} {value}" for name, value in lines.items()),
        f"The 95% confidence interval of the whole accuracy over the {tests:,} test examples is {percent(low)} to "
        f"{percent(high)}.",
        consolidation_sentence(demo),
    ]


def consolidation_sentence(demo: Mapping[str, Any]) -> str:
    """Return the sentence on the consolidation at the end of the demo, which is kept or refused."""
    done, refused = demo["consolidation"], demo["consolidation_refused"]
    if refused:
        return f"After {duration(refused['seconds'])} its result was not kept."
    before, after = done["before"], done["after"]
    return (
        f"The consolidation took {duration(done['seconds'])} and moved accuracy on validation examples from "
        f"{percent(before['validation_accuracy'])} to {percent(after['validation_accuracy'])}, and whole accuracy from "
        f"{percent(before['whole_accuracy'])} to {percent(after['whole_accuracy'])}."
    )


def speed_in_short(rows: Mapping[str, Any]) -> list[str]:
    """Return README's sentences on speed."""
    return [
        f"Predicting with 10 tasks takes {ratio(rows, 'predict-few-tasks')} times as long as a plain forward pass of "
        "the backbone.",
        "A batch of 32 inputs that need 32 different modules runs "
        f"{ratio(rows, 'mixed-batch', 1)} times as fast as it does with PEFT's `adapter_names`.",
        f"Learning a task was {ratio(rows, 'learn-same-layers', 1)} times as fast as training a LoRA on the same "
        "layers with PEFT (measured before there was a gate).",
        f"Learning task 100 takes {ratio(rows, 'learn-late-task', 1)} times as long as learning task 2 "
        f"({rows['learn-late-task']['ours']['median']:.1f} s against "
        f"{rows['learn-late-task']['theirs']['median']:.1f} s: "
        "90 examples, three epochs, `minilm-l6`).",
    ]


def speed_in_full(rows: Mapping[str, Any]) -> list[str]:
    """Return the sentences on speed of the page on defaults."""
    few, many = sorted(ratio(rows, f"predict-many-tasks{hot}") for hot in ("", "-hot"))
    return [
        *speed_in_short(rows),
        f"One short text takes {ratio(rows, 'predict-one-text')} times as long as a plain forward pass of that text.",
        f"With `selector.top_k=3`, predicting takes {ratio(rows, 'predict-top-3')} times as long as a plain forward "
        "pass.",
        f"With `minilm-l6`, predicting with 1,000 tasks takes {few} to {many} times as long as with 10.",
        f"Learning is {ratio(rows, 'learn-all-layers', 1)} times as fast as training a LoRA on all layers with PEFT "
        "for the same number of epochs. LoRA on all layers learns more per epoch, though: conpet reaches the same "
        "accuracy "
        f"{ratio(rows, 'learn-equally-well', 1)} times as fast.",
        f"Learning ten tasks of 8 examples in one batch is {ratio(rows, 'learn-together', 1)} times as fast as "
        "learning them one by one.",
    ]


def last_weight_sentence(found: Mapping[str, Any]) -> str:
    """Return what the weight of the last layer brings to the logistic regression."""
    gains = {data: 100 * one["2"]["difference"] for data, one in found["backbones"]["minilm-l6"].items()}
    return (
        f"{gains['banking77']:.1f} points more on Banking77, {gains['hwu64']:.1f} on HWU64 and {gains['clinc150']:.1f} "
        "on CLINC150 than with equal weights"
    )


def prior_lines(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the table of accuracy by the shrinkage of LDA's covariance."""
    asked = [(found["backbone"], data, one) for found in results for data, one in found["data"].items()]
    columns = [(classifier, rule) for classifier in ("lda", "together") for rule in ("0.1", str(PRIOR_EXAMPLES))]
    errors = [
        100 * one[classifier][rule]["standard_error"] for _, _, one in asked for classifier, rule in columns[1::2]
    ]
    return [
        *(
            row(
                f"`{backbone}`, {NAMES[data]} ({one['learned']:,}; {one['asked']:,})",
                [f"{100 * one[classifier][rule]['accuracy']:.1f}" for classifier, rule in columns],
            )
            for backbone, data, one in asked
        ),
        f"standard errors of {min(errors):.1f} to {max(errors):.1f} points",
    ]


def refit_lines(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the table of what learning from validation examples brings to the classifiers that answer."""
    asked = [(found["backbone"], data, one) for found in results for data, one in found["data"].items()]
    errors = [100 * one["both"]["standard_error"] for _, _, one in asked]
    return [
        *(
            row(
                f"`{backbone}`, {NAMES[data]} ({one['asked']:,})",
                [
                    *(f"{100 * one[rule]['accuracy']:.1f}" for rule in ("no", "class means", "both")),
                    *(f"{one[rule]['log_loss']:.3f}" for rule in ("no", "both")),
                    *(percent(one[rule]["covered"]) for rule in ("no", "both")),
                ],
            )
            for backbone, data, one in asked
        ),
        f"standard errors of {min(errors):.1f} to {max(errors):.1f} points",
    ]


def share_lines(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the table of accuracy by the share of its LoRA that a consolidation folds in."""
    shares = ("none", "0.25", "0.5", "0.75", "1")
    asked = [(found["backbone"], data, one) for found in results for data, one in found["data"].items()]
    errors = [100 * one[share]["standard_error"] for _, _, one in asked for share in shares[:-1]]
    return [
        *(
            row(
                f"`{backbone}`, {NAMES[data]} ({one['examples']:,})",
                [f"{100 * one[share]['accuracy']:.1f}" for share in shares],
            )
            for backbone, data, one in asked
        ),
        f"standard errors of {min(errors):.1f} to {max(errors):.1f} points",
    ]


def selector_sentences(found: Mapping[str, Any]) -> list[str]:
    """Return the sentences on how often each selector ranks the true task first."""
    names = {"linear": "linear", "prototypes": "prototypes", "learned": "learned, 100 steps a task"}
    shown = {name: found["selectors"][key] for name, key in names.items()}
    first = {
        name: f"{percent(one['selector_accuracy_mean'])} ± {100 * one['interval_95']:.1f}"
        for name, one in shown.items()
    }
    return [
        f"On the demo's stream it ranks the true task first for {first['linear']} of "
        f"{shown['linear']['examples']} validation examples, compared with {first['prototypes']} for `prototypes` "
        f"and {first['learned']} for `learned` (the paper's selector, 100 steps per task); one order each, 95% "
        "intervals over examples."
    ]


def growing_lines(found: Mapping[str, Any]) -> list[str]:
    """Return the table and the paragraph on upgrading and merging."""
    upgrade, merge = found["upgrade"], found["merge"]
    paper, calibrated = upgrade["paper"], upgrade["calibrated"]
    return [
        f"| `emr`, 4 tasks | {percent(paper['before'])} |",
        f"| the same workspace after the upgrade, `fusion=paper` | {percent(paper['upgraded'])} |",
        f"| the same after learning a fifth task | {percent(paper['and_one_more_task'])} (`emr` without the upgrade: "
        f"{percent(upgrade['static']['and_one_more_task'])}) |",
        f"| upgraded with `--fusion calibrated` | {percent(calibrated['upgraded'])} |",
        f"| the same after learning a fifth task | {percent(calibrated['and_one_more_task'])} |",
        f"accuracy on their {merge['validation_examples']} validation examples went from "
        f"{percent(merge['accuracy_before'])} to {percent(merge['accuracy_after'])}, and the size of the workspace "
        f"from {merge['bytes_before'] / 1e6:.1f} MB to {merge['bytes_after'] / 1e6:.1f} MB.",
    ]


def gate_lines(found: Mapping[str, Any]) -> list[str]:
    """Return the tables of simulated changes and of real streams, and the sentences on both."""
    streams = found["streams"]
    rows = [row(f"`{name}`", _stream_cells(one)) for name, one in streams.items()]
    refused, judged = (sum(one[key] for one in streams.values()) for key in ("refused", "judged"))
    planted = [one["refused"] for stream in streams.values() for one in stream["planted"].values()]
    seconds = [step[key] for one in streams.values() for step in one["steps"] for key in ("processor_seconds",)]
    gate = sum(step["gate_processor_seconds"] for one in streams.values() for step in one["steps"])
    compared = sum(step["compared"] for one in streams.values() for step in one["steps"])
    stopped = [step for one in streams.values() for step in one["steps"] if step["refused"]]
    falls = " and ".join(f"{step['largest_fall']['whole']:.1f}" for step in stopped)
    lost, to_new = (sum(step[key] for step in stopped) for key in ("lost", "lost_to_new_labels"))
    return [
        *[line for name in ("default", "strict") for line in _simulated_rows(found["simulation"][name])],
        *rows,
        f"The gate refused {refused} of {judged} ordinary learns, and {sum(planted)} of {len(planted)} with planted "
        "labels.",
        f"It took {percent(gate / sum(seconds))} of the processor time of learning without an evaluation, "
        f"{1000 * gate / compared:.1f} ms for each example compared.",
        f"earlier labels fall by {falls} points together, and {to_new} of the {lost} lost answers go to the new "
        "labels.",
    ]


def cost_lines(found: Mapping[str, Any]) -> list[str]:
    """Return the table of scores by method and schedule, and the sentences on them."""
    parts = ("errors", "freshness", "updates", "running", "review", "total")
    methods = found["methods"]
    rows = [
        row(f"`{method}`, {schedule}", [percent(one["accuracy"]), *(shown_money(one["score"][part]) for part in parts)])
        for method, schedules in methods.items()
        for schedule, one in schedules.items()
    ]
    seconds = {name: one["as needed"]["kinds"]["learn"]["cpu_seconds"] for name, one in methods.items()}
    dynamic = methods["dynamic"]["as needed"]
    anew, unshared = dynamic["alternatives"]
    machine = dynamic["money"] - dynamic["kinds"]["review"]["money"]
    return [
        *rows,
        f"Learning as needed took {seconds['logistic']:.1f} s of processor time with `logistic` and "
        f"{seconds['dynamic']:.1f} s with `dynamic`. All that the machine did for `dynamic` cost "
        f"{shown_money(machine)} EUR, people's work {dynamic['kinds']['review']['money']:.0f} EUR.",
        "For `dynamic`, learning everything anew each time would have passed "
        f"{anew['learning_times']:.1f} times as many tokens, and a module per task without sharing "
        f"{unshared['learning_times']:.1f} times as many, with {unshared['storage_times']:.1f} times the storage.",
    ]


def _simulated_rows(simulated: Mapping[str, Any]) -> list[str]:
    """Return a table's rows: for each number of examples of a label, the share refused without and with falls."""
    return [
        row(
            f"{examples} a label",
            [
                percent(one["no_change"]),
                *(percent(share) for part in ("label", "task", "whole") for share in one[part].values()),
            ],
        )
        for examples, one in simulated.items()
    ]


def _stream_cells(one: Mapping[str, Any]) -> list[str]:
    """Return what the gate found on a stream: refused learns, the largest fall, answers taken, planted labels."""
    later = one["steps"][1:]
    lost, new = (sum(step[key] for step in later) for key in ("lost", "lost_to_new_labels"))
    return [
        f"{one['refused']} of {one['judged']}",
        f"{max(step['largest_fall']['task'] for step in later):.1f}",
        f"{new:,} of {lost:,}",
        *("refused" if planted["refused"] else "accepted" for planted in one["planted"].values()),
    ]


def refusal_lines(found: Mapping[str, Any]) -> list[str]:
    """Return the tables and sentences on decisions to answer, ask or decline."""

    def separated(one: Mapping[str, float]) -> str:
        return f"{one['auroc']:.3f}, {percent(one['false_positives'])}"

    scores = list(found["scores"].values())
    lines = [row(name, [separated(one[name]) for one in scores]) for name in scores[0]]
    for backbone, one in found["decisions"].items():
        lines += [
            row(f"{backbone}, {side}", [percent(one[side][decision]) for decision in ("answer", "ask", "decline")])
            for side in ("known", "unknown")
        ]
    small, mpnet = found["decisions"]["minilm-l6"], found["decisions"]["mpnet-base"]
    ece, mpnet_ece = (one["calibration_error"]["known and unknown"] for one in (small, mpnet))
    questions, costs = small["questions"], small["cost_per_input"]
    lines += [
        f"Of the answers to known inputs, {percent(small['accuracy_of_answers'])} (`mpnet-base`: "
        f"{percent(mpnet['accuracy_of_answers'])}) are right; of all their labels, {percent(small['accuracy'])} "
        f"({percent(mpnet['accuracy'])}).",
        f"A question about a known input offers {questions['candidates']:.1f} candidates, and one of them is right in "
        f"{percent(questions['right'])} of the cases; {percent(questions['stated_if_known'])} is stated for inputs of "
        "learned labels.",
        f"At the default costs, an input costs {costs['deciding']:.2f}, and {costs['always answering']:.2f} if every "
        "input is answered.",
    ]
    lines.append(
        f"On known and unknown inputs together, the expected calibration error of `confidence` is "
        f"{percent(ece['confidence'])} (`mpnet-base`: {percent(mpnet_ece['confidence'])}), that of `score` "
        f"{percent(ece['score'])} ({percent(mpnet_ece['score'])})."
    )
    lines += [
        row(
            f"{size} labels",
            [
                percent(one["unknown"]["score_above_099"]),
                percent(one["unknown"]["confidence_above"]),
                *(percent(one["unknown"][decision]) for decision in ("answer", "ask", "decline")),
                percent(one["known"]["answer"]),
            ],
        )
        for size, one in found["modules"].items()
    ]
    lines += [
        row(
            f"{NAMES[name]}, {one['domains']} left out in turn",
            [separated(one["separation"]), f"{one['lowest_auroc']:.3f}"],
        )
        for name, one in found["domains"].items()
    ]
    lines += [
        row(
            f"{NAMES[name.partition(',')[0]]}{name.partition(',')[1]}{name.partition(',')[2]}",
            [
                f"{level}",
                f"{one['reached']:.3f}",
                f"{one['mean_over_labels']:.3f}",
                f"{one['promised']} of {one['labels']}",
                str(one["promised_and_lower_than_chance_explains"]),
                *(percent(one[decision]) for decision in ("answer", "ask", "decline")),
            ],
        )
        for name, levels in found["coverage"].items()
        for level, one in levels.items()
    ]
    last = found["growth"]["1000"]
    lines.append(
        "With 1,000 tasks of two labels each (random features), the true label is beyond the 32 likeliest tasks for "
        f"{last['true_label_beyond_the_likeliest_tasks']} of {last['labels']:,} inputs, and gets probability 0 for "
        f"{last['true_label_with_probability_0']}."
    )
    return [*lines, *(_task_lines(found["tasks"]) if "tasks" in found else ())]


def _task_lines(found: Mapping[str, Any]) -> list[str]:
    """Return the table and the sentences on decisions among many tasks."""
    lines = []
    for tasks, one in found.items():
        for how in ("logistic", "fusion"):
            answers, coverage = one[how], one[how]["coverage"]
            separation = answers["separation"]
            cells = [
                f"{separation['auroc']:.3f}, {percent(separation['false_positives'])}",
                *(percent(answers[side]["answer"]) for side in ("known", "unknown")),
                percent(answers["unknown"]["decline"]),
                percent(answers["accuracy_of_answers"]),
                *(f"{coverage[level]['reached']:.3f}" for level in ("0.9", "0.95")),
                percent(answers["calibration_error"]["known and unknown"]["confidence"]),
            ]
            lines.append(row(f"{int(tasks):,}, {how}", cells))
    beyond = found["1000"]["fusion"]["beyond_the_likeliest_tasks"]
    test = found["1000"]["examples"]["test"]
    times = ", ".join(f"{1000 * one['fusion']['seconds_per_decision']:.2f}" for one in found.values())
    lines.append(
        f"With 1,000 tasks, the right label is beyond the 32 likeliest for "
        f"{beyond['true_label_beyond_the_likeliest_tasks']} of {test:,} inputs, and gets probability 0 for "
        f"{beyond['true_label_with_probability_0']}; the labels beyond them get "
        f"{percent(beyond['probability_beyond_the_likeliest_tasks'])} of the probability."
    )
    return [*lines, f"A decision takes {times} ms of processor time with 10, 100 and 1,000 tasks, beside the encoding."]


NAMES = {
    "clinc150": "CLINC150",
    "banking77": "Banking77",
    "hwu64": "HWU64",
    "fewrel80": "FewRel",
    "fewnerd53": "Few-NERD",
    "semeval2010_task8": "SemEval",
}
"""Names of data sets in pages."""


def watch_lines(found: Mapping[str, Any]) -> list[str]:
    """Return the tables of false alarms and of delays."""
    lines = [
        row(
            f"{NAMES[data]}, {how}",
            [
                f"{one['inputs']:,}",
                f"{one['alarms']} of {one['runs']}",
                f"{percent(one['share'])} ({percent(one['interval'][0])} to {percent(one['interval'][1])})",
            ],
        )
        for data, of_data in found["false alarms"].items()
        if data in NAMES
        for how, one in of_data.items()
    ]
    lines += [
        row(f"{NAMES[data]}: {name}", [_delay_cell(one) for one in by_past.values()])
        for data, of_data in found["drifts"].items()
        if data in NAMES
        for name, by_past in of_data.items()
    ]
    for name, one in found["feedback"].items():
        if not name.endswith("examples"):
            continue
        lines.append(row(name, [f"{same['alarms']} of {same['runs']}" for same in one["false alarms"].values()]))
        lines += [row(f"{name}, {fall}", [_delay_cell(each) for each in both]) for fall, both in _falls(one).items()]
    for name, one in found["feedback by task"].items():
        if name.endswith("examples"):
            same = [f"{each['alarms']} of {each['runs']}" for each in one.values() if "alarms" in each]
            lines.append(row(name, [*same, *(_delay_cell(each) for each in one.values() if "found" in each)]))
    return lines


def _falls(found: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    """Return the results of each fall: at once, and later."""
    falls: dict[str, list[Mapping[str, Any]]] = {}
    for name, one in found.items():
        if name.startswith("a fall"):
            falls.setdefault(name.partition(" after ")[0], []).append(one)
    return falls


def prediction_log_lines(found: Mapping[str, Any]) -> list[str]:
    """Return the sentences on the cost of the record of predictions."""
    times, spent = found["milliseconds"], found["microseconds_per_text"]
    pages = [times[name] for name in ("newest page", "page in the middle", "page of a task", "page of a decision")]
    return [
        f"An entry costs {spent['in_batches']:.0f} microseconds of processor time in batches, {spent['alone']:.0f} "
        f"alone, and {found['bytes_per_entry']:.0f} bytes without the input.",
        f"With {found['entries']:,} entries, a page takes up to {max(pages):.0f} ms of processor time, one whose "
        f"entries are rare or missing {times['page of a label that never was']:.0f} ms, and counts of the tasks for "
        f"each hour of a week {times['counts of tasks by hour, last week']:.0f} ms.",
    ]


def overview_lines(found: Mapping[str, Any]) -> list[str]:
    """Return the sentence on the counts of many tasks."""
    times = found["milliseconds"]
    return [
        f"With {found['entries']:,} entries of {found['tasks']:,} tasks, the counts of a month take "
        f"{times['decisions of each day']:.0f} ms by day, {times['decisions of each task']:.0f} ms by task, and "
        f"{times['a task day by day']:.0f} ms for one task day by day."
    ]


def dashboard_lines(found: Mapping[str, Any]) -> list[str]:
    """Return the table of the times to the first byte of the dashboard's pages, and the sentence on the slowest."""
    pages = found["pages"]
    slowest, most = (max(one[name] for one in pages.values()) for name in ("median", "processor"))
    return [
        *(
            row(f"`{page}`", [f"{one[name]:.0f}" for name in ("median", "longest", "processor")])
            for page, one in pages.items()
            if "?" not in page
        ),
        f"On a workspace of {found['tasks']:,} tasks with {found['entries']:,} recorded predictions, the first byte of "
        f"each page comes within {slowest:.0f} ms (median of {found['repeats']} requests), and no page takes more than "
        f"{most:.0f} ms of processor time.",
    ]


def _delay_cell(one: Mapping[str, Any]) -> str:
    """Return how many runs found a drift, and the delays within which half and nine in ten did."""
    delays = ["–" if one[name] is None else f"{one[name]:,}" for name in ("median_delay", "delay_of_nine_in_ten")]
    return f"{one['found']} of {one['runs']}: {', '.join(delays)}"


def data_check_lines(found: Mapping[str, Any]) -> list[str]:
    """Return the tables of what a check finds of planted faults, and the sentence on its time."""
    sets = list(found["data"].values())
    rows = [
        row(f"labels flipped, {float(share):.0%}", [rates(one["flipped"][share]) for one in sets])
        for share in sets[0]["flipped"]
    ]
    rows += [
        row(name, [rates(one["planted"][fault]) if fault in one["planted"] else "–" for one in sets])
        for fault, name in FAULTS.items()
    ]
    accuracy = [row("as published, cleaned", [percent(one["accuracy"]) for one in sets])]
    accuracy += [
        row(f"labels flipped, {float(share):.0%}", [before_after(one["flipped"][share]) for one in sets])
        for share in sets[0]["flipped"]
    ]
    accuracy += [
        row(FAULTS[fault], [before_after(one["planted"][fault]) for one in sets])
        for fault in ("leak", "near-leak", "contradiction")
    ]
    alarms = [
        row(name, [f"{one['found_as_published'].get(code, 0):,} of {one['rows']:,}" for one in sets])
        for code, name in {"mislabelled": "probably mislabelled", **FAULTS}.items()
    ]
    seconds = found["seconds"]
    return [
        *rows,
        *accuracy,
        *alarms,
        f"{seconds['rows']:,} rows take {duration(seconds['check_quick'])} of processor time with `--quick`, and "
        f"{duration(seconds['before_learning'])} for the checks that `learn` makes.",
    ]


FAULTS = {
    "duplicate": "duplicates",
    "near-duplicate": "near duplicates",
    "contradiction": "contradictions",
    "leak": "leaks of test inputs",
    "near-leak": "near leaks",
    "label-forms": "other forms of a label",
    "characters": "invisible characters",
    "personal-data": "personal data",
    "language": "another language",
}
"""Planted faults and their names on the page."""


def row(name: str, cells: Sequence[str]) -> str:
    return f"| {name} | {' | '.join(cells)} |"


def rates(one: Mapping[str, float]) -> str:
    return f"{one['precision']:.0%} / {one['recall']:.0%}"


def before_after(one: Mapping[str, float]) -> str:
    return f"{percent(one['accuracy'])} → {percent(one['accuracy_fixed'])}"


def memory_lines(runs: Mapping[str, Any]) -> list[str]:
    """Return the table of resident memory, by backbone and number format."""
    return [
        row(
            f"`{backbone}`, {dtype}",
            [
                *(" / ".join(f"{held:,.0f}" for held in checkpoints(run[side])) for side in ("conpet", "plain")),
                *(f"{run[side]['texts']:,}" for side in ("conpet", "plain")),
                f"{run['compared']['conpet_mb']:,.0f}",
                f"{run['compared']['allowed_mb']:,.0f}",
            ],
        )
        for backbone, by_dtype in runs.items()
        for dtype, run in by_dtype.items()
    ]


def checkpoints(side: Mapping[str, Any]) -> list[float]:
    """Return the resident memory before the first text, after 2,048 and after the last."""
    held = side["resident_mb"]
    return [held["0"], held["2048"], list(held.values())[-1]]


def parameter_sentences(demo: Mapping[str, Any]) -> list[str]:
    """Return the sentences on parameters, for LLaMA-7B and for the demo."""
    count, cost = llama_7b_count(), demo["summary"]["cost"]
    return [
        f"For LLaMA-7B, LoRA of rank 4 on the query and key projections trains {count.module:,} of {count.backbone:,} "
        f"parameters ({count.ratio:,.0f} times fewer), or {count.module + count.head:,} with a head over "
        f"{count.labels} labels ({count.ratio_with_head:,.0f} times fewer).",
        f"The demo's backbone is {count.backbone / cost['backbone_parameters']:.0f} times smaller, and conpet's "
        f"default is rank 8 on all linear layers of the suffix, so its ratio is {cost['times_fewer']:.0f}.",
    ]


def learn_sentences() -> dict[str, list[str]]:
    """Return the sentences of the guides in docs/learn, in both languages, with the same figures."""
    templates = yaml.safe_load((ROOT / "docs" / "learn" / "figures.yaml").read_text(encoding="utf-8"))
    figures = learn_figures() | stage_figures()
    return {
        f"docs/learn/{language}/{page}.md": [one[language].format_map(figures) for one in sentences]
        for page, sentences in templates.items()
        for language in ("en", "ja")
    }


def learn_figures() -> dict[str, str]:
    """Return the measured figures of the guides, by name."""
    demo, speed, gate, cost = result("demo"), result("speed")["rows"], result("gate"), result("cost")
    refusal, watch = result("refusal"), result("watch")["drifts"]["clinc150"]
    summary, late = demo["summary"], speed["learn-late-task"]
    dynamic = cost["methods"]["dynamic"]
    anew, unshared = dynamic["as needed"]["alternatives"]
    streams = list(gate["streams"].values())
    planted = [one["refused"] for stream in streams for one in stream["planted"].values()]
    decided = refusal["decisions"]["minilm-l6"]
    few, many = sorted(ratio(speed, f"predict-many-tasks{hot}") for hot in ("", "-hot"))
    stopped = {size: percent(one["task"]["10"]) for size, one in gate["simulation"]["default"].items()}
    people = dynamic["as needed"]["kinds"]["review"]["money"]
    return {
        "labels": str(sum(map(len, summary["labels"].values()))),
        "seconds": f"{demo['seconds']:.0f}",
        "whole": percent(summary["whole_accuracy"]),
        "tests": f"{sum(total for _, total in demo['report']['events'][-1]['scores'].values()):,}",
        "forgetting": f"{100 * summary['forgetting']:.1f}",
        "logistic": percent(summary["references"]["logistic"]),
        "memory": f"{summary['cost']['peak_memory'] / 1e9:.2f}",
        "stored": f"{summary['cost']['bytes_stored'] / 1e6:.1f}",
        "anew": f"{anew['learning_times']:.1f}",
        "storage": f"{unshared['storage_times']:.1f}",
        "late": ratio(speed, "learn-late-task", 1),
        "late_seconds": f"{late['ours']['median']:.1f}",
        "early_seconds": f"{late['theirs']['median']:.1f}",
        "few": few,
        "many": many,
        "passed": str(sum(one["judged"] - one["refused"] for one in streams)),
        "judged": str(sum(one["judged"] for one in streams)),
        "stopped": str(sum(planted)),
        "planted": str(len(planted)),
        "stopped_5": stopped["5"],
        "stopped_20": stopped["20"],
        "declined": percent(decided["unknown"]["decline"]),
        "asked": percent(decided["unknown"]["ask"]),
        "answered": percent(decided["unknown"]["answer"]),
        "right": percent(decided["accuracy_of_answers"]),
        "reached": percent(refusal["coverage"]["clinc150, test"]["0.9"]["reached"]),
        "misspelt": percent(refusal["coverage"]["clinc150, misspelt"]["0.9"]["reached"]),
        "noticed": f"{watch['new intents, 10%']['1000']['median_delay']:,}",
        "rare": str(watch["new intents, 2%"]["1000"]["found"]),
        "runs": str(watch["new intents, 2%"]["1000"]["runs"]),
        "machine": shown_money(dynamic["as needed"]["money"] - people),
        "people": f"{people:.0f}",
        "core_hour": f"{cost['prices']['cpu_hour']}",
        "work_hour": f"{cost['prices']['review_hour']:.0f}",
        "soon": shown_money(dynamic["as needed"]["score"]["freshness"]),
        "at_the_end": shown_money(dynamic["all at the end"]["score"]["freshness"]),
    }


def stage_figures() -> dict[str, str]:
    """Return the conditions of conpet's own stages that the guides name."""
    text = (files("conpet.commands") / "stages.yaml").read_text(encoding="utf-8")
    stages = {
        stage["name"]: {one["check"]: one for one in stage["conditions"]} for stage in yaml.safe_load(text)["stages"]
    }
    static, growing, full = (stages[name] for name in ("static", "dynamic", "full"))
    return {
        "stage_tests": str(static["test_examples"]["at_least"]),
        "stage_accuracy": str(static["accuracy"]["at_least"]),
        "stage_tasks": str(growing["tasks"]["at_least"]),
        "stage_gate": str(growing["gate"]["last"]),
        "stage_forgetting": str(growing["forgetting"]["at_most"]),
        "stage_worst": str(full["worst_task"]["at_least"]),
        "stage_answers": f"{full['answers']['at_least']:,}",
        "stage_review": str(full["review"]["at_least"]),
    }


def ratio(rows: Mapping[str, Any], row: str, digits: int = 2) -> str:
    """Return the median ratio of a row of speed.json."""
    return f"{rows[row]['ratio']['median']:.{digits}f}"


def points(difference: float) -> str:
    return f"{100 * difference:.1f} points".replace("-", "−")


def words(number: int) -> str:
    return {10: "ten"}.get(number, str(number))


if __name__ == "__main__":
    sys.exit(main())
