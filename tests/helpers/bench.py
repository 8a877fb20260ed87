"""A small experiment on a toy stream, for the tests of `conpet bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from conpet.data.stream_writer import write_stream
from conpet.testing import toy_stream

TOY: dict[str, Any] = {
    "title": "A toy",
    "data": {"toy": {"train": 6, "validation": 2, "test": 4}},
    "orders": 2,
    "backbone": "tiny-random",
    "settings": {"backbone": {"frozen_layers": 1}},
    "budget": {"training": {"epochs": 1, "batch_size": 16}},
    "learners": {"emr*": {"method": "emr"}, "lda": {"method": "lda"}},
}


def experiment_file(folder: Path, **changes: Any) -> Path:
    """Write the toy's stream and the experiment on it; return the experiment's path."""
    write_stream(toy_stream(tasks=3, labels=2), folder / "toy")
    path = folder / "trial.yaml"
    path.write_text(yaml.safe_dump(TOY | changes), encoding="utf-8")
    return path
