"""Settings are nested by the component that reads them, and messages say where a setting belongs."""

from __future__ import annotations

from typing import Any

import pytest

from conpet.config import Settings
from conpet.config.base import flat, nested
from conpet.config.describe import describe_settings
from conpet.config.settings import is_budget
from conpet.errors import ConfigError, UnknownNameError


def test_dotted_keys_and_nested_sections_mean_the_same() -> None:
    dotted = Settings.parse({"module.rank": 4, "selector.top_k": 2, "training.epochs": 1})
    assert dotted == Settings.parse({"module": {"rank": 4}, "selector": {"top_k": 2}, "training": {"epochs": 1}})
    assert (dotted.module.rank, dotted.selector.top_k) == (4, 2)  # type: ignore[attr-defined]


def test_a_string_is_the_first_key_of_its_section() -> None:
    short = Settings.parse({"backbone": "minilm-l6", "module": "ia3", "replay": "fixed", "fusion": "paper"})
    assert (short.backbone.name, short.module.kind, short.fusion.name) == ("minilm-l6", "ia3", "paper")
    assert short.replay.schedule.name == "fixed"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rank": 4}, "settings have sections, use module.rank or selector.rank"),
        ({"epochs": 2}, "settings have sections, use training.epochs"),
        ({"module.rnak": 4}, r"unknown setting 'module.rnak' \(did you mean 'module.rank'\?\); have: "),
        ({"nonsense": 1}, "unknown setting 'nonsense'; have: backbone, consolidation, features"),
        ({"selector.steps": 9}, "unknown setting 'selector.steps'"),  # the linear selector has no model of its own
        ({"module": "ia3", "module.rank": 4}, "given twice"),
        ({"module": {"kind": "ia3", "rank": 4}}, "unknown setting 'module.rank'"),
        ({"selector.top_k": 0}, "selector.top_k"),
        ({"training": {"epochs": 0}, "seed": "x"}, "training.epochs.*; .*seed"),
        ({"consolidation.share": True, "module.rank": False}, "rank: must be a number.*; .*share: must be a number"),
        ({"module.rank": "none"}, "module.rank"),
        ({"consolidation.share": 1.5}, "consolidation.share.*1"),
        ({"module.rank": 10**6, "training.epochs": 10**6}, "module.rank.*4096.*; .*training.epochs.*10000"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Settings.parse(values)


def test_none_is_taken_as_it_is_shown() -> None:
    given = {"consolidation": {"share": 0.3}, "training": {"max_steps": 5}}
    changed = Settings.parse(given).changed({"consolidation.share": "none", "training.max_steps": "none"})
    assert (changed.consolidation.share, changed.training.max_steps) == (None, None)
    assert Settings.parse({"backbone.warmup": "none"}).backbone.warmup == "none"


def test_an_unknown_component_is_refused_with_those_that_exist() -> None:
    with pytest.raises(UnknownNameError, match=r"no selector 'guess'; have: .*linear"):
        Settings.parse({"selector": "guess"})


def test_a_task_overrides_its_own_sections_and_no_others() -> None:
    settings = Settings.parse({"module.rank": 4, "training.epochs": 2})
    task = settings.for_task({"module": {"alpha": 3.0}})
    assert (task.module.rank, task.module.alpha, task.training.epochs) == (4, 3.0, 2)  # type: ignore[attr-defined]
    assert settings.for_task({"module": "prefix"}).module.kind == "prefix"
    with pytest.raises(ConfigError, match="'selector' is a setting of the whole workspace; a task can set: module, "):
        settings.for_task({"selector": "learned"})
    with pytest.raises(ConfigError, match=r"use training.epochs"):
        settings.for_task({"epochs": 1})


def test_what_is_stored_gives_the_settings_again() -> None:
    settings = Settings.parse({"method": {"name": "ewc", "penalty": 5.0}, "module": "houlsby", "replay": "fixed"})
    assert Settings.parse(settings.to_json()) == settings
    values = settings.to_json()
    assert nested(flat(values)) == values


def test_another_component_starts_from_its_own_defaults() -> None:
    learned = Settings.parse({"selector": {"name": "learned", "top_k": 3, "steps": 7}})
    assert learned.changed({"selector.name": "prototypes"}).selector.top_k == 3
    again = learned.changed({"selector.name": "prototypes"}).changed({"selector.name": "learned"})
    assert again.selector.steps != 7  # type: ignore[attr-defined]


def test_budgets_are_declared_by_their_components() -> None:
    settings = Settings.parse({"selector": "learned"})
    budget = {"training.epochs", "training.batch_size", "replay.memory_per_label", "selector.steps"}
    assert {key for key in flat(settings.to_json()) if is_budget(settings, key)} >= budget
    assert not is_budget(settings, "module.kind")
    assert not is_budget(settings, "selector.top_k")


def test_every_setting_is_described() -> None:
    rows = describe_settings()
    stored = {name.replace("schedule.name", "schedule") for name in flat(Settings().to_json())}
    assert {row.name for row in rows} >= stored
    assert all(row.meaning for row in rows)
