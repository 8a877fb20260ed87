"""`conpet init` and `conpet learn`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from conpet.cli.changes import extend_tasks, teach
from conpet.cli.console import line, messages, output, print_error
from conpet.cli.options import BackboneMoved, Device, NoEvaluate, Wait, WorkspacePath
from conpet.cli.workspace import open_workspace
from conpet.cost import Meter, metered
from conpet.fusion import FUSIONS
from conpet.methods import METHODS
from conpet.modules.kinds import MODULE_KINDS
from conpet.replay import SCHEDULES
from conpet.selectors import SELECTORS

if TYPE_CHECKING:
    from conpet.api import ConPET
    from conpet.cost import Meter
    from conpet.data import Task
    from conpet.methods.base import Method


def _setting(words: str) -> Any:
    return typer.Option(help=words, rich_help_panel="Common settings", show_default=False)


def init(
    workspace: Annotated[Path, typer.Argument(metavar="WORKSPACE", help="Folder to make it in: new, or empty.")],
    backbone: Annotated[
        str,
        typer.Option(help="smollm2-135m, minilm-l6, tiny-random, a folder in Hugging Face format, or a hub id."),
    ] = "smollm2-135m",
    method: Annotated[str, typer.Option(help=f"How tasks are learned: {', '.join(METHODS)}.")] = "dynamic",
    frozen_layers: Annotated[int | None, _setting("Layers at the bottom that carry no modules.")] = None,
    module: Annotated[str | None, _setting(f"Kind of PET module: {', '.join(MODULE_KINDS)}.")] = None,
    rank: Annotated[int | None, _setting("Rank of the LoRA modules.")] = None,
    epochs: Annotated[int | None, _setting("Passes over a task's examples.")] = None,
    learning_rate: Annotated[float | None, _setting("Highest learning rate of the modules.")] = None,
    selector: Annotated[str | None, _setting(f"What finds an input's task: {', '.join(SELECTORS)}.")] = None,
    top_k: Annotated[int | None, _setting("Number of modules run for an input.")] = None,
    fusion: Annotated[str | None, _setting(f"How scores become one ranking: {', '.join(FUSIONS)}.")] = None,
    replay: Annotated[str | None, _setting(f"How past examples are drawn: {', '.join(SCHEDULES)}.")] = None,
    dtype: Annotated[str | None, _setting("Number format: auto, float32, bfloat16 or float16.")] = None,
    device: Annotated[str | None, _setting("Device: auto, cpu, cuda, cuda:1, ...")] = None,
    seed: Annotated[int | None, _setting("Seed of everything random.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Any setting by its dotted name (module.alpha=32), its value in YAML; may be repeated. "
            "`conpet settings` lists them.",
        ),
    ] = None,
) -> None:
    """Make an empty workspace around a frozen backbone."""
    direct = {
        "backbone.name": backbone,
        "method.name": method,
        "backbone.frozen_layers": frozen_layers,
        "module.kind": module,
        "module.rank": rank,
        "training.epochs": epochs,
        "training.learning_rate": learning_rate,
        "selector.name": selector,
        "selector.top_k": top_k,
        "fusion.name": fusion,
        "replay.schedule": replay,
        "backbone.dtype": dtype,
        "backbone.device": device,
        "seed": seed,
    }
    given = _merged({name: value for name, value in direct.items() if value is not None}, settings or [])
    from conpet.api import ConPET

    created = ConPET.create(workspace, progress=lambda said: line(said, messages()), **given)
    _say_created(created, workspace, given)


def learn(
    workspace: WorkspacePath,
    source: Annotated[
        Path,
        typer.Argument(
            metavar="TASK_OR_STREAM",
            help="A JSONL, CSV or Parquet file; a folder with train, validation and test files; or a folder of such.",
            show_default=False,
        ),
    ],
    name: Annotated[
        str | None, typer.Option(help="Name of the task.", show_default="that of its file or folder")
    ] = None,
    template: Annotated[
        str | None, typer.Option(help="Template of the task in place of its kind's own.", show_default=False)
    ] = None,
    extend: Annotated[
        bool,
        typer.Option("--extend", help="More examples of labels learned already: their tasks get new versions."),
    ] = False,
    batch: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Learn N tasks of a stream in one change: many small ones take much less time so.",
        ),
    ] = 1,
    no_evaluate: NoEvaluate = False,
    wait: Wait = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Seed by which missing test sets are split off.", show_default="the workspace's"),
    ] = None,
    all_rows: Annotated[
        bool,
        typer.Option("--all-rows", help="Learn from every row: no validation and test sets are split off."),
    ] = False,
    backbone: BackboneMoved = None,
    device: Device = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="List every wrong row of the data, however many.")
    ] = False,
) -> None:
    """Learn a task, or a stream of tasks one after another.

    All data is checked before anything is learned.
    A task already learned from the same data is skipped; a changed one becomes a new version.
    With --batch tasks are learned N at a time, each N of them or none, and evaluated after every N.
    With --extend all rows of a file are learned from, beside what is stored of their tasks; nothing is split off.
    With --all-rows nothing is split off either: every row is learned from, and accuracy is only known of what has a
    test file of its own.
    Interrupt it whenever you like: the same command goes on where it was.
    """
    from conpet.errors import DataError

    if extend and batch > 1:
        raise typer.BadParameter("tasks are extended one by one: leave one of the two out", param_hint="--batch")
    if extend and (name is not None or template is not None or seed is not None or all_rows):
        raise typer.BadParameter("tasks that are learned keep their name, template and split", param_hint="--extend")
    opened = open_workspace(workspace, backbone, device)
    try:
        if extend:
            extend_tasks(opened, source, evaluate=not no_evaluate, wait=wait)
            return
        split = {"seed": opened.settings.seed if seed is None else seed, "all_rows": all_rows}
        tasks = _read(opened, source, name, template, split)
    except DataError as error:
        if not verbose:
            raise
        print_error(error, everything=True)
        raise typer.Exit(1) from None
    opened.check(tasks)
    _say_notes(opened, tasks)
    with metered() as costs:
        teach(opened, tasks, batch=batch, evaluate=not no_evaluate, wait=wait)
    _say_learned(opened, workspace, costs)


_WHOLE = {
    "backbone": "backbone.name",
    "method": "method.name",
    "module": "module.kind",
    "selector": "selector.name",
    "fusion": "fusion.name",
    "replay": "replay.schedule",
}
"""What a section stands for where it is given a single value."""


def _merged(direct: dict[str, Any], assignments: list[str]) -> dict[str, Any]:
    import yaml

    given = dict(direct)
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        name = name.strip().replace("-", "_")
        name = _WHOLE.get(name, name)
        if not equals or not name:
            raise typer.BadParameter(f"{assignment!r} is not KEY=VALUE", param_hint="--set")
        if name in given:
            raise typer.BadParameter(f"{name} is given twice, or has an option of its own", param_hint="--set")
        try:
            given[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise typer.BadParameter(f"{assignment!r}: the value is not YAML", param_hint="--set") from None
    return given


def _read(
    workspace: ConPET, source: Path, name: str | None, template: str | None, split: Mapping[str, Any]
) -> list[Task]:
    from conpet.data import read_stream, read_task

    if name is None and template is None:
        return list(read_stream(source, owned=workspace.owners, **split))
    return [read_task(source, name=name, template=template, owned=workspace.owners, **split)]


def _say_created(created: ConPET, path: Path, given: Iterable[str]) -> None:
    from conpet.report import text

    settings, learner = created.settings, METHODS[created.settings.method.name]
    backbone = created.store.header().backbone
    layers, frozen = backbone["layers"], backbone["frozen_layers"]
    cut = f"modules sit on its top {layers - frozen} of {layers} layers" if layers else "modules sit on all its layers"
    line(f"{created.path}: an empty workspace, method {settings.method.name}")
    line(
        f"backbone {backbone['name']}: {text.short_count(backbone['parameters'])} parameters in {backbone['dtype']}, "
        f"frozen{f'; {cut}' if learner.tunes else ''}"
    )
    _say_of_kinds(learner, [settings.module.kind])
    unused = learner.unused_sections(settings)
    if idle := sorted(key for key in given if key.partition(".")[0] in unused):
        line(f"method {settings.method.name} does not use: {', '.join(idle)}")
    line(f"next: conpet learn {path} TASK_OR_STREAM", style="dim")


def _say_of_kinds(learner: type[Method], names: Iterable[str]) -> None:
    """Say what users should know of kinds of modules, if different modules may meet in one pass."""
    from conpet.modules.kinds import MODULE_KINDS

    for name in names if "selector" in learner.sections else ():
        if MODULE_KINDS[name].note:
            line(MODULE_KINDS[name].note)


def _say_notes(workspace: ConPET, tasks: list[Task]) -> None:
    known = {task.name: task.active.digest for task in workspace.tasks}
    for task in tasks:
        for note in task.notes if known.get(task.name) != task.digest else ():
            line(f"{task.name}: {note}")
    # Of the workspace's own kind `init` has spoken.
    settings = workspace.settings
    kinds = dict.fromkeys(settings.for_task(task.settings).module.kind for task in tasks)
    kinds.pop(settings.module.kind, None)
    _say_of_kinds(METHODS[settings.method.name], kinds)


def _say_learned(workspace: ConPET, path: Path, costs: Meter) -> None:
    from conpet.report import text

    out = output()
    if costs.cache_lookups:
        line(f"states from the cache: {text.percent(costs.hit_rate)} of {costs.cache_lookups:,}", out)
    labels = text.plural(len(workspace.labels), "label")
    line(f"{path} knows {labels} in {text.plural(len(workspace.tasks), 'task')}", out)
    line(f'next: conpet predict {path} "some text"   or: conpet report {path}', out, "dim")
