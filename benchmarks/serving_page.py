"""Make docs/serving.md from benchmarks/results/serving.json (see benchmarks/serving) and the proofs beside it.

python benchmarks/serving_page.py [--check]     # --check: fail if the page is out of date

A part that was not measured has no section, and so has a proof without a result file.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from benchmarks.markdown_page import template  # noqa: E402 - the folder above is put on the path first
from benchmarks.speed.timing import Goal  # noqa: E402

PAGE = HERE.parent / "docs" / "serving.md"
RESULTS = HERE / "results"
LOAD = RESULTS / "serving.json"
PROOFS = {"swaps": "Swaps", "faults": "Faults", "fuzz": "Fuzz"}
"""Result files `serving-NAME.json`, and the titles of their sections."""
SYSTEMS = {
    "conpet": "`conpet serve`",
    "plain": "Transformers, a pass for a request",
    "loop": "Transformers, a pass for a text",
    "peft": "PEFT, `set_adapter`",
}
BUSY = 2.5
"""A load average from which on other work ran: the part before, which counts for minutes, leaves up to two."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true")
    proofs = {name: _read(RESULTS / f"serving-{name}.json") for name in PROOFS}
    page = rendered(_read(LOAD) or {"parts": {}}, {name: proof for name, proof in proofs.items() if proof})
    if parser.parse_args().check:
        if not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page:
            print(f"{PAGE} is stale: run python benchmarks/serving_page.py", file=sys.stderr)
            return 1
        return 0
    PAGE.write_text(page, encoding="utf-8")
    print(PAGE)
    return 0


def rendered(load: Mapping[str, Any], proofs: Mapping[str, Any]) -> str:
    """Return the page for the result of the load measurements and those of the proofs, by name."""
    filters = {"at_least": at_least, "at_most": at_most, "ms": milliseconds, "value": value, "number": number}
    return template("serving.md.j2", **filters).render(
        parts=load["parts"],
        loads=sorted(part["load"][0] for part in load["parts"].values()),
        busy={name: part["load"][0] for name, part in load["parts"].items() if part["load"][0] >= BUSY},
        minutes=sum(part["took"] for name, part in load["parts"].items() if name != "memory") / 60,
        proofs={name: proofs[name] for name in PROOFS if name in proofs},
        titles=PROOFS,
        systems=SYSTEMS,
    )


def at_least(measured: Mapping[str, float], wanted: float) -> str:
    """Return whether ratios are high enough: "reached", "not reached", or "unclear" if only some are."""
    return _shown(Goal("", "", "at least", wanted).verdict(measured["low"], measured["high"]))


def at_most(measured: Mapping[str, float], wanted: float) -> str:
    """Return whether values are low enough, in the same words."""
    return _shown(Goal("", "", "at most", wanted).verdict(measured["low"], measured["high"]))


def _shown(verdict: str) -> str:
    return verdict if verdict == "reached" else f"**{verdict}**"


def milliseconds(time: float | None) -> str:
    """Format a time."""
    return "–" if time is None else f"{time:,.0f} ms" if time >= 100 else f"{time:.1f} ms"


def value(row: Mapping[str, Any]) -> str:
    """Format the value of a row of a proof, with its unit."""
    shown = f"{row['value']:,}" if isinstance(row["value"], int) else str(row["value"])
    return f"{shown} {row['unit']}".strip()


def number(measured: float) -> str:
    """Format a number of things a second."""
    return f"{measured:,.0f}" if measured >= 100 else f"{measured:.1f}"


def _read(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


if __name__ == "__main__":
    sys.exit(main())
