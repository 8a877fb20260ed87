"""Run the pages for engineers, which are notebooks: Markdown with Python cells, each followed by what it prints.

python scripts/notebooks.py                     # run all pages and write what their cells print
python scripts/notebooks.py --check             # fail if a cell prints something else than its page says
python scripts/notebooks.py --ipynb FOLDER      # write the pages as Jupyter notebooks
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "docs" / "learn"
LANGUAGES = ("en", "ja")
CELL = re.compile(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```\n)?", re.DOTALL)


def notebooks(language: str) -> list[Path]:
    """Return the pages of a language that have cells."""
    pages = sorted((FOLDER / language / "engineers").glob("*.md"))
    return [page for page in pages if CELL.search(page.read_text(encoding="utf-8"))]


def cells(page: Path) -> list[str]:
    """Return the cells of a page with what they print."""
    return [cell[0] for cell in CELL.finditer(page.read_text(encoding="utf-8"))]


def executed(page: Path) -> str:
    """Run the cells of a page in one namespace, and return the page with what they print."""
    names: dict[str, Any] = {"__name__": "__main__"}

    def run(cell: re.Match[str]) -> str:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(cell[1], str(page), "exec"), names)  # noqa: S102 - a page of this repository
        shown = printed.getvalue()
        return f"```python\n{cell[1]}```\n" + (f"\n```text\n{shown}```\n" if shown else "")

    return CELL.sub(run, page.read_text(encoding="utf-8"))


def notebook(page: Path) -> dict[str, Any]:
    """Return a page as a Jupyter notebook (nbformat 4.5), with the outputs that the page has."""
    written = []
    for number, (kind, source, printed) in enumerate(_parts(page.read_text(encoding="utf-8"))):
        cell: dict[str, Any] = {"cell_type": kind, "id": f"cell-{number}", "metadata": {}, "source": source}
        if kind == "code":
            outputs = [{"output_type": "stream", "name": "stdout", "text": printed}] if printed else []
            cell |= {"execution_count": None, "outputs": outputs}
        written.append(cell)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": kernel}, "cells": written}


def _parts(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield the kind, the source and the output of each cell."""
    end = 0
    for cell in CELL.finditer(text):
        if prose := text[end : cell.start()].strip():
            yield "markdown", prose, ""
        yield "code", cell[1].rstrip(), cell[2] or ""
        end = cell.end()
    if prose := text[end:].strip():
        yield "markdown", prose, ""


def main() -> int:
    """Run the pages, check them, or write them as notebooks."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--ipynb", type=Path, metavar="FOLDER")
    given = parser.parse_args()
    stale = 0
    for page in [page for language in LANGUAGES for page in notebooks(language)]:
        if given.ipynb:
            path = given.ipynb / page.parents[1].name / f"{page.stem}.ipynb"
            path.parent.mkdir(parents=True, exist_ok=True)
            written = json.dumps(notebook(page), ensure_ascii=False, indent=1)
            path.write_text(f"{written}\n", encoding="utf-8")
        elif (after := executed(page)) != page.read_text(encoding="utf-8"):
            stale += 1
            if given.check:
                sys.stderr.write(f"{page} prints something else: run python scripts/notebooks.py\n")
            else:
                page.write_text(after, encoding="utf-8")
    return int(given.check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
