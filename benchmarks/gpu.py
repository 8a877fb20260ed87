"""Check that the GPU of a machine with CUDA agrees with its CPU, and time the rows of docs/benchmarks/performance.md.

python benchmarks/gpu.py [--only ROW ...] [--quick] [--work FOLDER]

Also times the ways to multiply mixed batches, and training with activations kept on the GPU and offloaded. Writes
benchmarks/results/speed-gpu.json, the source of the GPU column in docs/benchmarks/performance.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from benchmarks.speed.bench import BATCH, QUICK, Bench, Sizes, own_home  # noqa: E402 - the path is set above
from benchmarks.speed.choices import offloading, product_ways  # noqa: E402
from benchmarks.speed.learning import COMPARED_STEPS, TaskData  # noqa: E402
from benchmarks.speed.predicting import examples, of_length, random_module, stored_module  # noqa: E402
from benchmarks.speed.rows import ROWS  # noqa: E402
from benchmarks.speed.suite import run  # noqa: E402
from benchmarks.speed.timing import UnequalError, check_close  # noqa: E402
from conpet import ConPET  # noqa: E402
from conpet.backbone.states import States  # noqa: E402
from conpet.config import Settings  # noqa: E402
from conpet.heads.labels import linear_head  # noqa: E402
from conpet.modules.pool import ModulePool  # noqa: E402
from conpet.modules.training import train_module  # noqa: E402

RESULT = HERE / "results" / "speed-gpu.json"
ON_CPU = ("open", "stream")
"""Rows about the memory of a process, measured only on the CPU."""
TOLERANCE = 2e-2
"""Both use float32, but with other kernels, another order of sums, and TF32 if enabled in torch."""


def main() -> int:
    """Run the command line."""
    names = [name for name in ROWS if name not in ON_CPU]
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="ROW", help=", ".join(names))
    parser.add_argument("--quick", action="store_true", help="tiny sizes; writes nothing")
    parser.add_argument("--work", type=Path, default=HERE.parent / ".cache" / "speed", help="folder for workspaces")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print(
            f"torch {torch.__version__} sees no CUDA device here, so there is nothing to check or time. "
            "Run this on a machine with an NVIDIA GPU and a build of torch for it; `make bench` measures the CPU.",
            file=sys.stderr,
        )
        return 2
    sizes = QUICK if arguments.quick else Sizes()
    work = (arguments.work / ("gpu-quick" if arguments.quick else "gpu")).resolve()
    own_home(work, [sizes.large, sizes.small])
    try:
        for line in compared(work, sizes, "cpu", "cuda"):
            print("equal:", line, flush=True)
        bench = Bench(work, sizes, device="cuda")
        choices = {"products": product_ways("cuda"), "offloading": offloading(bench)}
    except UnequalError as error:
        print(f"results that should be equal differ: {error}", file=sys.stderr)
        return 1
    for line in choice_lines(choices):
        print(line, flush=True)
    return run(bench, arguments.only, None if arguments.quick else RESULT, choices=choices)


def compared(work: Path, sizes: Sizes, first: str, second: str) -> Iterator[str]:
    """Compare two devices in float32: a few steps of learning, a mixed batch, predictions.

    Yields:
        What is equal, with the largest difference.

    Raises:
        UnequalError: A result differs.
    """
    benches = [Bench(work, sizes, device=device, dtype="float32") for device in (first, second)]
    losses, logits = zip(*((losses_of(bench), mixed_logits(bench)) for bench in benches), strict=True)
    yield check_close(f"losses of {COMPARED_STEPS} steps", *losses, TOLERANCE)
    yield check_close(f"logits of {sizes.modules} modules", *logits, TOLERANCE)
    path = benches[0].scratch("compared")
    learner = benches[0].create(path, sizes.large, training={"epochs": 2})
    for task in benches[0].tasks[:2]:
        learner.learn(task, evaluate=False)
    yield check_close("scores of predictions", *(scores_of(bench, path) for bench in benches), TOLERANCE)


def choice_lines(choices: Mapping[str, Any]) -> Iterator[str]:
    """Yield lines that print the measurements of `benchmarks.speed.choices`."""
    for product in choices["products"]:
        mixture = ", ".join(f"{name} {value}" for name, value in product.items() if name != "ms")
        ways = ", ".join(
            f"{way} {'not available' if ms is None else f'{ms:.3f} ms'}" for way, ms in product["ms"].items()
        )
        yield f"products ({mixture}): {ways}"
    offloading_result = choices["offloading"]
    yield f"equal: {offloading_result['equal']}"
    for name in ("kept", "offloaded"):
        side = offloading_result[name]
        yield f"activations {name}: {side['seconds']:.2f} s, {(side['peak_bytes'] or 0) / 1e6:.0f} MB peak"


def losses_of(bench: Bench) -> torch.Tensor:
    """Return the losses of the first steps of learning a task."""
    backbone, task_data = bench.backbone(bench.sizes.large), TaskData.of(bench)
    settings = Settings.parse({"training": {"batch_size": BATCH, "max_steps": COMPARED_STEPS}}).for_task({})
    return torch.tensor(train_module(backbone, task_data.job(backbone, settings)).log.losses)


def mixed_logits(bench: Bench) -> torch.Tensor:
    """Return the logits of a batch in which every row has a different module."""
    backbone, rows = bench.backbone(bench.sizes.large, frozen_layers=0), bench.sizes.modules
    width = backbone.representation_size
    head = linear_head(torch.linspace(-1, 1, 4 * width).view(4, width), torch.zeros(4))
    stored = [stored_module(random_module(backbone, seed), head) for seed in range(rows)]
    states = States(tuple(of_length(backbone, bench, 0)), None, torch.zeros(rows, backbone.feature_size))
    outputs = ModulePool(backbone, capacity=rows).outputs(states, [[key] for key in stored])
    return torch.stack([answer[key] for answer, key in zip(outputs, stored, strict=True)])


def scores_of(bench: Bench, path: Path) -> torch.Tensor:
    """Return the scores of all labels of two tasks for some inputs, one column per label."""
    workspace = ConPET.open(path, device=bench.device)
    labels = {label: column for column, label in enumerate(workspace.labels)}
    answers = workspace.predict(examples(bench.texts(0)), top_n=len(labels))
    scores = torch.zeros(len(answers), len(labels))
    for row, answer in enumerate(answers):
        scores[row, labels[answer.label]] = answer.score
        for candidate in answer.runners_up:
            scores[row, labels[candidate.label]] = candidate.score
    return scores


if __name__ == "__main__":
    sys.exit(main())
