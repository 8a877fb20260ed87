"""The folder of result files, and their provenance."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from conpet.bench.provenance import provenance

__all__ = ["RESULTS", "measure_parts", "provenance", "write_result"]

RESULTS = Path(__file__).parent / "results"


def measure_parts(
    name: str, description: str, parts: Mapping[str, Callable[[Path], dict[str, Any]]], options: Mapping[str, Any]
) -> None:
    """Run a command line that measures all or some parts, and write `benchmarks/results/NAME.json` after each.

    Args:
        name: Name of the result.
        description: What is measured.
        parts: The parts by name; each gets the folder for features that are kept.
        options: What all parts have in common, for the result.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"parts to measure: {', '.join(parts)}; all if none")
    parser.add_argument("--kept", type=Path, default=Path("build/refusal"), help="folder for features")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.parts) - set(parts)):
        parser.error(f"no part {', '.join(unknown)}")
    made_by = provenance()
    path = RESULTS / f"{name}.json"
    result = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    result.pop("made_by", None)
    result |= {"options": dict(options)} if options else {}
    for part in arguments.parts or parts:
        result[part] = parts[part](arguments.kept)
        print(part, json.dumps(result[part], indent=1)[:4000], flush=True)
        write_result(name, result, made_by)


def write_result(name: str, result: dict[str, Any], made_by: dict[str, Any]) -> Path:
    """Write a result with its provenance to `benchmarks/results/NAME.json`."""
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"made_by": made_by, **result}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path
