"""Make docs/benchmarks/methods.md from the results of `learners.yaml`, `main.yaml`, `depth.yaml`, `choose_features.py`.

python benchmarks/methods_page.py [--check]     # --check: fail if the page is out of date
"""

from __future__ import annotations

import argparse
import json
import sys

from markdown_page import template
from provenance import RESULTS
from stated import NAMES
from study import HERE, Study

PAGE = HERE.parent / "docs" / "benchmarks" / "methods.md"
MAIN_LEARNERS = ("sequential", "joint", "emr", "emr*", "dynamic", "lda", "klda")
"""Learners of the main table to show for comparison."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true")
    page = rendered()
    if parser.parse_args().check:
        if PAGE.read_text(encoding="utf-8") != page:
            print(f"{PAGE} is stale: run python benchmarks/methods_page.py", file=sys.stderr)
            return 1
        return 0
    PAGE.write_text(page, encoding="utf-8")
    print(PAGE)
    return 0


def rendered() -> str:
    """Return the page for the present result files."""
    extra = Study("learners", "main")
    return template("methods.md.j2").render(
        titles=NAMES,
        extra=extra,
        shown=(*MAIN_LEARNERS, *extra.experiment.learners),
        depth=Study("depth"),
        features=features(),
    )


def features() -> str:
    """Return the table of the depths at which frozen features were read, by backbone and data set."""
    found = json.loads((RESULTS / "features.json").read_text(encoding="utf-8"))["accuracies"]
    rules = [rule for rule in next(iter(next(iter(found.values())).values())) if rule != "examples"]
    lines = [f"| backbone | data | examples | {' | '.join(rules)} |", f"|---|---|--:|{'--:|' * len(rules)}"]
    for backbone, data_sets in found.items():
        for data, row in data_sets.items():
            cells = [f"{100 * row[rule]['together']:.1f}" for rule in rules]
            lines.append(f"| `{backbone}` | {NAMES[data]} | {row['examples']:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
