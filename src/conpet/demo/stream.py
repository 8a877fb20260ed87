"""The demo's data: CLINC150's ten domains as ten tasks (see `data/SOURCE.md` for its authors, licence and changes)."""

from __future__ import annotations

import gzip
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from conpet.data import Example, Task, TaskStream
from conpet.data.stream_writer import write_stream

TASK_NAMES = (
    "banking",
    "credit_cards",
    "kitchen_and_dining",
    "home",
    "auto_and_commute",
    "travel",
    "utility",
    "work",
    "small_talk",
    "meta",
)
"""The tasks in the order in which they are learned, which is the authors' order of the domains."""

LIVE_EXAMPLES = (
    Example.of_text("the machine at the corner swallowed me and i think someone is using my account", "report_fraud"),
    Example.of_text("my plastic is scratched and the shop's reader won't take it any more", "damaged_card"),
    Example.of_text("i'm out of buttermilk, would yoghurt do for the pancakes", "ingredient_substitution"),
    Example.of_text("put oat milk and two lemons on what i have to buy", "shopping_list_update"),
    Example.of_text("my suitcase never showed up on the belt in lisbon", "lost_luggage"),
    Example.of_text("did my boss say yes to the week off in august yet", "pto_request_status"),
    Example.of_text("please talk a bit slower, i can't follow", "change_speed"),
    Example.of_text("which of bach's cantatas has the longest oboe solo"),
)
"""Utterances that are not in the data, with the expected intent; no intent fits the last one."""

_SUBSETS = ("train", "validation", "test")


def demo_stream() -> TaskStream:
    """Return the demo's ten tasks, each with 15 intents: 20 training, 5 validation and 30 test examples per intent."""
    rows = {subset: packaged_rows(subset) for subset in _SUBSETS}
    return TaskStream(tuple(_task(name, rows) for name in TASK_NAMES))


def write_demo_stream(folder: str | Path) -> Path:
    """Write the demo's tasks as a stream folder and return its path.

    The folder has a subfolder with JSONL files for each task, a `stream.yaml` with their order, and the licence of the
    data. Existing files with the same content are left alone.

    Raises:
        DataError: The path is not a folder, or contains other data; nothing is written.
    """
    return write_stream(demo_stream(), folder, {name: packaged(name) for name in ("LICENSE", "SOURCE.md")})


def packaged(name: str) -> bytes:
    """Return the content of a file of the demo's data."""
    return (files("conpet.demo") / "data" / name).read_bytes()


def packaged_rows(name: str) -> list[dict[str, Any]]:
    """Return the rows of one of the compressed files of the demo's data."""
    return [json.loads(line) for line in gzip.decompress(packaged(f"{name}.jsonl.gz")).splitlines()]


def _task(name: str, rows: dict[str, list[dict[str, Any]]]) -> Task:
    train, validation, test = (
        tuple(Example.of_text(row["text"], row["label"], row["id"]) for row in rows[subset] if row["task"] == name)
        for subset in _SUBSETS
    )
    return Task(name, train, validation, test)
