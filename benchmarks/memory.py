"""Measure resident memory against the number of distinct texts predicted, and what deterministic scores cost.

See docs/explanation/batches.md.

python benchmarks/memory.py [--texts 32768] [--backbone minilm-l6] [--dtype bfloat16] [--deterministic]

A workspace of five tasks of the demo's stream. The texts are one to eight of its utterances joined, each with a number,
so all are different and their lengths are spread. Each measurement is a new process: conpet, and the same model in
plain Transformers on the same batches. The results of other backbones and number formats stay in the result file.
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

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.provenance import RESULTS, provenance, write_result

# What a process imports is part of its memory: each side imports only what it needs.

BACKBONES = {"minilm-l6": "masked", "smollm2-135m": "causal", "tiny-random": "causal"}
"""Backbones that can be measured, and how they read."""
MEASURED = ("minilm-l6", "smollm2-135m")
DTYPES = ("bfloat16", "float32")
TASKS, TRAINED = 5, 10
CHUNK = 256
FIRST = 2048
"""Number of texts after which memory should be flat."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--texts", type=int, default=4 * FIRST, help=f"number of texts, at least {2 * FIRST}")
    parser.add_argument("--backbone", action="append", choices=BACKBONES, help="may be repeated")
    parser.add_argument("--dtype", action="append", choices=DTYPES, help="may be repeated")
    parser.add_argument("--deterministic", action="store_true", help="also measure what deterministic scores cost")
    parser.add_argument("--child", nargs=4, metavar=("SIDE", "BACKBONE", "DTYPE", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.texts < 2 * FIRST:
        parser.error(f"--texts {arguments.texts}: give at least {2 * FIRST}")
    if arguments.child:
        side, backbone, dtype, folder = arguments.child
        print(json.dumps(SIDES[side](backbone, dtype, folder, arguments.texts)))
        return
    made_by = provenance()
    for backbone in arguments.backbone or MEASURED:
        for dtype in arguments.dtype or DTYPES:
            run = measured(backbone, dtype, arguments.texts, deterministic=arguments.deterministic)
            print(recorded(backbone, dtype, {"made_by": made_by, **run}))


def recorded(backbone: str, dtype: str, run: dict[str, Any]) -> Path:
    """Put a measurement into the result file, in place of the former one."""
    file = RESULTS / "memory.json"
    runs = json.loads(file.read_text(encoding="utf-8"))["runs"] if file.exists() else {}
    runs[backbone] = {**runs.get(backbone, {}), dtype: run}
    return write_result("memory", {"runs": runs}, run["made_by"])


def measured(backbone: str, dtype: str, texts: int, *, deterministic: bool) -> dict[str, Any]:
    """Measure both sides, each in a new process."""
    from conpet.backbone.load import find_folder

    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder) / "workspace"
        run_child("learn", backbone, dtype, workspace, texts)
        stored = [workspace / "workspace.sqlite", *(workspace / "objects").rglob("*")]
        run = {
            "texts": texts,
            "workspace_mb": round(sum(path.stat().st_size for path in stored if path.is_file()) / 1e6, 1),
            "conpet": run_child("conpet", backbone, dtype, workspace, texts),
            "plain": run_child("plain", backbone, dtype, find_folder(backbone), texts),
        }
        if deterministic:
            run["deterministic"] = run_child("deterministic", backbone, dtype, workspace, texts)
        return run


def run_child(side: str, backbone: str, dtype: str, folder: Path, texts: int) -> dict[str, Any]:
    """Run one side in a new process."""
    command = [sys.executable, __file__, "--texts", str(texts), "--child", side, backbone, dtype, str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(side, backbone, dtype, result, flush=True)
    return result


def learn(backbone: str, dtype: str, folder: str, texts: int) -> dict[str, Any]:
    """Make the workspace."""
    from conpet import ConPET, Task
    from conpet.demo.stream import demo_stream

    learner = ConPET.create(folder, backbone={"name": backbone, "dtype": dtype, "device": "cpu"})
    tasks = []
    for task in demo_stream()[:TASKS]:
        train = [row for label in task.labels for row in [one for one in task.train if one.label == label][:TRAINED]]
        tasks.append(Task(task.name, tuple(train), task.validation[:50], task.test[:50]))
    learner.learn_batch(tasks, evaluate=False)
    return {"labels": len(learner.labels)}


def made_texts(count: int) -> Iterator[str]:
    """Yield different texts of natural lengths."""
    from conpet.demo.stream import demo_stream

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
    held, started, done, remaining = {"0": resident_mb()}, time.process_time(), 0, made_texts(count)
    marks = {FIRST << 2 * power for power in range(10)}
    while chunk := list(islice(remaining, CHUNK)):
        read(chunk)
        done += len(chunk)
        if done in marks or done == count:
            held[str(done)] = resident_mb()
    return {"resident_mb": held, "processor_seconds": round(time.process_time() - started, 1)}


def conpet_side(backbone: str, dtype: str, workspace: str, count: int) -> dict[str, Any]:
    """Predict texts with conpet."""
    from conpet import ConPET

    opened = ConPET.open(workspace, device="cpu")
    return watched(lambda chunk: opened.predict(chunk, top_n=3), count)


def plain_side(backbone: str, dtype: str, folder: str, count: int) -> dict[str, Any]:
    """Run the model of Transformers on the same batches."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    from conpet.backbone.encode import Encoder
    from conpet.backbone.states import ON_CPU, pad_ids
    from conpet.data import Example, Style

    model = AutoModel.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    encoder = Encoder(AutoTokenizer.from_pretrained(folder), Style(BACKBONES[backbone]))

    def read(chunk: Sequence[str]) -> None:
        encoded = encoder.encode([Example.of_text(text) for text in chunk], None, 128)
        for rows in ON_CPU.batches([len(one.ids) for one in encoded]):
            batch = [encoded[row] for row in rows]
            ids, mask = pad_ids(batch, encoder.pad, ON_CPU.shape([len(one.ids) for one in batch]))
            with torch.inference_mode():
                model(input_ids=ids, attention_mask=mask)

    return watched(read, count)


def deterministic_cost(backbone: str, dtype: str, workspace: str, count: int) -> dict[str, Any]:
    """Return the time of deterministic scores relative to others, and how far scores depend on the batch without."""
    from conpet import ConPET

    pairs = 9
    sides = [ConPET.open(workspace, device="cpu", deterministic=chosen) for chosen in (True, False)]
    drawn = made_texts(1_000_000)
    ratios: dict[int, list[float]] = {}
    for size in (1, CHUNK):
        ratios[size] = []
        for _ in range(pairs * (5 if size == 1 else 1)):
            asked, seconds = list(islice(drawn, size)), []
            for side in sides:
                started = time.process_time()
                side.predict(asked)
                seconds.append(time.process_time() - started)
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


SIDES: dict[str, Callable[[str, str, str, int], dict[str, Any]]] = {
    "learn": learn,
    "conpet": conpet_side,
    "plain": plain_side,
    "deterministic": deterministic_cost,
}

if __name__ == "__main__":
    main()
