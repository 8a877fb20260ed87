"""Pages agree with the result files and the code, and their links lead somewhere; `make docs` checks the rest."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import conpet
from benchmarks.stated import squeezed, stated
from conpet import testing
from conpet.bench.experiment import Experiment, Source, Variant
from conpet.bench.metrics import METRICS
from conpet.config import StrictModel
from conpet.data.recipe import StreamRecipe
from conpet.methods.static import StaticMethod
from conpet.plugins import REGISTRIES
from scripts.make_reference import pages

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
EXPERIMENTS = (DOCS / "reference" / "experiments.md").read_text(encoding="utf-8")
EXTEND = (DOCS / "how-to" / "extend.md").read_text(encoding="utf-8")
ARCHITECTURE = (DOCS / "architecture.md").read_text(encoding="utf-8")
SETTINGS = (DOCS / "reference" / "settings.md").read_text(encoding="utf-8")
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")
FENCED = re.compile(r"```.*?```", re.DOTALL)
CODE = re.compile(r"```\w+\n.*?```", re.DOTALL)
GENERATED = re.compile(r"<!-- Made by.*?<!-- End of what is made. -->", re.DOTALL)
MEASURED_BY_HAND = ("README.md", "docs/index.md", "docs/how-to", "docs/explanation", "docs/tutorial.md")
"""Pages written by hand, in which a figure might be measured."""
FIGURE = re.compile(r"(?<![\w.])−?\d[\d,]*\.\d+(?![\w.])|\d+(?:\.\d+)? ?%|\d[\d.]* (?:times|points|MB|GB)\b")
NOT_MEASURED = {
    "README.md": {"2309.14763", "95%", "3.0"},  # arXiv, the level of the intervals, a licence
    "docs/tutorial.md": {"3.11", "91 MB"},
    "docs/how-to/offline.md": {"538 MB", "91 MB", "2.0"},
    "docs/explanation/storage.md": {"000 times"},  # the paper's claim
    "docs/how-to/tune.md": {"100%"},
}
"""Figures in these pages that no measurement gave."""


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("script", ["page.py", "methods_page.py", "performance_page.py"])
def test_pages_of_figures_are_made_from_the_result_files(script: str) -> None:
    command = [sys.executable, f"benchmarks/{script}", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", stated())
def test_figures_in_other_pages_are_those_of_the_result_files(page: str) -> None:
    text = squeezed((ROOT / page).read_text(encoding="utf-8"))
    assert [sentence for sentence in stated()[page] if squeezed(sentence) not in text] == []


@pytest.mark.parametrize("page", [page for page in PAGES if named(page).startswith(MEASURED_BY_HAND)], ids=named)
def test_no_figure_is_stated_that_no_result_file_gives(page: Path) -> None:
    text = GENERATED.sub("", page.read_text(encoding="utf-8"))
    text = squeezed(CODE.sub("", text)).replace("``` ", "")
    for sentence in stated().get(named(page), ()):
        text = text.replace(squeezed(sentence), "")
    assert set(FIGURE.findall(text)) - NOT_MEASURED.get(named(page), set()) == set()


def test_the_reference_is_made_from_the_code() -> None:
    for page, text in pages().items():
        assert page.read_text(encoding="utf-8") == text, f"{page} is stale: run python scripts/make_reference.py"


def test_the_readme_is_short() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    assert {name for name in ("make install", "make demo", "make test") if name not in text} == set()


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_to_files_and_nothing_is_left_to_fill_in(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert [link for link in LINK.findall(FENCED.sub("", text)) if not (page.parent / link).exists()] == []
    assert "PLACEHOLDER" not in text
    assert "{{" not in text


def error_of(parse: Callable[[str], object], text: str) -> str | None:
    """Return what is wrong with a piece of code, if anything."""
    try:
        parse(text)
    except (SyntaxError, yaml.YAMLError) as error:
        return str(error)
    return None


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_code_in_pages_can_be_parsed(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    wrong = [
        f"{error}\n{block}"
        for language, parse in (("python", ast.parse), ("yaml", yaml.safe_load))
        for block in re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
        if (error := error_of(parse, block))
    ]
    assert wrong == []


def test_every_hook_named_in_the_guide_is_one_of_static_methods() -> None:
    section = EXTEND.partition("## A method\n")[2].partition("\n## ")[0]
    hooks = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert "loss" in hooks
    assert [hook for hook in hooks if hook not in vars(StaticMethod)] == []


def test_every_contract_check_is_named_in_the_guide() -> None:
    checks = [name for name in testing.__all__ if name.startswith("check_") and name.endswith("_contract")]
    assert [name for name in checks if f"| `{name}` |" not in EXTEND] == []


def test_code_of_the_guide_to_extensions_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    blocks = re.findall(r"```python\n(.*?)```", EXTEND, re.DOTALL)
    files = {found[1]: block for block in blocks if (found := re.match(r"# (\S+\.py)\n", block))}
    for name, block in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(block, encoding="utf-8")
    try:
        for block in blocks:
            if block not in files.values():
                exec(block, {})  # noqa: S102 - a page of this repository
        conpet.register("schedule", "latest-task", "my_package.latest_task:LatestTask")
        conpet.register("reader", "tsv", "my_package.tsv:read_tsv")
        settings = testing.tiny_settings(
            method={"name": "my-method", "weights": {"replayed": 2}}, replay={"schedule": "latest-task"}
        )
        workspace = testing.Trial(tmp_path, settings).taught(testing.toy_stream(2, 2, 4, 1, 2))
        assert workspace.predict(["anything"])[0].label in workspace.labels
        sample = tmp_path / "sample.tsv"
        sample.write_text("text\tlabel\nyes please\tyes\nno thanks\tno\n", encoding="utf-8")
        testing.check_reader_contract("tsv", sample, rows=2)
    finally:
        for kind, name in (("method", "my-method"), ("schedule", "latest-task"), ("reader", "tsv")):
            REGISTRIES[kind].unregister(name)


def test_files_named_in_the_architecture_exist() -> None:
    tables = ARCHITECTURE.partition("## Where is")[2]
    named = set(re.findall(r"`((?:src/conpet/)?[\w/]+\.py)`", tables)) | set(
        re.findall(r"`((?:\w+/)+)`", tables.partition("## Design notes")[0])
    )
    places = (ROOT / "src" / "conpet", ROOT)
    missing = {path for path in named if not any((place / path).exists() for place in places)}
    assert missing - {"serve/"} == set()  # planned


def test_parts_and_files_in_the_tree_exist() -> None:
    tree = ARCHITECTURE.partition("src/conpet/\n")[2].partition("  (planned)")[0]
    folder, named = Path(), []
    for line in tree.splitlines():
        if line.startswith("  ") and line[2] != " ":
            folder = Path(line.split()[0]) if "/" in line.split()[0] else Path()
        inner = re.match(r"    (\w+)/", line)
        files = re.findall(r"(?<![\w/.])(\w+\.py)\b", line)
        named += [folder / inner[1] / path if inner else folder / path for path in files]
        named.append(folder)
    assert len(named) > 100
    assert [str(path) for path in named if not (ROOT / "src" / "conpet" / path).exists()] == []


def test_every_part_is_in_the_tree() -> None:
    tree = ARCHITECTURE.partition("src/conpet/\n")[2].partition("  (planned)")[0]
    parts = {
        path.name
        for path in (ROOT / "src" / "conpet").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert {part for part in parts - {"__main__.py"} if not re.search(rf"(?<!\w){re.escape(part)}", tree)} == set()


@pytest.mark.parametrize(
    ("heading", "model"),
    [("Keys of the file", Experiment), ("Data", Source), ("Streams", StreamRecipe), ("Variants", Variant)],
)
def test_every_key_of_an_experiment_has_its_row(heading: str, model: type[StrictModel]) -> None:
    section = EXPERIMENTS.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == list(model.model_fields)


def test_every_metric_is_named() -> None:
    assert {name for name in METRICS if f"`{name}`" not in EXPERIMENTS} == set()


def test_examples_of_experiments_can_be_run() -> None:
    whole, *variants = map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", EXPERIMENTS, re.DOTALL))
    more = {"fewnerd53": {}}
    for given in (whole, whole | whole["full"], *({**whole, **part, "data": more} for part in variants)):
        runs = list(Experiment.parse(given).runs("example"))
        assert all(run.settings for run in runs)
        assert len({run.file for run in runs}) == len(runs)
    assert len(list(Experiment.parse(whole).runs("example"))) == 24


def test_the_example_of_the_guide_can_be_run() -> None:
    text = (DOCS / "how-to" / "experiments.md").read_text(encoding="utf-8")
    (example,) = map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", text, re.DOTALL))
    assert len(list(Experiment.parse(example).runs("example"))) == 6


def test_the_settings_page_has_a_place_for_the_table() -> None:
    assert SETTINGS.count("<!-- settings -->") == SETTINGS.count("<!-- end of settings -->") == 1
