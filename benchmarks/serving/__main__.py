"""Measure all or some parts, and write benchmarks/results/serving.json.

python -m benchmarks.serving [--only PART ...] [--backbones NAME ...] [--quick] [--work FOLDER] [--out FILE]

The first run learns a workspace for each backbone (some minutes) and keeps them in FOLDER. Without --only, the memory
over 200,000 requests is not watched: it takes longest, and does not depend on the speed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.serving.parts import PARTS, QUICK, Bench, Sizes, backbones, load
from conpet.bench.provenance import provenance

ROOT = Path(__file__).parents[2]
RESULT = ROOT / "benchmarks" / "results" / "serving.json"


def main() -> int:
    """Run the command line."""
    usual = [name for name in PARTS if name != "memory"]
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--backbones", nargs="+", metavar="NAME", help="instead of those of each part")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to check that everything works")
    parser.add_argument("--work", type=Path, default=ROOT / ".cache" / "serving", help="folder for workspaces")
    parser.add_argument("--out", type=Path, help=f"the result file; {RESULT.name} unless --quick")
    given = parser.parse_args()
    sizes = QUICK if given.quick else Sizes()
    if given.backbones:
        sizes = replace(sizes, backbones=tuple(given.backbones), memory_backbone=given.backbones[0])
    names = given.only or (list(PARTS) if given.quick else usual)
    run(given.work.resolve(), sizes, names, given.out or (None if given.quick else RESULT))
    return 0


def run(work: Path, sizes: Sizes, names: Sequence[str], out: Path | None) -> dict[str, Any]:
    """Measure parts, and return what the file has; each part is stored as soon as it is done, beside the others."""
    result: dict[str, Any] = json.loads(out.read_text(encoding="utf-8")) if out and out.exists() else {"parts": {}}
    with Bench(work, sizes) as bench:
        for name in names:
            made_by, before, started = provenance(), load(), time.perf_counter()
            found = {backbone: PARTS[name](bench, backbone) for backbone in backbones(name, sizes)}
            part = {
                "backbones": found,
                "made_by": made_by,
                "load": [before, load()],
                "took": round(time.perf_counter() - started, 1),
            }
            parts = {**result["parts"], name: part}
            result["parts"] = {key: parts[key] for key in PARTS if key in parts}
            print(f"{name}: {part['took']} s, load {part['load']}", flush=True)
            if out:
                out.parent.mkdir(parents=True, exist_ok=True)
                out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


if __name__ == "__main__":
    sys.exit(main())
