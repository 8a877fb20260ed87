"""Shared parts of all rows: sizes, texts, backbones, and stored workspaces that take minutes to fill."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from conpet import ConPET
from conpet.backbone.backbone import Backbone
from conpet.backbone.load import find_folder, load_backbone
from conpet.backbone.tiny import TINY_RANDOM
from conpet.bench.provenance import provenance
from conpet.config.base import flat, nested
from conpet.data import Example, Task, TaskStream
from conpet.demo.stream import demo_stream
from conpet.home import conpet_home
from conpet.testing import toy_stream


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes of all rows.

    Attributes:
        large: The backbone of most rows.
        small: The backbone of rows with very many tasks.
        pairs: Number of pairs if a run takes a second or two.
        learn_pairs: Number of pairs if a run takes many seconds.
        texts: Inputs per prediction call.
        few: Number of tasks of the small workspaces.
        hundred: Number of a task that is learned late.
        many: Number of tasks of the large workspace.
        labels: Most labels per task in the small workspaces and the learned tasks.
        examples: Training examples per label there.
        epochs: Epochs when learning is measured.
        tested: Test inputs per task for the accuracy of number formats.
        modules: Rows of a mixed batch, each with its own module.
        tokens: Tokens per row of a mixed batch.
        streamed: Numbers of rows after which memory is measured.
        matrix: Side of the matrices that measure the machine.
        seconds: Duration of each measurement of the machine.
    """

    large: str = "smollm2-135m"
    small: str = "minilm-l6"
    pairs: int = 7
    learn_pairs: int = 3
    texts: int = 128
    few: int = 10
    hundred: int = 100
    many: int = 1000
    labels: int = 15
    examples: int = 6
    taught: int = 20
    epochs: int = 10
    tested: int = 100
    modules: int = 32
    tokens: int = 32
    streamed: tuple[int, int] = (100_000, 1_000_000)
    matrix: int = 2048
    seconds: float = 2.0


QUICK = Sizes(
    large=TINY_RANDOM, small=TINY_RANDOM, pairs=2, learn_pairs=2, texts=8, few=3, hundred=5, many=8, labels=2,
    examples=4, taught=4, epochs=2, tested=4, modules=4, tokens=8, streamed=(300, 600), matrix=64,
    seconds=0.05,
)  # fmt: skip
MANY_SETTINGS: dict[str, Any] = {
    "training": {"epochs": 2, "batch_size": 8},
    "fusion": {"calibration_examples": 40},
}
"""Settings of the workspace with very many tiny tasks, chosen to fill it within minutes."""
BATCH = 16


class Bench:
    """The environment of the rows.

    Args:
        work: Folder for files stored between runs.
        sizes: The sizes of the rows.
        device: A torch device.
        dtype: Number format of backbones and rivals; "auto" as in `conpet.config.Settings`.
    """

    def __init__(self, work: Path, sizes: Sizes, *, device: str = "cpu", dtype: str = "auto") -> None:
        self.work = work
        self.sizes = sizes
        self.device = device
        self.dtype = dtype
        self._backbones: dict[Any, Backbone] = {}
        self._frozen_layers: dict[str, int] = {}

    @contextmanager
    def more_pairs(self, times: int) -> Iterator[None]:
        """Multiply the number of pairs of every row inside the block."""
        sizes = self.sizes
        self.sizes = replace(sizes, pairs=times * sizes.pairs, learn_pairs=times * sizes.learn_pairs)
        try:
            yield
        finally:
            self.sizes = sizes

    def backbone(self, name: str, *, frozen_layers: int | None = None, dtype: str | None = None) -> Backbone:
        """Return a backbone without a cache, by default with all but the top quarter of its layers frozen."""
        key = (name, frozen_layers, dtype)
        if key not in self._backbones:
            loaded = load_backbone(name, dtype=dtype or self.dtype, device=self.device)
            self._backbones[key] = Backbone(
                loaded, frozen_layers=self.frozen_layers(name) if frozen_layers is None else frozen_layers
            )
        return self._backbones[key]

    def frozen_layers(self, name: str) -> int:
        """Return the number of layers below the top quarter, which has at least one layer."""
        if name not in self._frozen_layers:
            layers = Backbone(load_backbone(name, dtype="float32", device="cpu")).cut.layers
            self._frozen_layers[name] = layers - max(1, layers // 4)
        return self._frozen_layers[name]

    def tolerance(self, backbone: Backbone) -> float:
        """Return the tolerance for equal results: rounding over all layers."""
        return 2e-3 if backbone.dtype is torch.float32 else 0.08

    # Data

    @cached_property
    def tasks(self) -> TaskStream:
        """CLINC150's ten domains, cut to size."""
        return TaskStream(tuple(self._cut(task, self.sizes.examples) for task in demo_stream()))

    def _cut(self, task: Task, each: int) -> Task:
        labels = task.labels[: self.sizes.labels]

        def first(examples: Sequence[Example], each: int) -> tuple[Example, ...]:
            return tuple(
                chosen for label in labels for chosen in [row for row in examples if row.label == label][:each]
            )

        return Task(task.name, first(task.train, each), first(task.validation, 5), first(task.test, 30))

    @cached_property
    def _words(self) -> list[list[str]]:
        return [example.text.split() for task in demo_stream() for example in task.test]

    def texts(self, number: int, count: int | None = None) -> list[str]:
        """Return new texts of realistic length: the words of test utterances in another order."""
        draw = random.Random(number)
        drawn = draw.sample(self._words, count or self.sizes.texts)
        return [" ".join([*draw.sample(words, len(words)), str(number % 1000)]) for words in drawn]

    def utterances(self, number: int, count: int) -> list[str]:
        """Return test utterances as they are: others for each number, in a random order of all."""
        texts = [example.text for task in demo_stream() for example in task.test]
        random.Random(0).shuffle(texts)
        first = number * count % (len(texts) - count)
        return texts[first : first + count]

    # Workspaces

    def create(self, path: Path, backbone: str, **settings: Any) -> ConPET:
        """Create an empty workspace that adapts the top quarter of the layers."""
        defaults = {
            "backbone.name": backbone,
            "backbone.frozen_layers": self.frozen_layers(backbone),
            "backbone.dtype": self.dtype,
            "backbone.device": self.device,
            "training.batch_size": BATCH,
        }
        return ConPET.create(path, **nested(defaults | flat(settings)))

    def few(self) -> ConPET:
        """Return a workspace with a few real tasks."""
        path = self._stored("few", {})
        if not path.exists():
            with building(path) as folder:
                learner = self.create(folder, self.sizes.large, training={"epochs": 3})
                for task in self.tasks[: self.sizes.few]:
                    learner.learn(task, evaluate=False)
        return ConPET.open(path, device=self.device)

    def encoder(self) -> ConPET:
        """Return a workspace with a few real tasks and the defaults of a small encoder."""
        path = self._stored("encoder", {"taught": self.sizes.taught})
        if not path.exists():
            with building(path) as folder:
                learner = self.create(folder, self.sizes.small, **{"backbone.frozen_layers": None})
                for task in demo_stream()[: self.sizes.few]:
                    learner.learn(self._cut(task, self.sizes.taught), evaluate=False)
        return ConPET.open(path, device=self.device)

    @cached_property
    def toys(self) -> TaskStream:
        """The tiny tasks of the large workspace, and one more."""
        return toy_stream(self.sizes.many + 1, labels=2, train=4, validation=10, test=2)

    def many(self, tasks: int) -> Path:
        """Return the folder of a workspace with the first `tasks` tiny tasks."""
        path = self._stored("many", {"tasks": tasks})
        if not path.exists():
            self._fill(self.sizes.hundred - 1 if tasks < self.sizes.hundred else self.sizes.many)
        return path

    def growth(self) -> dict[str, Any]:
        """Return the time to learn each of the tiny tasks so far, with settings and provenance."""
        self.many(self.sizes.hundred - 1)
        growth: dict[str, Any] = json.loads((self._stored("growth", {}) / "growth.json").read_text())
        return growth

    def _fill(self, tasks: int) -> None:
        """Learn so many tiny tasks one by one, and store copies at some sizes."""
        made_by = provenance()
        wanted = {1, self.sizes.few, self.sizes.hundred - 1, self.sizes.many}
        seconds, cpu = [], []
        shutil.rmtree(self._stored("growth", {}), ignore_errors=True)  # that of fewer tasks
        with building(self._stored("growth", {})) as folder:
            learner = self.create(folder / "w", self.sizes.small, **MANY_SETTINGS)
            for number, task in enumerate(self.toys[:tasks], start=1):
                started, worked = time.perf_counter(), time.process_time()
                learner.learn(task, evaluate=False)
                seconds.append(round(time.perf_counter() - started, 4))
                cpu.append(round(time.process_time() - worked, 4))
                path = self._stored("many", {"tasks": number})
                if number in wanted and not path.exists():
                    with building(path) as copy:
                        shutil.copytree(folder / "w", copy)
            shutil.rmtree(folder / "w")
            growth = {"made_by": made_by, "settings": MANY_SETTINGS, "seconds": seconds, "cpu_seconds": cpu}
            (folder / "growth.json").write_text(json.dumps(growth))

    def _stored(self, name: str, about: dict[str, Any]) -> Path:
        """Return the folder of a stored workspace for the present sizes."""
        sizes = asdict(self.sizes)
        used = [sizes[key] for key in ("large", "small", "few", "hundred", "many", "labels", "examples")]
        digest = hashlib.sha256(
            json.dumps([used, MANY_SETTINGS, self.dtype, about], sort_keys=True).encode()
        ).hexdigest()[:8]
        return self.work / "kept" / "-".join([name, *map(str, about.values()), digest])

    def scratch(self, name: str) -> Path:
        """Return the path of a new folder for one run."""
        path = self.work / "runs" / name
        shutil.rmtree(path, ignore_errors=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


@contextmanager
def building(path: Path) -> Iterator[Path]:
    """Yield a temporary folder to build in, which is renamed to `path` at the end."""
    aside = path.with_name(f"{path.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.parent.mkdir(parents=True, exist_ok=True)
    yield aside
    aside.rename(path)


def own_home(work: Path, names: Sequence[str]) -> None:
    """Set `CONPET_HOME` for this process and its children to a new folder, so that no states are cached.

    The models are linked from the user's home and downloaded there if needed.
    """
    for name in names:
        find_folder(name)
    home = work / "home"
    home.mkdir(parents=True, exist_ok=True)
    models = home / "models"
    if not models.is_symlink():
        models.symlink_to((conpet_home() / "models").resolve())
    os.environ["CONPET_HOME"] = str(home)
