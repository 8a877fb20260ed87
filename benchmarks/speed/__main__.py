"""Measure all or some rows, and write benchmarks/results/speed.json.

python -m benchmarks.speed [--only ROW ...] [--quick] [--work FOLDER] [--out FILE]

The first run fills workspaces of up to 1,000 tasks and keeps them in FOLDER.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

from benchmarks.speed.bench import QUICK, Bench, Sizes, own_home
from benchmarks.speed.rows import GOALS, ROWS, rows_named
from benchmarks.speed.suite import run

ROOT = Path(__file__).parents[2]
RESULT = ROOT / "benchmarks" / "results" / "speed.json"


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    names = list(dict.fromkeys([*ROWS, *GOALS]))
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="ROW", help=", ".join(names))
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to check that everything works")
    parser.add_argument("--work", type=Path, default=ROOT / ".cache" / "speed", help="folder for workspaces")
    parser.add_argument("--out", type=Path, help=f"the result file; {RESULT.name} unless --quick")
    parser.add_argument("--dtype", default="auto", help="number format of both sides")
    parser.add_argument("--device", default="cpu", help="torch device of both sides")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")  # PEFT uses deprecated functions
    sizes = QUICK if arguments.quick else Sizes()
    work = (arguments.work / ("quick" if arguments.quick else "full")).resolve()
    own_home(work, [sizes.large, sizes.small])
    bench = Bench(work, sizes, device=arguments.device, dtype=arguments.dtype)
    return run(bench, rows_named(arguments.only), arguments.out or (None if arguments.quick else RESULT))


if __name__ == "__main__":
    sys.exit(main())
