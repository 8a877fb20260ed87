"""Components of other packages: what is told when a name, a path or the code behind it is wrong."""

from __future__ import annotations

import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import conpet
from conpet import ConPET
from conpet.config.describe import describe_settings
from conpet.config.settings import COMPONENTS
from conpet.data.raw import Note, RawRow
from conpet.errors import ConfigError, DataError, PluginError, UnknownNameError
from conpet.methods import METHODS
from conpet.methods.emr import EmrMethod
from conpet.plugins import REGISTRIES
from conpet.testing import METHOD_CHECKS, ContractError, Trial, check_method_contract, tiny_settings, toy_stream
from conpet.testing.registration import registered, registrations


class Plain(EmrMethod):
    """EMR under another name."""

    name = "plain"


def not_a_class() -> None:
    """Stand for a function that is registered as a method."""


def dictionaries(path: Path) -> Iterator[Any]:
    """Yield what is no row."""
    yield {"text": str(path), "label": "x"}


def failing(path: Path) -> Iterator[RawRow]:
    """Fail in the second row."""
    yield RawRow(1, {"text": "a", "label": "x"})
    raise KeyError(path.name)


def text_lines(path: Path) -> Iterator[RawRow]:
    """Yield one row for each line."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        yield RawRow(number, {"text": f"{line} {number}", "label": line})


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    before = registrations()
    yield
    for kind, name, path in registrations():
        if (kind, name, path) not in before:
            REGISTRIES[kind].unregister(name)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Install packages that bring entry points only."""
    added: list[tuple[str, str]] = []

    def install(package: str, group: str, **points: str) -> None:
        info = tmp_path / f"{package.replace('-', '_')}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n", encoding="utf-8")
        lines = [f"[conpet.{group}]", *(f"{name} = {target}" for name, target in points.items())]
        (info / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")
        added.extend((group, name) for name in points)
        for registry in REGISTRIES.values():
            registry.refresh()

    monkeypatch.syspath_prepend(str(tmp_path))
    yield install
    for registry in REGISTRIES.values():
        for group, name in added:
            if registry.group == f"conpet.{group}" and not registry.is_builtin(name):
                registry.unregister(name)


def test_a_registered_name_and_its_path_pass_the_contract_in_another_process(tmp_path: Path) -> None:
    conpet.register("method", "by-path", "tests.test_registry:Plain")
    conpet.register("method", "plain", Plain)
    with registered("method", "by-path"), registered("method", "plain"):
        METHOD_CHECKS["reloaded_elsewhere"](
            *(Trial(tmp_path / name, tiny_settings(method=name)) for name in ("by-path", "plain"))
        )


def test_what_another_process_cannot_import_is_told_in_two_lines(tmp_path: Path, monkeypatch: Any) -> None:
    conpet.register("method", "plain", Plain)
    monkeypatch.setattr(Plain, "__module__", "tests.nowhere")
    with pytest.raises(ContractError, match="cannot be imported: ModuleNotFoundError") as caught:
        METHOD_CHECKS["reloaded_elsewhere"](Trial(tmp_path, tiny_settings(method="plain")))
    assert len(str(caught.value).splitlines()) == 2
    monkeypatch.setattr(Plain, "__module__", "__main__")
    for given in ("plain", Plain):
        with pytest.raises(ContractError, match="move the class to an importable module"):
            check_method_contract(given)


def test_an_entry_point_with_a_taken_name_is_ignored_with_a_warning(installed: Callable[..., None]) -> None:
    installed("first-package", "methods", mine="tests.test_registry:Plain")
    installed("second-package", "methods", emr="elsewhere:Emr")
    with pytest.warns(UserWarning, match="ignored") as caught:
        assert METHODS["emr"] is EmrMethod
    (message,) = (str(one.message) for one in caught)
    for part in ("elsewhere:Emr", "package second-package", "conpet.methods.emr:EmrMethod, from conpet"):
        assert part in message
    installed("third-package", "methods", mine="elsewhere:Mine")
    with pytest.warns(UserWarning, match="package first-package") as caught:
        list(METHODS)
    assert any("package third-package" in str(one.message) for one in caught)


def test_a_component_that_cannot_be_imported_is_told_and_left_out(installed: Callable[..., None]) -> None:
    installed("broken-package", "methods", broken="no_such_module:Method", absent="conpet.errors:Absent")
    for name, reason in (("broken", "ModuleNotFoundError"), ("absent", "AttributeError")):
        with pytest.raises(PluginError, match=f"method '{name}' .*package broken-package.* {reason}: .*Install what"):
            METHODS[name]
        with pytest.raises(PluginError, match="broken-package"):
            conpet.Settings.parse({"method": name})
    with pytest.warns(UserWarning, match="broken-package.*Left out here"):
        rows = describe_settings()
    meaning = next(row.meaning for row in rows if row.name == "method.name")
    assert "`emr`" in meaning
    assert "broken" not in meaning


@pytest.mark.parametrize(
    ("kind", "target", "message"),
    [
        ("method", not_a_class, "is a function: a method must be a class derived from conpet.methods.base.Method"),
        ("method", "tests.test_registry:not_a_class", "is a function"),
        ("selector", Plain, "is a class of another base: a selector must be a class derived from"),
        ("reader", 3, "is not a function"),
    ],
)
def test_what_a_component_must_be_is_told_on_first_use(kind: str, target: Any, message: str) -> None:
    conpet.register(kind, "odd", target)
    with pytest.raises(PluginError, match=message):
        REGISTRIES[kind]["odd"]


def test_a_workspace_whose_package_is_missing_says_so(tmp_path: Path) -> None:
    conpet.register("method", "plain", Plain)
    path = Trial(tmp_path, tiny_settings(method="plain")).workspace().path
    METHODS.unregister("plain")
    with pytest.raises(UnknownNameError, match=r"no method 'plain'.*may not be installed"):
        ConPET.open(path)


def test_a_reader_is_found_by_its_name_with_or_without_a_dot(tmp_path: Path) -> None:
    conpet.register("reader", ".Lines", text_lines)
    path = tmp_path / "answers.lines"
    path.write_text("yes\nno\n" * 5, encoding="utf-8")
    assert conpet.read_task(path).labels == ("no", "yes")
    with pytest.raises(ConfigError, match="already registered"):
        conpet.register("reader", "lines", failing)


def noting(path: Path) -> Iterator[RawRow | Note]:
    yield Note(str(path), "two sections are left out")
    yield from text_lines(path)


def test_notes_of_a_reader_are_those_of_the_task(tmp_path: Path) -> None:
    conpet.register("reader", "noted", noting)
    path = tmp_path / "answers.noted"
    path.write_text("yes\nno\n" * 5, encoding="utf-8")
    assert conpet.read_task(path, all_rows=True).notes == ("two sections are left out",)


def test_an_entry_point_of_a_reader_may_begin_with_a_dot(installed: Callable[..., None], tmp_path: Path) -> None:
    installed("lines-package", "readers", **{".lines": "tests.test_registry:text_lines"})
    path = tmp_path / "answers.lines"
    path.write_text("yes\nno\n" * 5, encoding="utf-8")
    assert conpet.read_task(path).labels == ("no", "yes")


def test_faults_of_a_reader_are_told(tmp_path: Path) -> None:
    path = tmp_path / "answers.odd"
    path.write_bytes(b"caf\xe9\n")
    for reader, error, message in (
        (dictionaries, PluginError, "reader 'odd' yielded dict, not RawRow, Problem or Note"),
        (failing, PluginError, r"answers\.odd: .*'odd' \(tests\.test_registry:failing.* failed: KeyError"),
        (text_lines, DataError, r"answers\.odd: is not UTF-8 text; save it as UTF-8 \(byte 4\)"),
    ):
        conpet.register("reader", "odd", reader)
        with pytest.raises(error, match=message):
            conpet.read_task(path)
        REGISTRIES["reader"].unregister("odd")


def test_a_class_of_a_script_is_refused_by_the_checks(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import conpet\n"
        "from conpet.methods.emr import EmrMethod\n"
        "from conpet.testing import check_method_contract\n"
        "class Mine(EmrMethod):\n"
        "    name = 'mine'\n"
        "conpet.register('method', 'mine', Mine)\n"
        "check_method_contract('mine')\n",
        encoding="utf-8",
    )
    with pytest.raises(ContractError, match="Mine is defined in __main__"):
        runpy.run_path(str(script), run_name="__main__")


def test_within_a_task_that_gets_no_score_all_labels_are_equal(tmp_path: Path) -> None:
    conpet.register("method", "plain", Plain)
    stream = toy_stream(2, 2, 4, 0, 2)
    workspace = Trial(tmp_path, tiny_settings(method="plain")).taught(stream)
    _check_uniform(workspace, stream)


def _check_uniform(workspace: ConPET, stream: Any) -> None:
    import torch

    from conpet.methods.base import Scores
    from conpet.testing import live_of

    live = live_of(workspace)
    method, state = live.method, live.state
    task = stream[1]
    inputs = method.encode(state, task.test, task.kind, keep=False)
    scores = method.score(state, inputs, task.kind).classes
    scores[0, 2:] = -torch.inf
    method.score = lambda *_: Scores(scores)  # type: ignore[method-assign]
    within = method.within_task(state, inputs, torch.full((len(task.test),), 1))
    assert not within.isnan().any()
    torch.testing.assert_close(within.exp().sum(dim=1), torch.ones(len(task.test)))
    torch.testing.assert_close(within[0, 2:].exp(), torch.full((2,), 0.5))
    assert (within[:, :2] == -torch.inf).all()


def test_the_settings_class_of_every_component_is_the_same_with_and_without_importing_it() -> None:
    for _, choice in COMPONENTS:
        for name in choice.registry:
            assert choice.config_of(name) is getattr(choice.registry[name], "Config", choice.base), name
