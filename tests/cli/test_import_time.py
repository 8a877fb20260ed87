from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

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
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert not run.returncode, run.stderr
    return HEAVY & set(json.loads(run.stdout.splitlines()[-1]))


LIGHT = (
    "conpet",
    "conpet.artifact",
    "conpet.data",
    "conpet.store",
    "conpet.report",
    "conpet.evaluation.metrics",
    "conpet.replay",
    "conpet.backbone.catalog",
    "conpet.backbone.embedded",
    "conpet.commands.create",
    "conpet.demo.stream",
    "conpet.cli",
)


def test_modules_load_nothing_heavy() -> None:
    after_each = f"""
import importlib
for name in {LIGHT}:
    importlib.import_module(name)
    heavy = {HEAVY} & set(sys.modules)
    assert not heavy, (name, heavy)
"""
    assert heavy_after(after_each) == set()


def test_help_and_data_load_nothing_heavy() -> None:
    code = """
from conpet.cli import main
from conpet.data.benchmarks import read_data
from conpet.demo.stream import demo_stream
sys.argv = ["conpet", "--help"]
try:
    main()
except SystemExit as done:
    assert not done.code, done.code
demo_stream()
main(["bench", "data", "list"])
read_data("fewrel80")
"""
    assert heavy_after(code) == set()


WRONG_SETTINGS = [
    ("init NEW --set module.rnk=4", "did you mean 'module.rank'"),
    ("init NEW --set rank=4", "use module.rank or selector.rank"),
    ("init NEW --set training.epochs=x", "'training.epochs' must be a valid integer"),
    ("init NEW --set selector.name=learned --set selector.steps=0", "'selector.steps' must be"),
    ("init NEW --set fusion.skip_above=2", "'fusion.skip_above' must be"),
    ("init NEW --set method.penalty=-1 --method ewc", "'method.penalty' must be"),
    ("init NEW --method dynamo", "no method 'dynamo'"),
    ("init NEW --frozen-layers 99", "minilm-l6 has 6 layers"),
    ("init USED", "is a folder with other files"),
    ("consolidate NEW --set epoch=2", "did you mean 'consolidation.epochs'"),
    ("compare NEW --set module.rnk=4", "did you mean 'module.rank'"),
]


def test_wrong_settings_are_reported_without_torch(tmp_path: Path) -> None:
    (tmp_path / "file.txt").touch()
    paths = {"NEW": str(tmp_path / "new"), "USED": str(tmp_path)}
    cases = [([paths.get(word, word) for word in command.split()], said) for command, said in WRONG_SETTINGS]
    code = f"""
import contextlib, io
from conpet.cli import main
for arguments, expected in {cases!r}:
    with contextlib.redirect_stderr(io.StringIO()) as said:
        assert main(arguments) == 1, arguments
    assert expected in " ".join(said.getvalue().split()), said.getvalue()
"""
    assert heavy_after(code) == set()
