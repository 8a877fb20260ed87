"""Make docs/benchmarks/accuracy.md, its plots and README's table from the result files of the experiments.

python benchmarks/page.py [--check]     # --check: fail if a page is out of date
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from markdown_page import template
from study import HERE, TITLES, Study, some_of

from conpet.bench.plots import draw, save

DOCS = HERE.parent / "docs"
PAGE = DOCS / "benchmarks" / "accuracy.md"
README = HERE.parent / "README.md"
BEGIN, END = "<!-- Made by benchmarks/page.py. -->\n", "<!-- End of what is made. -->\n"
SHOWN = {
    "accuracy": "whole accuracy after each task",
    "cost": "whole accuracy against cost",
    "growth": "cost as the stream grows",
}
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
    texts = {PAGE: page.rendered(), README: with_table(README.read_text(encoding="utf-8"), page.studies["main"])}
    if parser.parse_args().check:
        stale = [path for path, text in texts.items() if path.read_text(encoding="utf-8") != text]
        stale += [path for path, _ in page.figures if not path.exists()]
        for path in stale:
            print(f"{path} is stale: run python benchmarks/page.py", file=sys.stderr)
        return int(bool(stale))
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")
    for path, figure in page.figures:
        save(figure, path)
    print(*texts, sep="\n")
    return 0


def with_table(readme: str, main: Study) -> str:
    """Return README with its table of the main results."""
    closed = ("ncm", "lda", "ridge", "ranpac", "klda")
    replaying = ("emr", "emr*", "ea-emr", "ea-emr*", "crl", "crl*")
    rows: list[tuple[str, Callable[[str], str]]] = [
        ("`dynamic`", lambda _: "dynamic"),
        ("the best closed form", lambda data: main.best(data, *closed)),
        ("the best of EMR, EA-EMR and CRL", lambda data: main.best(data, *replaying)),
        ("Dynamic ConPET as published", lambda _: "dynamic (paper)"),
        ("`sequential`: nothing kept", lambda _: "sequential"),
        ("`joint`: all data at once", lambda _: "joint"),
    ]
    names = " | ".join(TITLES[data] for data in main.data)
    lines = [f"| % of all test examples right | {names} |", f"|---|{'---|' * len(main.data)}"]
    for title, learner in rows:
        cells = [main.value(data, learner(data)) for data in main.data]
        lines.append(f"| {' | '.join([title, *cells])} |")
    before, _, rest = readme.partition(BEGIN)
    return before + BEGIN + "\n".join(lines) + "\n" + END + rest.partition(END)[2]


class Page:
    """The page and its figures."""

    def __init__(self) -> None:
        self.studies = {name: Study(name) for name in STUDIES}
        self.figures: list[tuple[Path, Any]] = []

    def rendered(self) -> str:
        """Return the page for the present result files."""
        studies = {name.replace("-", "_"): study for name, study in self.studies.items()}
        return template("accuracy.md.j2").render(titles=TITLES, figure=self.figure, commits=self.commits, **studies)

    def figure(self, name: str, data: str, kind: str, *, only: tuple[str, ...] = (), **options: Any) -> str:
        """Draw a figure of all or some learners and return its Markdown."""
        path = PAGE.parent / "figures" / f"{name}-{data}-{kind}.svg"
        self.figures.append((path, draw(kind, some_of(self.studies[name].joined[data], only), **options)))
        return f"![{TITLES[data]}: {SHOWN[kind]}]({path.relative_to(PAGE.parent).as_posix()})"

    def commits(self) -> str:
        """Return the number of runs by commit."""
        commits = sum((study.commits() for study in self.studies.values()), Counter[str]())
        return ", ".join(f"{commit} ({count})" for commit, count in commits.most_common())


if __name__ == "__main__":
    sys.exit(main())
