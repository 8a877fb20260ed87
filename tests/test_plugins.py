"""A package of two files adds a component of each kind: nothing in conpet is changed for it."""

from __future__ import annotations

import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import conpet
from conpet import ConPET, ConpetError, read_task
from conpet.config import Settings
from conpet.errors import ConfigError, UnknownNameError
from conpet.fusion.paper import PaperFusion
from conpet.plugins import REGISTRIES
from conpet.testing import (
    METHOD_CHECKS,
    ContractError,
    Trial,
    check_fusion_contract,
    check_head_contract,
    check_method_contract,
    check_module_contract,
    check_reader_contract,
    check_schedule_contract,
    check_selector_contract,
    tiny_settings,
    toy_stream,
)

PLUGIN = Path(__file__).parent / "plugin"
ELSEWHERE = "reloaded_elsewhere"


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Install the package as pip would, as far as Python's metadata goes."""
    site = tmp_path_factory.mktemp("site-packages")
    shutil.copytree(PLUGIN / "conpet_plugin", site / "conpet_plugin")
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    info = site / "conpet_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: conpet-plugin\nVersion: 1.0\n", encoding="utf-8")
    groups = [
        f"[{group}]\n" + "\n".join(f"{name} = {target}" for name, target in points.items())
        for group, points in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n\n".join(groups) + "\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        for registry in REGISTRIES.values():
            registry.refresh()
        yield
    for registry, name in zip(REGISTRIES.values(), NAMES, strict=True):
        registry.unregister(name)
    sys.modules.pop("conpet_plugin", None)


NAMES = ("smoothed", "tempered", "bitfit", "number", "recent", "sum", "psv")


def test_every_kind_finds_the_package() -> None:
    for (kind, registry), name in zip(REGISTRIES.items(), NAMES, strict=True):
        assert name in registry, kind
        assert callable(registry[name])


def test_they_answer_alike_in_another_process(tmp_path: Path) -> None:
    """One process is asked about all of them: to start it takes longer than to answer."""
    METHOD_CHECKS[ELSEWHERE](
        Trial(tmp_path / "static", tiny_settings(method="smoothed", replay="recent")),
        Trial(tmp_path / "dynamic", tiny_settings(selector="tempered", module="bitfit", fusion="sum")),
    )


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the check in another process; see above."""
    monkeypatch.delitem(METHOD_CHECKS, ELSEWHERE)


@pytest.mark.usefixtures("here")
def test_the_method_keeps_the_contract() -> None:
    check_method_contract("smoothed")


@pytest.mark.usefixtures("here")
def test_the_selector_keeps_the_contract() -> None:
    check_selector_contract("tempered")


@pytest.mark.usefixtures("here")
def test_the_module_kind_keeps_the_contract() -> None:
    check_module_contract("bitfit")


def test_the_head_keeps_the_contract() -> None:
    check_head_contract("number", ["-3.5", "12"])


@pytest.mark.usefixtures("here")
def test_the_schedule_keeps_the_contract() -> None:
    check_schedule_contract("recent")


def test_the_fusion_keeps_the_contract() -> None:
    check_fusion_contract("sum")


def test_the_reader_keeps_the_contract(tmp_path: Path) -> None:
    sample = tmp_path / "answers.psv"
    sample.write_text("text|label\nyes please|yes\nno thanks|no\n", encoding="utf-8")
    check_reader_contract("psv", sample, rows=2)
    with pytest.raises(ContractError, match="the sample has 3 rows, and the reader yields 2"):
        check_reader_contract("psv", sample, rows=3)
    sample.write_text("text|label\n|yes\n", encoding="utf-8")
    other = sample.rename(tmp_path / "answers.other")
    with pytest.raises(ContractError, match=r"must be named \*\.psv"):
        check_reader_contract("psv", other, rows=1)


def test_each_component_has_settings_of_its_own() -> None:
    given = {
        "method": {"name": "smoothed", "smoothing": 0.2},
        "selector": {"name": "tempered", "temperature": 3.0},
        "module": {"kind": "bitfit", "scale": 2.0},
        "replay.schedule": {"name": "recent", "tasks": 2},
        "fusion": {"name": "sum", "weight": 0.5},
    }
    settings = Settings.parse(given).to_json()
    assert settings["method"]["smoothing"] == 0.2
    assert settings["selector"]["temperature"] == 3.0
    assert settings["module"]["scale"] == 2.0
    assert settings["replay"]["schedule"]["tasks"] == 2
    assert settings["fusion"]["weight"] == 0.5
    with pytest.raises(ConfigError, match=r"method\.smothing.*did you mean 'method.smoothing'"):
        Settings.parse({"method": {"name": "smoothed", "smothing": 0.2}})


def test_they_work_together(tmp_path: Path) -> None:
    settings = tiny_settings(selector="tempered", module={"kind": "bitfit"}, fusion={"name": "sum", "weight": 0.5})
    workspace = Trial(tmp_path, settings).taught(toy_stream(2, 2, 6, 2, 2))
    assert ConPET.open(workspace.path).settings.fusion.name == "sum"
    assert workspace.predict(["anything"])[0].label in workspace.labels


def test_its_file_format_is_read(tmp_path: Path) -> None:
    rows = ["text|label", *(f"{word} {number}|{word}" for word in ("yes", "no") for number in range(5))]
    path = tmp_path / "answers.psv"
    path.write_text("\n".join(rows), encoding="utf-8")
    assert read_task(path).labels == ("no", "yes")
    path.write_text("\n".join([*rows, "only one cell"]), encoding="utf-8")
    with pytest.raises(ConpetError, match="row 12: has 1 cells where the header has 2"):
        read_task(path)


def test_wrong_answers_of_a_head_are_told_before_anything_is_learned(tmp_path: Path) -> None:
    (task,) = toy_stream(1, 2, 4, 0, 0)
    workspace = Trial(tmp_path, tiny_settings()).workspace()
    wrong = conpet.Task("numbers", task.train, settings={"head": "number"})
    with pytest.raises(conpet.ConpetError, match="is not a number"):
        workspace.learn(wrong)
    assert workspace.tasks == ()


def test_methods_without_a_module_for_each_task_refuse_other_heads(tmp_path: Path) -> None:
    (task,) = toy_stream(1, 2, 4, 0, 0)
    numbers = conpet.Task("numbers", tuple(one.labelled("1") for one in task.train), settings={"head": "number"})
    for method in ("lda", "emr"):
        workspace = Trial(tmp_path, tiny_settings(method=method)).workspace(method)
        with pytest.raises(ConfigError, match="answers with labels only"):
            workspace.learn(numbers)


class Local(PaperFusion):
    """A class registered in this process alone."""

    name = "local"


def test_register_takes_classes_and_paths_and_keeps_names_apart() -> None:
    conpet.register("fusion", "local", Local)
    try:
        assert REGISTRIES["fusion"]["local"] is Local
        conpet.register("fusion", "local", Local)  # the same again
        with pytest.raises(ConfigError, match="already registered"):
            conpet.register("fusion", "local", "elsewhere:Other")
    finally:
        REGISTRIES["fusion"].unregister("local")
    with pytest.raises(ConfigError, match="already registered"):
        conpet.register("method", "emr", Local)
    with pytest.raises(UnknownNameError, match="did you mean 'method'"):
        conpet.register("methods", "mine", Local)
    with pytest.raises(ConfigError, match=r"package\.module:attribute"):
        conpet.register("method", "mine", "no-colon")


def test_contracts_take_classes_and_say_what_is_wrong_with_them() -> None:
    class Inside:
        name = "inside"

    with pytest.raises(ContractError, match="inside a function"):
        check_method_contract(Inside)  # type: ignore[arg-type]
    with pytest.raises(ContractError, match="has no `name`"):
        check_fusion_contract(object())  # type: ignore[arg-type]


def test_contracts_take_classes() -> None:
    components: Any = __import__("conpet_plugin")
    REGISTRIES["fusion"].unregister("sum")
    check_fusion_contract(components.SumFusion)
    check_fusion_contract(components.SumFusion(config=components.SumConfig(name="sum", weight=0.1)))
    REGISTRIES["fusion"].refresh()
