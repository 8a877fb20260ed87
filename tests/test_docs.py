"""The documentation is what the result files give, and leads nowhere that is not there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from conpet.bench.experiment import BUDGET, METRICS, Experiment, Source, Variant
from conpet.config import StrictModel
from conpet.data.recipe import StreamRecipe

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXPERIMENTS = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")


@pytest.mark.parametrize("script", ["page.py", "learners_page.py", "performance_page.py"])
def test_pages_of_figures_are_made_from_the_result_files(script: str) -> None:
    command = [sys.executable, f"benchmarks/{script}", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_nothing_is_left_to_fill_in(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert [link for link in LINK.findall(text) if not (page.parent / link).exists()] == []
    assert "PLACEHOLDER" not in text


@pytest.mark.parametrize(
    ("heading", "model"),
    [("Keys of the file", Experiment), ("Data", Source), ("Streams", StreamRecipe), ("Variants", Variant)],
)
def test_every_key_of_an_experiment_has_its_row(heading: str, model: type[StrictModel]) -> None:
    section = EXPERIMENTS.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == list(model.model_fields)


def test_every_budget_setting_and_metric_is_named() -> None:
    assert {name for name in {*BUDGET, *METRICS} if f"`{name}`" not in EXPERIMENTS} == set()


def test_examples_of_experiments_can_be_run() -> None:
    whole, *variants = map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", EXPERIMENTS, re.DOTALL))
    more = {"fewnerd53": {}}
    for given in (whole, whole | whole["full"], *({**whole, **part, "data": more} for part in variants)):
        runs = list(Experiment.parse(given).runs("example"))
        assert all(run.settings for run in runs)
        assert len({run.file for run in runs}) == len(runs)
    assert len(list(Experiment.parse(whole).runs("example"))) == 24
