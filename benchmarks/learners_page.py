"""Make docs/learners.md from the result files of `learners.py` and `depth.py`.

python benchmarks/learners_page.py [--check]     # --check: fail if the page is not what the files give
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean, median
from typing import Any

from intervals import summarise
from learners import PROTOCOL, all_runs
from markdown_page import template
from provenance import RESULTS

from conpet.config import MethodOptions
from conpet.learners import METHODS

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "learners.md"
Runs = dict[str, dict[str, list[dict[str, Any]]]]
REPLAY_FREE = ("sequential", "ewc", "lwf", "o-lora", "ncm", "lda", "ridge", "ranpac", "klda")
BOUND = "joint"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true")
    page = rendered()
    if parser.parse_args().check:
        if PAGE.read_text(encoding="utf-8") != page:
            print(f"{PAGE} is stale: run python benchmarks/learners_page.py", file=sys.stderr)
            return 1
        return 0
    PAGE.write_text(page, encoding="utf-8")
    print(PAGE)
    return 0


def rendered() -> str:
    """Return the page as the result files have it."""
    runs = read_runs()
    return template("learners.md.j2", points=points, gap=gap, bounds=bounds).render(
        protocol=PROTOCOL,
        options=options(),
        made_by=_made_by(),
        tables={data: [row(learner, found) for learner, found in runs[data].items()] for data in runs},
        stars={data: stars(runs[data]) for data in runs},
        small={data: difference(runs[data]["emr*"], runs[data]["emr of 2"]) for data in runs},
        gaps={data: gaps(runs[data]) for data in runs},
        warm={data: warm(runs[data]) for data in runs},
        depth=json.loads((RESULTS / "depth.json").read_text()),
    )


def options() -> list[dict[str, Any]]:
    """Return what can be set for one method alone, as its `Options` say."""
    return [
        {"method": method, "name": name, "default": field.default, "meaning": meanings(METHODS[method].Options)[name]}
        for method in METHODS
        for name, field in METHODS[method].Options.model_fields.items()
    ]


def meanings(kind: type[MethodOptions]) -> dict[str, str]:
    """Return what the docstring of options says of each."""
    return dict(re.findall(r"^ +(\w+): (.+)$", kind.__doc__ or "", re.MULTILINE))


def read_runs() -> Runs:
    """Return the results by data and learner, orders ascending."""
    runs: Runs = {data: defaultdict(list) for data in PROTOCOL["data"]}
    for run in all_runs():
        runs[run.data][run.learner].append(json.loads((RESULTS / f"{run.name}.json").read_text()))
    return {data: dict(found) for data, found in runs.items()}


def _made_by() -> dict[str, Any]:
    first = json.loads((RESULTS / f"{next(all_runs()).name}.json").read_text())
    return dict(first["made_by"])


def row(learner: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a learner's row of the main table."""
    figures = ("whole_accuracy", "average_accuracy", "forgetting", "selector_accuracy", "within_task_accuracy")
    return {
        "learner": learner,
        **{name: summary(runs, name) for name in figures},
        "seconds": median(run["cpu_seconds"] for run in runs if "cpu_seconds" in run),  # not yet in the first files
        "megabytes": runs[-1]["bytes_stored"] / 1e6,
        "parameters": runs[0]["trainable_parameters"],
    }


def summary(runs: list[dict[str, Any]], figure: str) -> dict[str, float] | None:
    """Return the mean and interval of a figure over the orders, or None where it is not measured."""
    values = [run[figure] for run in runs]
    return None if None in values else summarise(values)


def difference(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> dict[str, float]:
    """Return how much more whole accuracy one learner has than another, paired by order."""
    return summarise([a["whole_accuracy"] - b["whole_accuracy"] for a, b in zip(one, other, strict=True)])


def stars(runs: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Compare each starred static method with its unstarred form and with sequential tuning."""
    return [
        {
            "learner": name,
            "over_unstarred": difference(runs[f"{name}*"], runs[name]),
            "over_sequential": difference(runs[f"{name}*"], runs["sequential"]),
        }
        for name in ("emr", "ea-emr", "crl")
    ]


def gaps(runs: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Return how far the best replay-free and the best replaying learner, both without warm-up, are from joint."""
    plain = {name: found for name, found in runs.items() if name != BOUND and "warm-up" not in name}
    best = {}
    for kind, names in (
        ("replay-free", [name for name in plain if name in REPLAY_FREE]),
        ("replay", [name for name in plain if name not in REPLAY_FREE]),
    ):
        first = max(names, key=lambda name: mean(run["whole_accuracy"] for run in plain[name]))
        best[kind] = {"learner": first, "shortfall": difference(runs[BOUND], runs[first])}
    return best


def warm(runs: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Compare learners with and without the warm-up on the first task."""
    names = [name for name in runs if f"{name} + warm-up" in runs]
    return [
        {
            "learner": name,
            "without": summary(runs[name], "whole_accuracy"),
            "with": summary(runs[f"{name} + warm-up"], "whole_accuracy"),
            "difference": difference(runs[f"{name} + warm-up"], runs[name]),
        }
        for name in names
    ]


def points(value: dict[str, float] | None) -> str:
    """Write a mean and interval of fractions in points."""
    if value is None:
        return "–"
    half = f" ± {100 * value['interval_95']:.1f}" if "interval_95" in value else ""
    return f"{100 * value['mean']:.1f}{half}"


def gap(value: dict[str, float]) -> str:
    """Write a difference with its sign."""
    half = f" ± {100 * value['interval_95']:.1f}" if "interval_95" in value else ""
    return f"{100 * value['mean']:+.1f}{half}"


def bounds(interval: list[float]) -> str:
    """Write an interval of fractions in points."""
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"


if __name__ == "__main__":
    sys.exit(main())
