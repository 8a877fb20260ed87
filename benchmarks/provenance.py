"""The folder of result files, and their provenance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from conpet.bench.provenance import provenance

__all__ = ["RESULTS", "provenance", "write_result"]

RESULTS = Path(__file__).parent / "results"


def write_result(name: str, result: dict[str, Any], made_by: dict[str, Any]) -> Path:
    """Write a result with its provenance to `benchmarks/results/NAME.json`."""
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"made_by": made_by, **result}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path
