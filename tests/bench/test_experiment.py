"""Experiment files: the runs they ask for, and what is said of wrong ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml

from conpet.bench import checks as checking
from conpet.bench.checks import check_runs
from conpet.bench.experiment import Experiment, Run
from conpet.bench.run import read_source
from conpet.data.labelled import SUBSETS, LabelledData, by_label
from conpet.errors import ConfigError
from tests.helpers.bench import TOY

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SHIPPED = (
    "accuracy",
    "choose",
    "choose-selector",
    "main",
    "main-smollm2",
    "pet-size",
    "pre-selection",
    "task-splits",
    "growth",
)
FEW = 20


def read(folder: Path, *, whole: bool = False, **changes: Any) -> Experiment:
    path = folder / "trial.yaml"
    path.write_text(yaml.safe_dump(TOY | changes), encoding="utf-8")
    return Experiment.read(path, full=whole)


def runs(experiment: Experiment) -> list[Run]:
    return list(experiment.runs("trial"))


def test_an_experiment_asks_for_every_learner_on_every_data_set_in_every_order(tmp_path: Path) -> None:
    experiment = read(tmp_path, data={"toy": {}, "other": {}}, orders=3, seeds=2)
    found = {(run.data, run.learner, run.order, run.seed) for run in runs(experiment)}
    assert len(found) == len(runs(experiment)) == 2 * 2 * 3 * 2


def test_the_first_runs_compare_all_learners_in_one_order(tmp_path: Path) -> None:
    first, second, *_ = runs(read(tmp_path))
    assert (first.learner, first.order, second.learner, second.order) == ("emr*", 0, "lda", 0)


def test_each_run_has_a_file_and_a_seed_of_its_own(tmp_path: Path) -> None:
    learners = {name: {"method": "emr"} for name in ("emr", "emr*", "emr + warm-up", "a/b", "der++")}
    found = runs(read(tmp_path, learners=learners, orders=3, seeds=2, data={"toy": {}, "../up/toy": {}}))
    assert len({run.file for run in found}) == len(found)
    assert all(not run.file.is_absolute() and ".." not in run.file.parts for run in found)
    seeds = {(run.order, run.seed): run.settings.seed for run in found}
    assert len(set(seeds.values())) == 3 * 2


def test_what_is_nearer_to_the_learner_counts(tmp_path: Path) -> None:
    experiment = read(
        tmp_path,
        budget={"training": {"epochs": 3, "batch_size": 4}},
        variants={"long": {"budget": {"training": {"epochs": 9}}}, "short": {}},
        learners={"plain": {"method": "emr"}, "own": {"method": "emr", "training": {"epochs": 1}}},
        orders=1,
    )
    epochs = {(run.variant, run.learner): run.settings.training.epochs for run in runs(experiment)}
    assert epochs == {("long", "plain"): 9, ("long", "own"): 1, ("short", "plain"): 3, ("short", "own"): 1}
    assert {run.settings.training.batch_size for run in runs(experiment)} == {4}


def test_settings_are_merged_section_by_section(tmp_path: Path) -> None:
    experiment = read(
        tmp_path,
        settings={"module": {"rank": 2, "alpha": 4}, "selector": {"top_k": 2}},
        variants={
            "": {"settings": {"module": {"rank": 3}}},
            "other kind": {"settings": {"module": "houlsby"}, "learners": ["other"]},
        },
        learners={
            "own": {"method": {"name": "ewc", "penalty": 5.0}, "module": {"alpha": 6}, "replay": "fixed"},
            "other": {"method": "dynamic", "selector": "prototypes"},
        },
        orders=1,
    )
    found = {(run.variant, run.learner): run.settings for run in runs(experiment)}
    own, other = found["", "own"], found["", "other"]
    assert (own.method.name, own.replay.schedule.name) == ("ewc", "fixed")
    assert own.method.model_dump()["penalty"] == 5.0
    assert own.module.shape == {"kind": "lora", "rank": 3, "alpha": 6, "targets": "all-linear"} | {
        "rslora": False, "dora": False
    }  # fmt: skip
    assert (other.selector.name, other.selector.top_k) == ("prototypes", 2)
    assert found["other kind", "other"].module.shape == {"kind": "houlsby", "width": 16}


def test_a_budget_is_for_the_learners_that_have_the_setting(tmp_path: Path) -> None:
    learners = {"learned": {"method": "dynamic", "selector": "learned"}, "closed": {"method": "dynamic"}}
    budget = {"selector": {"steps": 7}, "training": {"epochs": 1}}
    found = {run.learner: run for run in runs(read(tmp_path, learners=learners, budget=budget, orders=1))}
    assert found["learned"].given["selector"] == {"name": "learned", "steps": 7}
    assert "steps" not in found["closed"].settings.selector.model_dump()
    assert found["learned"].budget == found["closed"].budget == budget


def test_a_data_set_may_have_a_stream_of_its_own_and_a_variant_one_for_all(tmp_path: Path) -> None:
    experiment = read(
        tmp_path,
        data={"toy": {"stream": {"by": "random", "tasks": 4}}, "other": {}},
        variants={"": {}, "five": {"stream": {"by": "random", "tasks": 5}, "data": ["toy"]}},
        orders=1,
    )
    found = {(run.variant, run.data): (run.stream.by, run.stream.tasks) for run in runs(experiment)}
    assert found == {("", "toy"): ("random", 4), ("", "other"): ("given", None), ("five", "toy"): ("random", 5)}


def test_a_run_asked_for_in_another_way_is_known_by_its_digest(tmp_path: Path) -> None:
    def asked(**changes: Any) -> str:
        return runs(read(tmp_path, **changes))[0].asked

    same = asked()
    assert asked(title="Another title", metrics=["forgetting"], orders=5) == same
    others = [
        asked(budget={"training": {"epochs": 2}}),
        asked(settings={"backbone": {"frozen_layers": 2}}),
        asked(data={"toy": {"train": 7}}),
        asked(stream={"by": "random", "tasks": 2}),
        asked(backbone="minilm-l6"),
        asked(evaluate_after="last"),
    ]
    assert len({same, *others}) == 1 + len(others)


def test_the_full_size_replaces_what_it_names(tmp_path: Path) -> None:
    full = read(tmp_path, whole=True, full={"orders": 7, "data": {"toy": {}}})
    assert full.orders == 7
    assert full.data["toy"].train is None
    assert full.learners.keys() == TOY["learners"].keys()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"learner": {}}, "unknown key of an experiment 'learner' (did you mean 'learners'?); have: backbone, budget"),
        (
            {"data": {"toy": {"trian": 3}}},
            "unknown key of a data set 'data.toy.trian' (did you mean 'data.toy.train'?); have: first_",
        ),
        (
            {"data": {"train": {"stream": {"tsks": 3}}}},
            "key of a stream 'data.train.stream.tsks' (did you mean 'data.train.stream.tasks'?); have: by, g",
        ),
        (
            {"variants": {"a": {"budgt": {}}}},
            "key of a variant 'variants.a.budgt' (did you mean 'variants.a.budget'?); have: backbone",
        ),
        ({"orders": 0}, "'orders' must be greater than or equal to 1"),
        ({"budgt": {}}, "(did you mean 'budget'?)"),
        (
            {"budget": {"module": {"rank": 8}}},
            "budget cannot contain module.rank (it belongs under settings); allowed: backbone.max_tokens, consol",
        ),
        (
            {"settings": {"training": {"epochs": 8}}},
            "settings cannot contain training.epochs (it belongs under budget); allowed: backbone.cache",
        ),
        (
            {"budget": {"training": {"epoch": 8}}},
            "budget cannot contain training.epoch (did you mean 'training.epochs'?); allowed: backbone.max_tokens",
        ),
        (
            {"settings": {"backbone": {"frozen_layer": 8}}},
            "settings: unknown setting 'backbone.frozen_layer' (did you mean 'backbone.frozen_layers'?); have: cache",
        ),
        ({"settings": {"modul": "ia3"}}, "settings: unknown setting 'modul' (did you mean 'module'?)"),
        ({"settings": {"module": "ia4"}}, "settings: no module kind 'ia4' (did you mean 'ia3'?)"),
        ({"budget": {"training": {"epochs": 0}}}, "budget: setting 'training.epochs' must be greater"),
        ({"budget": {"selector": {"steps": 5}}}, "budget cannot contain selector.steps; allowed: "),
        (
            {"variants": {"a": {"settings": {"method": "emr"}}}},
            "settings cannot contain method (it belongs to a learner)",
        ),
        (
            {"settings": {"backbone": "minilm-l6"}},
            "cannot contain backbone.name (use the key 'backbone' of the experiment",
        ),
        ({"settings": {"seed": 3}}, "settings cannot contain seed (it follows from 'seeds' and 'orders'); allowed"),
        ({"learners": {"a": {"method": "emr", "seed": 3}}}, "learner 'a' cannot contain seed: it follows from"),
        (
            {"learners": {"a": {"method": "emr", "backbone": "x"}}},
            "learner 'a' cannot contain backbone.name: use the key",
        ),
        ({"variants": {"a": {"budget": {"replay": {"schedule": "fixed"}}}}}, "replay.schedule (it belongs under set"),
        ({"variants": {"a": {"learners": ["emr"]}}}, "no learner emr (did you mean 'emr*'?); available: emr*, lda"),
        ({"variants": {"a": {"data": ["tyo"]}}}, "no data set tyo (did you mean 'toy'?); available: toy"),
        ({"metrics": ["accuracy"]}, "no metric accuracy (did you mean 'whole_accuracy'?); available: whole_accuracy"),
        ({"learners": {"a": {"module": {"rank": 8}}}}, "learner 'a' names no method"),
        ({"learners": {"a": {"method": "emrr"}}}, "learner 'a': no method 'emrr' (did you mean 'emr'?)"),
        ({"learners": {"a": {"method": "emr", "module": {"rnak": 8}}}}, "learner 'a': unknown setting 'module.rnak'"),
        ({"learners": {"a": {"method": {"name": "ewc", "penlty": 8}}}}, "learner 'a': unknown setting 'method.penlty'"),
        ({"learners": {}}, "learners"),
        ({"evaluate_after": "never"}, "evaluate_after"),
        ({"consolidate": {"emrr": "last"}}, "no learner emrr (did you mean 'emr*'?)"),
        ({"consolidate": {"lda": "often"}}, "consolidate.lda"),
    ],
)
def test_what_is_wrong_in_an_experiment_is_named(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        read(tmp_path, **changes)
    assert said in str(error.value)
    assert "trial.yaml" in str(error.value)


@pytest.mark.parametrize(("content", "said"), [("a: [", "not a readable YAML"), ("- a", "a mapping of keys: title")])
def test_a_file_that_is_no_experiment_is_refused(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "trial.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=said):
        Experiment.read(path)


@pytest.mark.parametrize("names", [("a*", "a-star"), ("a b", "a_b"), ("a/b", "a_b")])
def test_names_whose_results_would_stand_in_one_file_are_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    with pytest.raises(ConfigError, match="would be written to the same file"):
        read(tmp_path, learners={name: {"method": "emr"} for name in names})


def test_a_key_that_is_there_twice_is_refused_but_not_one_that_is_merged(tmp_path: Path) -> None:
    path = tmp_path / "trial.yaml"
    text = (
        "title: t\ndata: {toy: {}}\nlearners:\n  a: &a {method: emr, module: {rank: 2}}\n  b: {<<: *a, method: lda}\n"
    )
    path.write_text(text, encoding="utf-8")
    found = {run.learner: (run.settings.method.name, run.given["module"]) for run in Experiment.read(path).runs("t")}
    module = {"kind": "lora", "rank": 2}
    assert found == {"a": ("emr", module), "b": ("lda", module)}
    path.write_text(text + "  a: {method: lda}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="line 6, column 3: the key 'a' occurs twice"):
        Experiment.read(path)


def test_a_missing_file_and_a_missing_full_size_are_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read: No such file or directory; give the YAML file"):
        Experiment.read(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="add a key 'full'"):
        read(tmp_path, whole=True)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_experiments_of_the_paper_can_be_read(name: str) -> None:
    path = BENCHMARKS / f"{name}.yaml"
    assert list(Experiment.read(path).runs(name))
    if not name.startswith("choose"):
        assert list(Experiment.read(path, full=True).runs(name))


@pytest.fixture(scope="module")
def few_examples() -> Callable[[str, tuple[Path, ...]], LabelledData]:
    """Return `read_source`, which keeps a few examples of each label, so that streams are made in no time."""

    @cache
    def read(name: str, folders: tuple[Path, ...]) -> LabelledData:
        data = read_source(name, folders)
        few = {subset: tuple(chain.from_iterable(by_label(getattr(data, subset), FEW).values())) for subset in SUBSETS}
        return replace(data, **few)

    return read


@pytest.mark.parametrize("path", sorted(BENCHMARKS.glob("*.yaml")), ids=lambda path: path.stem)
def test_nothing_is_said_against_the_experiments_that_come_with_the_source(
    tmp_path: Path,
    path: Path,
    few_examples: Callable[[str, tuple[Path, ...]], LabelledData],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checking, "find_folder", lambda _: tmp_path)  # no model is fetched for this
    monkeypatch.setattr(checking, "read_source", few_examples)
    text = yaml.safe_load(path.read_text(encoding="utf-8"))
    for full in (False, True) if "full" in text else (False,):
        check_runs(Experiment.read(path, full=full).runs(path.stem), tmp_path)
