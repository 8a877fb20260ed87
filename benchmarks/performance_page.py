"""Make docs/benchmarks/performance.md and its plots from benchmarks/results/speed.json (see benchmarks/speed).

python benchmarks/performance_page.py [--check]     # --check: fail if the page is out of date

Without a result file, there must be no page.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from benchmarks.markdown_page import template  # noqa: E402 - the folder above is put on the path first
from benchmarks.speed.drawing import draw, drawable, shares  # noqa: E402
from benchmarks.speed.rows import GOALS, MEASURED_BY  # noqa: E402
from benchmarks.speed.timing import MISSED, REACHED, UNCLEAR, verdict  # noqa: E402
from conpet.bench.plots import save  # noqa: E402

DOCS = HERE.parent / "docs"
PAGE = DOCS / "benchmarks" / "performance.md"
RESULT = HERE / "results" / "speed.json"
GPU = HERE / "results" / "speed-gpu.json"
REASONS = HERE / "speed" / "reasons.yaml"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true")
    checking = parser.parse_args().check
    if not RESULT.exists():
        if PAGE.exists() or not checking:
            print(f"no {RESULT}: run make bench first", file=sys.stderr)
            return 1
        return 0
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    gpu = json.loads(GPU.read_text(encoding="utf-8")) if GPU.exists() else {"rows": {}}
    page, plots = rendered(result, gpu), {kind: PAGE.parent / "figures" / f"{kind}.svg" for kind in drawable(result)}
    if checking:
        stale = not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page
        if stale or not all(path.exists() for path in plots.values()):
            print(f"{PAGE} is stale: run python benchmarks/performance_page.py", file=sys.stderr)
            return 1
        return 0
    PAGE.write_text(page, encoding="utf-8")
    for kind, path in plots.items():
        save(draw(kind, result), path)
    print(PAGE)
    return 0


def rendered(result: Mapping[str, Any], gpu: Mapping[str, Any] | None = None) -> str:
    """Return the page for a result file and an optional GPU result."""
    rows = [
        {**row, "key": key, "work": GOALS[key].work, "rival": GOALS[key].rival, "verdict": verdict(row)}
        for key, row in result["rows"].items()
    ]
    return template("performance.md.j2", wanted=wanted, ratio=ratio, value=value, percent=percent).render(
        rows=rows,
        counts={outcome: sum(row["verdict"] == outcome for row in rows) for outcome in (REACHED, MISSED, UNCLEAR)},
        gpu=gpu["rows"] if gpu else {},
        choices=gpu.get("choices") if gpu else None,
        machine=result["machine"],
        minutes=sum({MEASURED_BY[key]: row["took"] for key, row in result["rows"].items()}.values()) / 60,
        reasons=yaml.safe_load(REASONS.read_text(encoding="utf-8")),
        figures=drawable(result),
        shares=list(shares(result)),
    )


def wanted(row: Mapping[str, Any]) -> str:
    """Format the bound of a row."""
    number = f"{row['wanted']:g}"
    return {
        "at least": f"≥ {number}× as fast",
        "at most": f"≤ {number}×",
        "within": f"within {number} points",
    }[row["bound"]]


def ratio(row: Mapping[str, Any]) -> str:
    """Format the measured ratio, with quartiles if there are several pairs."""
    measured = row["ratio"]
    if row["bound"] == "within":
        return f"{abs(measured['median']):.2f} points {'lower' if measured['median'] > 0 else 'higher'}"
    if len(measured["values"]) == 1:
        return f"{measured['median']:.2f}"
    return f"{measured['median']:.2f} ({measured['low']:.2f} to {measured['high']:.2f})"


def value(measured: Mapping[str, Any], unit: str) -> str:
    """Format a median with its unit."""
    middle = measured["median"]
    return f"{1e3 * middle:.3g} ms" if unit == "s" and middle < 1 else f"{middle:.4g} {unit}"


def percent(shares: Sequence[float]) -> str:
    """Format fractions as a list of percentages."""
    return ", ".join(f"{100 * share:.1f}%" for share in shares)


if __name__ == "__main__":
    sys.exit(main())
