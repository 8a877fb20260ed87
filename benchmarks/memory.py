"""Measure resident memory against the number of distinct texts predicted, and what deterministic scores cost.

See docs/explanation/batches.md.

python benchmarks/memory.py [--texts 32768] [--backbone minilm-l6] [--dtype bfloat16] [--seconds 900] [--deterministic]
python benchmarks/memory.py --texts 1000000 --backbone minilm-l6 --dtype bfloat16 --resume

A workspace of five tasks of the demo's stream. The texts are one to eight of its utterances joined, each with a number,
so all are different and their lengths are spread. Each measurement is a new process: conpet, and the same model in
plain Transformers on the same batches. Memory is noted at powers of two, and written to the result file as it is, so
that what a stopped command has measured is there. With --resume, finished sides are not measured again. The results of
other backbones and number formats stay in the result file.
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
ALLOWED = 1.1
"""Most memory, relative to plain Transformers, beside the workspace."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--texts", type=int, default=4 * FIRST, help=f"number of texts, at least {2 * FIRST}")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="most seconds for each side")
    parser.add_argument("--backbone", action="append", choices=BACKBONES, help="may be repeated")
    parser.add_argument("--dtype", action="append", choices=DTYPES, help="may be repeated")
    parser.add_argument("--deterministic", action="store_true", help="also measure what deterministic scores cost")
    parser.add_argument("--resume", action="store_true", help="keep sides already measured at this commit on --texts")
    parser.add_argument("--child", nargs=4, metavar=("SIDE", "BACKBONE", "DTYPE", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.texts < 2 * FIRST:
        parser.error(f"--texts {arguments.texts}: give at least {2 * FIRST}")
    if arguments.child:
        side, backbone, dtype, folder = arguments.child
        for found in SIDES[side](backbone, dtype, folder, arguments.texts, arguments.seconds):
            print(json.dumps(found), flush=True)
        return
    for backbone in arguments.backbone or MEASURED:
        for dtype in arguments.dtype or DTYPES:
            measure(backbone, dtype, arguments)


def stored_runs() -> dict[str, Any]:
    """Return the runs in the result file, by backbone and number format."""
    file = RESULTS / "memory.json"
    runs: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))["runs"] if file.exists() else {}
    return runs


def record(backbone: str, dtype: str, run: dict[str, Any]) -> None:
    """Put a measurement into the result file, in place of the former one."""
    runs = stored_runs()
    runs[backbone] = {**runs.get(backbone, {}), dtype: run}
    write_result("memory", {"runs": runs}, run["made_by"])


def measure(backbone: str, dtype: str, arguments: argparse.Namespace) -> None:
    """Measure all sides, each in a new process, and record what is found as it comes."""
    from conpet.backbone.load import find_folder

    made_by = provenance()
    former = stored_runs().get(backbone, {}).get(dtype, {})
    kept = former if arguments.resume and former["made_by"]["commit"] == made_by["commit"] else {}
    run: dict[str, Any] = {**kept, "made_by": made_by}
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder) / "workspace"
        list(child("learn", backbone, dtype, workspace, arguments))
        stored = [workspace / "workspace.sqlite", *(workspace / "objects").rglob("*")]
        run["workspace_mb"] = round(sum(path.stat().st_size for path in stored if path.is_file()) / 1e6, 1)
        places = {"conpet": workspace, "plain": find_folder(backbone)}
        if arguments.deterministic:
            places["deterministic"] = workspace
        for side, place in places.items():
            if run.get(side, {}).get("texts", 0) < arguments.texts:
                for found in child(side, backbone, dtype, place, arguments):
                    run[side] = found
                    record(backbone, dtype, run | compared(run))


def compared(run: dict[str, Any]) -> dict[str, Any]:
    """Compare both sides after the largest number of texts that both have done."""
    conpet, plain = (run.get(side, {}).get("resident_mb", {}) for side in ("conpet", "plain"))
    both = [texts for texts in conpet if texts in plain]
    if not both:
        return {}
    last, allowed = both[-1], ALLOWED * plain[both[-1]] + run["workspace_mb"]
    return {"compared": {"texts": int(last), "conpet_mb": conpet[last], "allowed_mb": round(allowed, 1)}}


def child(
    side: str, backbone: str, dtype: str, folder: Path, arguments: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """Run one side in a new process; yield what it has found so far."""
    limits = ["--texts", str(arguments.texts), "--seconds", str(arguments.seconds)]
    command = [sys.executable, __file__, *limits, "--child", side, backbone, dtype, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("{"):
                print(side, backbone, dtype, line.strip(), flush=True)
                yield json.loads(line)
    if process.returncode:
        raise SystemExit(f"{side} failed: exit status {process.returncode}")


def learn(backbone: str, dtype: str, folder: str, *_: float) -> Iterator[dict[str, Any]]:
    """Make the workspace."""
    from conpet import ConPET, Task
    from conpet.demo.stream import demo_stream

    learner = ConPET.create(folder, backbone={"name": backbone, "dtype": dtype, "device": "cpu"})
    tasks = []
    for task in demo_stream()[:TASKS]:
        train = [row for label in task.labels for row in [one for one in task.train if one.label == label][:TRAINED]]
        tasks.append(Task(task.name, tuple(train), task.validation[:50], task.test[:50]))
    learner.learn_batch(tasks, evaluate=False)
    yield {"labels": len(learner.labels)}


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


def watched(read: Callable[[Sequence[str]], Any], count: int, seconds: float) -> Iterator[dict[str, Any]]:
    """Yield the resident memory before the first text and by number of texts, at powers of two and at the end.

    Also yields the highest after any chunk of texts: between two marks, memory is released and taken again.
    """
    read(["a first text, which loads what is loaded once"])
    held, done, remaining, mark = {"0": resident_mb()}, 0, made_texts(count), FIRST
    highest = held["0"]
    started, end = time.process_time(), time.monotonic() + seconds
    while chunk := list(islice(remaining, CHUNK)):
        read(chunk)
        done += len(chunk)
        now, late = resident_mb(), time.monotonic() > end
        highest = max(highest, now)
        if done in (mark, count) or late:
            held[str(done)], mark = now, 2 * done
            used = round(time.process_time() - started, 1)
            yield {"texts": done, "resident_mb": held, "highest_mb": highest, "processor_seconds": used}
        if late:
            return


def conpet_side(backbone: str, dtype: str, workspace: str, count: int, seconds: float) -> Iterator[dict[str, Any]]:
    """Predict texts with conpet."""
    from conpet import ConPET

    opened = ConPET.open(workspace, device="cpu")
    yield from watched(lambda chunk: opened.predict(chunk, top_n=3), count, seconds)


def plain_side(backbone: str, dtype: str, folder: str, count: int, seconds: float) -> Iterator[dict[str, Any]]:
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

    yield from watched(read, count, seconds)


def deterministic_cost(backbone: str, dtype: str, workspace: str, *_: float) -> Iterator[dict[str, Any]]:
    """Yield the time of deterministic scores relative to others, and how far scores depend on the batch without."""
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
    yield {
        "ratio_one_text": round(median(ratios[1][5:]), 3),
        "ratio_256_texts": round(median(ratios[CHUNK][1:]), 3),
        "largest_difference": apart[0],
        "largest_difference_without": apart[1],
    }


SIDES: dict[str, Callable[[str, str, str, int, float], Iterator[dict[str, Any]]]] = {
    "learn": learn,
    "conpet": conpet_side,
    "plain": plain_side,
    "deterministic": deterministic_cost,
}

if __name__ == "__main__":
    main()
