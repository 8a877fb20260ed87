from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {
    "torch",
    "transformers",
    "peft",
    "matplotlib",
    "pyarrow",
    "tokenizers",
    "huggingface_hub",
    "gguf",
    "optuna",
    "httpx2",
    "fastapi",
}


def heavy_after(code: str) -> set[str]:
    """Return which heavy packages a fresh interpreter has loaded after running `code`."""
    script = f"import sys, json\n{code}\nprint(json.dumps(sorted(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return HEAVY & set(json.loads(run.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "module",
    [
        "conpet",
        "conpet.data",
        "conpet.store",
        "conpet.report",
        "conpet.evaluation.metrics",
        "conpet.replay",
        "conpet.backbone.catalog",
        "conpet.backbone.embedded",
        "conpet.demo.stream",
        "conpet.cli",
    ],
)
def test_loads_nothing_heavy(module: str) -> None:
    assert heavy_after(f"import {module}") == set()


def test_help_loads_nothing_heavy() -> None:
    help_in_process = """
from conpet.cli import main
sys.argv = ["conpet", "--help"]
try:
    main()
except SystemExit as done:
    assert not done.code, done.code
"""
    assert heavy_after(help_in_process) == set()


def test_data_is_read_and_checked_without_torch() -> None:
    assert heavy_after("from conpet.demo.stream import demo_stream; demo_stream()") == set()


def test_data_sets_are_listed_and_read_without_torch() -> None:
    listing = 'from conpet.cli import main; main(["bench", "data", "list"])'
    assert heavy_after(f'{listing}\nfrom conpet.data.benchmarks import read_data; read_data("fewrel80")') == set()
