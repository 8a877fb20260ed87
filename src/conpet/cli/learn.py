"""`conpet init` and `conpet learn`."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from conpet.cli.changes import extend_tasks, learn_mixed_parts, print_next, teach
from conpet.cli.console import line, messages, output, print_error
from conpet.cli.options import (
    BackboneMoved,
    Device,
    Encoding,
    IdColumn,
    InclusiveEnds,
    InputFormat,
    LabelColumn,
    NoEvaluate,
    NoGate,
    Sheet,
    TextColumn,
    Wait,
    assignments,
    reading,
    require_path,
)
from conpet.cli.plan import print_plan
from conpet.cli.remote import Key, RemoteTask, Server, learn_remotely, open_client
from conpet.cli.workspace import open_workspace
from conpet.config import DEFAULT_BACKBONE, Settings
from conpet.cost import Meter, metered
from conpet.errors import ConfigError
from conpet.evaluation.composite import require_prices
from conpet.fusion import FUSIONS
from conpet.methods import METHODS
from conpet.modules.kinds import MODULE_KINDS
from conpet.replay import SCHEDULES
from conpet.selectors import SELECTORS

if TYPE_CHECKING:
    from conpet.api import ConPET
    from conpet.commands.prepare import TaskOptions
    from conpet.data import Task
    from conpet.methods.base import Method


def _setting(meaning: str) -> Any:
    return typer.Option(help=meaning, rich_help_panel="Common settings", show_default=False)


def _named(name: str | None) -> str | None:
    if name is not None and not name.strip():
        raise typer.BadParameter("a task needs a name: give one, or leave the option out")
    return name


def init(
    workspace: Annotated[Path, typer.Argument(metavar="WORKSPACE", help="Folder of the workspace: new or empty.")],
    backbone: Annotated[
        str,
        typer.Option(
            help="minilm-l6, smollm2-135m, mpnet-base, e5-small-multilingual, tiny-random, a folder in Hugging Face "
            "format, or a hub id."
        ),
    ] = DEFAULT_BACKBONE,
    method: Annotated[str, typer.Option(help=f"Learning method: {', '.join(METHODS)}.")] = "dynamic",
    frozen_layers: Annotated[int | None, _setting("Number of bottom layers without modules.")] = None,
    module: Annotated[str | None, _setting(f"Kind of PET module: {', '.join(MODULE_KINDS)}.")] = None,
    rank: Annotated[int | None, _setting("Rank of the LoRA modules.")] = None,
    epochs: Annotated[int | None, _setting("Passes over a task's examples.")] = None,
    learning_rate: Annotated[float | None, _setting("Peak learning rate.")] = None,
    selector: Annotated[str | None, _setting(f"How the task of an input is found: {', '.join(SELECTORS)}.")] = None,
    top_k: Annotated[int | None, _setting("Number of modules to run per input.")] = None,
    fusion: Annotated[str | None, _setting(f"How scores are combined into one ranking: {', '.join(FUSIONS)}.")] = None,
    replay: Annotated[str | None, _setting(f"Replay schedule: {', '.join(SCHEDULES)}.")] = None,
    dtype: Annotated[str | None, _setting("Number format: auto, float32, bfloat16 or float16.")] = None,
    device: Annotated[str | None, _setting("Device: auto, cpu, cuda, cuda:1, ...")] = None,
    seed: Annotated[int | None, _setting("Seed of all random choices.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Any setting by its dotted name, with its value in YAML (module.alpha=32); may be repeated. "
            "`conpet settings` lists them.",
        ),
    ] = None,
) -> None:
    """Create an empty workspace for a frozen backbone."""
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
    options = _merged({name: value for name, value in direct.items() if value is not None}, settings or [])
    from conpet.commands.create import new_settings

    new_settings(workspace, Settings(), options)  # before torch is imported, which takes seconds
    from conpet.api import ConPET

    created = ConPET.create(workspace, progress=lambda message: line(message, messages()), **options)
    _print_created(created, workspace, options)


def learn(
    workspace: Annotated[
        Path,
        typer.Argument(metavar="WORKSPACE", help="Folder of the workspace; none with --server.", show_default=False),
    ],
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="TASK_OR_STREAM",
            help="A data file (JSONL, CSV, Excel, Parquet, Rasa, ...); a folder with train, validation and test files; "
            "or a folder of these. - reads standard input: JSON lines, or the format named by --input-format.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(callback=_named, help="Name of the task.", show_default="the name of its file or folder"),
    ] = None,
    template: Annotated[
        str | None, typer.Option(help="Template of the task, instead of the default of its kind.", show_default=False)
    ] = None,
    extend: Annotated[
        bool,
        typer.Option("--extend", help="Learn more examples of known labels: their tasks get new versions."),
    ] = False,
    mixed: Annotated[
        bool,
        typer.Option(
            "--mixed",
            help="Learn known and new labels: the tasks of known ones get new versions, new ones become a new task.",
        ),
    ] = False,
    into: Annotated[
        str | None,
        typer.Option(
            metavar="TASK", help="With --mixed: the known task that new labels are added to.", show_default=False
        ),
    ] = None,
    batch: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Learn N tasks of a stream in one change; much faster for many small tasks.",
        ),
    ] = 1,
    consolidate: Annotated[
        str | None,
        typer.Option(
            metavar="doubling",
            help="Consolidate whenever the number of training examples has doubled (`conpet consolidate`).",
            show_default=False,
        ),
    ] = None,
    needed_since: Annotated[
        str | None,
        typer.Option(
            metavar="DATE",
            help="Day from which the new labels were needed (2026-11-02); the delay counts in `conpet cost`.",
            show_default=False,
        ),
    ] = None,
    no_evaluate: NoEvaluate = False,
    no_gate: NoGate = False,
    wait: Wait = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Seed for splitting off missing test sets.", show_default="the workspace's"),
    ] = None,
    all_rows: Annotated[
        bool,
        typer.Option("--all-rows", help="Learn from every row: split off no validation and test sets."),
    ] = False,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    id_column: IdColumn = None,
    encoding: Encoding = None,
    input_format: InputFormat = None,
    inclusive_ends: InclusiveEnds = False,
    sheet: Sheet = None,
    fix: Annotated[
        bool,
        typer.Option("--fix", help="Leave out or change wrong rows, as `conpet data check --fix` does, then learn."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be learned, and the time and memory it takes; do nothing.")
    ] = False,
    backbone: BackboneMoved = None,
    device: Device = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="List every wrong row of the data.")] = False,
    server: Server = None,
    key: Key = None,
) -> None:
    """Learn a task, or a stream of tasks one after another.

    All data is checked before anything is learned, also against the examples of earlier tasks.
    With --fix, wrong rows are left out; the list is stored with the task (`conpet modules show`).
    Tasks already learned from the same data are skipped; if the data changed, a new version is learned.
    With --batch, tasks are learned N at a time: each batch is committed and evaluated as a whole.
    With --consolidate doubling, the backbone is tuned on all examples each time their number has doubled.
    With --extend, all rows are added to the stored examples of their tasks; no test set is split off.
    With --mixed, rows of known labels are added to their tasks, and the new labels become a task named after the file.
    With --all-rows, every row is learned from; accuracy is measured only where there is a test file.
    An interrupted command resumes when it is run again.
    If earlier answers would get worse, nothing is changed and the result is kept as a candidate (`conpet gate`).
    With --server, the server checks the data and learns it; an interrupted command only stops following.
    """
    from conpet.errors import DataError

    needed = _day(needed_since)
    _check_modes(extend=extend, mixed=mixed, into=into, batch=batch, consolidate=consolidate)
    own = name is not None or template is not None or seed is not None or all_rows
    _check_own(extend=extend, own=own, into=into, named=name is not None or template is not None)
    options = reading(
        text=text_column,
        label=label_column,
        identifier=id_column,
        encoding=encoding,
        form=input_format,
        inclusive_ends=inclusive_ends,
        sheet=sheet,
    )
    if source is None and server is None:
        raise typer.BadParameter("give a workspace and the data, or --server URL", param_hint="TASK_OR_STREAM")
    if source is not None and server is not None:
        raise typer.BadParameter("with --server, give only the data: the server has the workspace")
    data = workspace if source is None else source
    _check_stdin(data, name=name, known=extend or into is not None)
    require_path(data, "nothing was learned")
    try:
        if server is not None:
            local = {
                "mixed": mixed or None,
                "fix": fix or None,
                "dry_run": dry_run or None,
                "consolidate": consolidate,
            }
            client = open_client(server, key, **local, wait=wait, backbone=backbone, device=device)
            how = RemoteTask(name, template, extend, batch, seed, all_rows, needed, not no_evaluate, not no_gate)
            learn_remotely(client, data, options, how)
            return
        opened = open_workspace(workspace, backbone, device, to_change=not dry_run)
        from conpet.commands.prepare import TaskOptions  # imports torch
        from conpet.data.quality.rows import Mode

        split_seed = opened.settings.seed if seed is None else seed
        mode = Mode.EXTEND if extend else Mode.MIXED if mixed else Mode.NEW
        prepared = TaskOptions(
            name, template, None if all_rows else split_seed, options, fix, dry_run, mode=mode, into=into
        )
        if mode is not Mode.NEW:
            learning = {"evaluate": not no_evaluate, "gate": not no_gate, "needed_since": needed, "wait": wait}
            _learn_more(opened, data, prepared, **learning)
            if not dry_run:
                print_next(opened, workspace)
            return
        tasks = _read(opened, data, prepared)
    except DataError as error:
        if not verbose:
            raise
        print_error(error, everything=True)
        raise typer.Exit(1) from None
    opened.check(tasks)
    _check_consolidates(opened, consolidate)
    _print_notes(opened, tasks)
    if dry_run:
        print_plan(opened, tasks, evaluate=not no_evaluate)
        return
    with metered() as costs:
        teach(
            opened,
            tasks,
            batch=batch,
            consolidate=consolidate is not None,
            evaluate=not no_evaluate,
            gate=not no_gate,
            needed_since=needed,
            wait=wait,
        )
    _print_learned(opened, workspace, costs)
    print_next(opened, workspace, may_consolidate=not consolidate)


def _day(given: str | None) -> date | None:
    """Return the day of --needed-since."""
    if given is None:
        return None
    try:
        day = date.fromisoformat(given)
    except ValueError:
        raise typer.BadParameter(f"{given!r} is not a day like 2026-11-02", param_hint="--needed-since") from None
    if day > datetime.now(UTC).date():
        raise typer.BadParameter(f"{day} is in the future", param_hint="--needed-since")
    return day


def _check_own(*, extend: bool, own: bool, into: str | None, named: bool) -> None:
    """Refuse what describes a new task where there is none.

    Args:
        extend: The option.
        own: Whether a name, template, seed or split was given.
        into: The option.
        named: Whether a name or template was given.
    """
    if extend and own:
        raise typer.BadParameter(
            "a task keeps its name, template and test split: leave out --name, --template, --seed and --all-rows",
            param_hint="--extend",
        )
    if into is not None and named:
        raise typer.BadParameter("there is no new task to name: leave out --name and --template", param_hint="--into")


def _check_stdin(source: Path, *, name: str | None, known: bool) -> None:
    """Refuse a new task from standard input without a name.

    Args:
        source: The data.
        name: The option.
        known: Whether all examples become part of known tasks.
    """
    from conpet.data.source import is_stdin

    if is_stdin(source) and name is None and not known:
        raise typer.BadParameter("a task from standard input needs a name: give --name NAME", param_hint="--name")


def _check_modes(*, extend: bool, mixed: bool, into: str | None, batch: int, consolidate: str | None) -> None:
    """Refuse options that exclude each other."""
    if extend and mixed:
        raise typer.BadParameter("--mixed includes --extend; give only one of them", param_hint="--mixed")
    if into is not None and not mixed:
        raise typer.BadParameter("only --mixed adds new labels to a known task", param_hint="--into")
    mode = "--extend" if extend else "--mixed" if mixed else None
    if mode and batch > 1:
        raise typer.BadParameter(f"give either {mode} or --batch", param_hint="--batch")
    if consolidate not in (None, "doubling"):
        raise typer.BadParameter(f"{consolidate!r}: give `doubling`, or leave it out", param_hint="--consolidate")
    if mode and consolidate:
        raise typer.BadParameter(
            f"{mode} does not consolidate; use `conpet consolidate` afterwards", param_hint="--consolidate"
        )


_FIRST_KEYS = {
    "backbone": "backbone.name",
    "method": "method.name",
    "module": "module.kind",
    "selector": "selector.name",
    "fusion": "fusion.name",
    "replay": "replay.schedule",
}
"""The setting meant by a section name with a single value (`module=ia3`)."""


def _merged(direct: dict[str, Any], given: list[str]) -> dict[str, Any]:
    options = dict(direct)
    for name, value in assignments(given, _FIRST_KEYS).items():
        if name in options:
            raise typer.BadParameter(f"{name} is given twice, or also by its own option", param_hint="--set")
        options[name] = value
    return options


def _check_consolidates(workspace: ConPET, consolidate: str | None) -> None:
    from conpet.commands.checks import consolidation_blocker
    from conpet.errors import ConfigError

    blocker = consolidation_blocker(workspace.settings) if consolidate else None
    if blocker:
        raise ConfigError(f"--consolidate doubling: {blocker}. Nothing was learned")


def _read(workspace: ConPET, source: Path, options: TaskOptions) -> list[Task]:
    from conpet.commands.prepare import prepare_tasks

    return prepare_tasks(source, workspace.store.snapshot(), workspace.backbone, options)


def _learn_more(workspace: ConPET, source: Path, options: TaskOptions, **learning: Any) -> None:
    """Learn examples of which some have known labels, or print what that would do; `learning` as in `extend_tasks`."""
    from conpet.commands.mixed import MixedOptions, planned
    from conpet.commands.prepare import prepare_examples
    from conpet.data.quality.rows import Mode

    snapshot = workspace.store.snapshot()
    if options.into is not None:
        snapshot.task(options.into)  # raises an error that names the tasks
    parts, notes = prepare_examples(source, snapshot, workspace.backbone, options)
    for note in notes:
        line(note)
    if options.dry_run:
        additions, tasks = planned(snapshot, workspace.settings, parts, MixedOptions(options.into, options.seed))
        for addition in additions:
            line(str(addition))
        print_plan(workspace, tasks, evaluate=learning["evaluate"])
    elif options.mode is Mode.EXTEND:
        extend_tasks(workspace, parts, **learning)
    else:
        split: dict[str, Any] = {"into": options.into, "seed": options.seed, "all_rows": options.seed is None}
        learn_mixed_parts(workspace, parts, **learning, **split)


def _print_created(created: ConPET, path: Path, options: Iterable[str]) -> None:
    from conpet.report import text

    settings, learner = created.settings, METHODS[created.settings.method.name]
    backbone = created.store.header().backbone
    layers, frozen = backbone["layers"], backbone["frozen_layers"]
    where = f"modules on its top {layers - frozen} of {layers} layers" if layers else "modules on all its layers"
    line(f"{created.path}: an empty workspace, method {settings.method.name}")
    line(
        f"backbone {backbone['name']}: {text.short_count(backbone['parameters'])} parameters in {backbone['dtype']}, "
        f"frozen{f'; {where}' if learner.tunes else ''}"
    )
    _print_kind_notes(learner, [settings.module.kind])
    unused = learner.unused_sections(settings)
    if ignored := sorted(key for key in options if key.partition(".")[0] in unused):
        line(f"method {settings.method.name} does not use: {', '.join(ignored)}")
    if settings.gate.objective == "composite":
        try:
            require_prices(settings.prices, "gate.objective=composite")
        except ConfigError as missing:
            line(f"nothing can be learned yet: {missing}", messages(), "yellow")
    line(f"next: conpet learn {path} TASK_OR_STREAM", style="dim")


def _print_kind_notes(learner: type[Method], names: Iterable[str]) -> None:
    """Print the notes of module kinds, for methods that mix modules in one pass."""
    from conpet.modules.kinds import MODULE_KINDS

    for name in names if "selector" in learner.sections else ():
        if MODULE_KINDS[name].note:
            line(MODULE_KINDS[name].note)


def _print_notes(workspace: ConPET, tasks: list[Task]) -> None:
    known = {task.name: task.active.digest for task in workspace.tasks}
    for task in tasks:
        for note in task.notes if known.get(task.name) != task.digest else ():
            line(f"{task.name}: {note}")
    # `init` has printed the note of the workspace's own kind.
    settings = workspace.settings
    kinds = dict.fromkeys(settings.for_task(task.settings).module.kind for task in tasks)
    kinds.pop(settings.module.kind, None)
    _print_kind_notes(METHODS[settings.method.name], kinds)


def _print_learned(workspace: ConPET, path: Path, costs: Meter) -> None:
    from conpet.report import text

    out = output()
    if costs.cache_lookups:
        line(f"states from the cache: {text.percent(costs.hit_rate)} of {costs.cache_lookups:,}", out)
    labels = text.plural(len(workspace.labels), "label")
    line(f"{path} knows {labels} in {text.plural(len(workspace.tasks), 'task')}", out)
