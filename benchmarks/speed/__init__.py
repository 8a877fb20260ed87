"""What learning and answering cost, against plain Transformers and PEFT with the same weights and data.

python -m benchmarks.speed [--only ROW ...] [--quick]     # or: make bench

Every row of docs/benchmarks/performance.md is a subclass of `Row` (rows.py lists them): it runs conpet and its rival in
turns in one process, checks that both computed the same, and tells the ratio of every pair.
"""

import os

# Torch's profiler would say on the screen whenever it starts and stops. It reads this once, when torch is loaded.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")
