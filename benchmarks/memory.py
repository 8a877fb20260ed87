"""Measure resident memory against the number of distinct texts predicted, and what deterministic scores cost.

See docs/explanation/batches.md.

python benchmarks/memory.py [--texts 30000]

`minilm-l6`, a workspace of five tasks of the demo's stream. The texts are one to eight of its utterances joined, each
with a number, so all are different and their lengths are spread. Each measurement is a new process: conpet, and plain
Transformers on the same batches of the same shapes, in bfloat16 and float32.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.provenance import provenance, write_result
from conpet import ConPET, Example, Task
from conpet.backbone.load import load_backbone
from conpet.backbone.states import ON_CPU, pad_ids
from conpet.demo.stream import demo_stream

BACKBONE = "minilm-l6"
TASKS, TRAINED = 5, 10
CHUNK = 256
FIRST = 2048
"""Number of texts after which memory should be flat."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--texts", type=int, default=30_000, help=f"number of texts, at least {4 * FIRST}")
    parser.add_argument("--child", nargs=3, metavar=("SIDE", "DTYPE", "WORKSPACE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.texts < 4 * FIRST:
        parser.error(f"--texts {arguments.texts}: give at least {4 * FIRST}")
    if arguments.child:
        side, dtype, workspace = arguments.child
        print(json.dumps(SIDES[side](dtype, workspace, arguments.texts)))
        return
    made_by = provenance()
    runs: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for dtype in ("bfloat16", "float32"):
            workspace = Path(folder) / dtype
            learned(workspace, dtype)
            runs[dtype] = {side: child(side, dtype, workspace, arguments.texts) for side in SIDES}
    print(write_result("memory", {"backbone": BACKBONE, "texts": arguments.texts, **runs}, made_by))


def child(side: str, dtype: str, workspace: Path, texts: int) -> dict[str, Any]:
    """Run one measurement in a new process."""
    command = [sys.executable, __file__, "--texts", str(texts), "--child", side, dtype, str(workspace)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(side, dtype, result, flush=True)
    return result


def learned(path: Path, dtype: str) -> None:
    """Make the workspace."""
    learner = ConPET.create(path, backbone={"name": BACKBONE, "dtype": dtype, "device": "cpu"})
    tasks = []
    for task in demo_stream()[:TASKS]:
        train = [row for label in task.labels for row in [one for one in task.train if one.label == label][:TRAINED]]
        tasks.append(Task(task.name, tuple(train), task.validation[:50], task.test[:50]))
    learner.learn_batch(tasks, evaluate=False)


def texts(count: int) -> Iterator[str]:
    """Yield different texts of natural lengths."""
    draw, utterances = random.Random(0), [example.text for task in demo_stream() for example in task.test]
    for number in range(count):
        joined = min(8, 1 + int(draw.expovariate(0.8)))
        yield " ".join([*draw.sample(utterances, joined), str(number)])


def resident_mb() -> float:
    """Return the resident memory of this process in MB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return round(pages * 4096 / 1e6, 1)


def watched(read: Callable[[Sequence[str]], Any], count: int) -> dict[str, Any]:
    """Return the resident memory before the first text, and by number of texts after it."""
    read(["a first text, which loads what is loaded once"])
    held, started, done, remaining = {"0": resident_mb()}, time.perf_counter(), 0, texts(count)
    marks = {FIRST // 4 << power for power in range(30)}
    while chunk := list(islice(remaining, CHUNK)):
        read(chunk)
        done += len(chunk)
        if done in marks or len(chunk) < CHUNK or done == count:
            held[str(done)] = resident_mb()
    return {"resident_mb": held, "seconds": round(time.perf_counter() - started, 1)}


def conpet_side(dtype: str, workspace: str, count: int) -> dict[str, Any]:
    """Predict texts with conpet."""
    opened = ConPET.open(workspace, device="cpu")
    result = watched(lambda chunk: opened.predict(chunk, top_n=3), count)
    return {**result, "deterministic": deterministic(workspace)}


def plain_side(dtype: str, workspace: str, count: int) -> dict[str, Any]:
    """Run the model of Transformers on the same batches."""
    loaded = load_backbone(BACKBONE, dtype=dtype, device="cpu")

    def read(chunk: Sequence[str]) -> None:
        encoded = loaded.encoder.encode([Example.of_text(text) for text in chunk], None, 128)
        for rows in ON_CPU.batches([len(one.ids) for one in encoded]):
            batch = [encoded[row] for row in rows]
            ids, mask = pad_ids(batch, loaded.encoder.pad, ON_CPU.shape([len(one.ids) for one in batch]))
            with torch.inference_mode():
                loaded.model(input_ids=ids, attention_mask=mask)

    return watched(read, count)


def deterministic(workspace: str, pairs: int = 9) -> dict[str, Any]:
    """Return the time of deterministic scores relative to others, and how far scores depend on the batch without."""
    sides = [ConPET.open(workspace, device="cpu", deterministic=chosen) for chosen in (True, False)]
    drawn = texts(1_000_000)
    ratios: dict[int, list[float]] = {}
    for size in (1, CHUNK):
        ratios[size] = []
        for _ in range(pairs * (5 if size == 1 else 1)):
            asked, seconds = list(islice(drawn, size)), []
            for side in sides:
                started = time.perf_counter()
                side.predict(asked)
                seconds.append(time.perf_counter() - started)
            ratios[size].append(seconds[0] / seconds[1])
    asked = list(islice(drawn, CHUNK))
    apart = []
    for chosen in (True, False):
        # New objects, because logits are cached.
        alone, together = (ConPET.open(workspace, device="cpu", deterministic=chosen) for _ in range(2))
        single = [alone.predict([text])[0].score for text in asked]
        apart.append(max(abs(one - two.score) for one, two in zip(single, together.predict(asked), strict=True)))
    return {
        "ratio_one_text": round(median(ratios[1][5:]), 3),
        "ratio_256_texts": round(median(ratios[CHUNK][1:]), 3),
        "largest_difference": apart[0],
        "largest_difference_without": apart[1],
    }


SIDES: dict[str, Callable[[str, str, int], dict[str, Any]]] = {"conpet": conpet_side, "plain": plain_side}

if __name__ == "__main__":
    main()
