"""Speed of learning and predicting, compared with plain Transformers and PEFT on the same weights and data.

python -m benchmarks.speed [--only ROW ...] [--quick]     # or: make bench

Every row of docs/benchmarks/performance.md is a subclass of `Row` (rows.py lists them): it runs conpet and its rival in
turns in one process, checks that both compute the same, and returns the ratio of every pair.
"""

import os

# Keeps torch's profiler from printing whenever it starts and stops. It is read once, when torch is imported.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")
