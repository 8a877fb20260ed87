"""Make docs/benchmarks.md and its plots from the result files of the experiments.

python benchmarks/page.py [--check]     # --check: fail if the page is not what the files give
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from markdown_page import template
from study import HERE, TITLES, Study

from conpet.bench.plots import draw, save

DOCS = HERE.parent / "docs"
PAGE = DOCS / "benchmarks.md"
STUDIES = (
    "choose",
    "choose-selector",
    "main",
    "pet-size",
    "pre-selection",
    "task-splits",
    "main-smollm2",
    "growth",
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true")
    page = Page()
    text = page.rendered()
    if parser.parse_args().check:
        stale = PAGE.read_text(encoding="utf-8") != text or not all(path.exists() for path, _ in page.figures)
        if stale:
            print(f"{PAGE} is stale: run python benchmarks/page.py", file=sys.stderr)
        return int(stale)
    PAGE.write_text(text, encoding="utf-8")
    for path, figure in page.figures:
        save(figure, path)
    print(PAGE)
    return 0


class Page:
    """The page, and the drawings it shows."""

    def __init__(self) -> None:
        self.studies = {name: Study(name) for name in STUDIES}
        self.figures: list[tuple[Path, Any]] = []

    def rendered(self) -> str:
        """Return the page as the result files have it."""
        studies = {name.replace("-", "_"): study for name, study in self.studies.items()}
        return template("page.md.j2").render(titles=TITLES, figure=self.figure, commits=self.commits, **studies)

    def figure(self, name: str, data: str, kind: str, **options: Any) -> str:
        """Return the Markdown of a drawing."""
        path = DOCS / "benchmarks" / f"{name}-{data}-{kind}.svg"
        self.figures.append((path, draw(kind, self.studies[name].groups[data], **options)))
        what = {"accuracy": "whole accuracy after each task", "cost": "whole accuracy against cost"}.get(kind, kind)
        return f"![{TITLES[data]}: {what}]({path.relative_to(DOCS).as_posix()})"

    def commits(self) -> str:
        """Return how many runs each commit made."""
        found = Counter(one.made_by["commit"][:10] for study in self.studies.values() for one in study.results)
        return ", ".join(f"{commit} ({count})" for commit, count in found.most_common())


if __name__ == "__main__":
    sys.exit(main())
