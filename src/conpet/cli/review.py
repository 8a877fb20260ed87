"""`conpet review`: look at answers, correct them, estimate their accuracy, and learn what was reviewed."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from conpet.cli.changes import run_change
from conpet.cli.console import line, messages, print_json
from conpet.cli.help import App
from conpet.cli.options import (
    AsJson,
    BackboneMoved,
    Device,
    Encoding,
    InclusiveEnds,
    InputFormat,
    LabelColumn,
    LogFolder,
    NoEvaluate,
    NoGate,
    Sheet,
    TextColumn,
    Wait,
    WorkspacePath,
    Yes,
    reading,
    require_path,
)
from conpet.cli.workspace import open_workspace
from conpet.errors import ConfigError, plural
from conpet.files import require_writable_file, written_aside

if TYPE_CHECKING:
    from conpet.review.estimate import Estimate, ReviewAccuracy
    from conpet.review.records import Imported, ReviewItem, ReviewPlan, ReviewStatus
    from conpet.review.review import Review

app = App(
    help="Review answers: draw, correct, estimate the accuracy, and learn what was reviewed.", no_args_is_help=True
)
_HELD = 10
"""Most items that cannot be learned that are listed."""
Reviewer = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Who reviews.", show_default="CONPET_ACTOR, or the user of this process"),
]
Item = Annotated[int, typer.Argument(metavar="ITEM", min=1, help="Number of the item.", show_default=False)]
Double = Annotated[
    float, typer.Option(metavar="SHARE", min=0, max=1, help="Share of new items that two people review.")
]


def _review(workspace: Path, log_to: Path | None) -> Review:
    from conpet.review.review import Review
    from conpet.store import Store
    from conpet.store.prediction_log import PredictionLog

    store = Store.open(workspace)
    return Review(store, PredictionLog(store.path, log_to))


@app.command()
def status(workspace: WorkspacePath, log_to: LogFolder = None, as_json: AsJson = False) -> None:
    """Show what waits, who has reviewed how much, and how far reviewers agree."""
    found = _review(workspace, log_to).status()
    if as_json:
        print_json(found.to_json())
    else:
        _print_status(found, workspace)


@app.command()
def draw(
    workspace: WorkspacePath,
    random: Annotated[
        int, typer.Option(metavar="N", min=0, help="Answers drawn from all, for an unbiased accuracy.")
    ] = 50,
    uncertain: Annotated[
        int, typer.Option(metavar="N", min=0, help="More of those that were questions, or little certain.")
    ] = 25,
    declined: Annotated[int, typer.Option(metavar="N", min=0, help="More of those that were declined.")] = 25,
    below: Annotated[
        float, typer.Option(metavar="SHARE", min=0, max=1, help="Confidence below which an answer is uncertain.")
    ] = 0.5,
    double: Double = 0.0,
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME|AGE", help="Only predictions from then on: 2026-11-29, or 30d.", show_default=False),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the draw.", show_default="a random one")] = None,
    log_to: LogFolder = None,
    as_json: AsJson = False,
) -> None:
    """Draw from the predictions recorded since the last draw (`conpet audit log WORKSPACE --predictions text`).

    All answers have the same chance to be drawn at random, and those in doubt have a greater one in all. Both chances
    are known, so `conpet review accuracy` is unbiased.
    """
    from conpet.config.duration import moment_of

    start = None if since is None else moment_of(since, "--since")
    found = _review(workspace, log_to).draw(
        random=random, uncertain=uncertain, declined=declined, below=below, double=double, since=start, seed=seed
    )
    if as_json:
        print_json(found.to_json())
        return
    if found.batch is None:
        line("nothing to draw: no predictions were recorded since the last draw")
    else:
        line(str(found))
    if found.unreadable:
        line(f"{plural(found.unreadable, 'prediction')} left out: recorded without the input", messages(), "yellow")
    if found.unlabelled:
        line(f"{plural(found.unlabelled, 'prediction')} left out: of tasks without labels", messages())


@app.command("next")
def next_(
    workspace: WorkspacePath,
    reviewer: Reviewer = None,
    kind: Annotated[
        str | None,
        typer.Option(
            metavar="KIND", help="Only reported, random, uncertain, declined or imported items.", show_default=False
        ),
    ] = None,
    minutes: Annotated[float, typer.Option(min=0.1, max=1440, help="How long the item stays with the reviewer.")] = 15,
    candidates: Annotated[
        int, typer.Option(metavar="N", min=0, help="Show so many present answers to choose from; loads the model.")
    ] = 0,
    log_to: LogFolder = None,
    as_json: AsJson = False,
    backbone: BackboneMoved = None,
    device: Device = None,
) -> None:
    """Take the next item, which nobody else gets meanwhile; then say what is right with `conpet review answer`.

    A reviewer who has an item already gets it again.
    """
    from dataclasses import replace

    item = _review(workspace, log_to).next(reviewer, kind=kind, lease_seconds=60 * minutes)
    if item is not None and candidates:
        with open_workspace(workspace, backbone, device) as opened:
            item = replace(item, candidates=opened.propose(item.example, top_n=candidates))
    if as_json:
        print_json(None if item is None else item.to_json())
    elif item is None:
        line("nothing waits for review")
    else:
        _print_item(item, workspace)


@app.command()
def answer(
    workspace: WorkspacePath,
    item: Item,
    confirm: Annotated[bool, typer.Option("--confirm", help="The answer is right, also if it was to decline.")] = False,
    label: Annotated[
        str | None, typer.Option(metavar="LABEL", help="This learned label is right.", show_default=False)
    ] = None,
    new: Annotated[
        str | None,
        typer.Option(metavar="LABEL", help="This label is right; it is not learned yet.", show_default=False),
    ] = None,
    none: Annotated[bool, typer.Option("--none", help="Nothing learned fits.")] = False,
    skip: Annotated[bool, typer.Option("--skip", help="Leave it to others.")] = False,
    note: Annotated[str, typer.Option(metavar="TEXT", help="A note for others.", show_default=False)] = "",
    seconds: Annotated[
        float | None,
        typer.Option(min=0, help="Time that it took, for the costs.", show_default="since the item was taken"),
    ] = None,
    reviewer: Reviewer = None,
    log_to: LogFolder = None,
    as_json: AsJson = False,
) -> None:
    """Say what is right for an item: one of --confirm, --label, --new, --none and --skip."""
    given = {"confirm": confirm, "correct": label is not None, "new": new is not None, "none": none, "skip": skip}
    chosen = [verdict for verdict, is_given in given.items() if is_given]
    if len(chosen) != 1:
        raise typer.BadParameter("give one of --confirm, --label, --new, --none and --skip", param_hint="--confirm")
    name = label if label is not None else new
    options: dict[str, Any] = {"reviewer": reviewer, "note": note, "seconds": seconds}
    done = _review(workspace, log_to).answer(item, chosen[0], name, **options)
    _print_answered(done, as_json=as_json)


@app.command()
def undo(
    workspace: WorkspacePath, reviewer: Reviewer = None, log_to: LogFolder = None, as_json: AsJson = False
) -> None:
    """Take back the last verdict of a reviewer, who has the item again."""
    item = _review(workspace, log_to).undo(reviewer)
    if as_json:
        print_json(item.to_json())
    else:
        line(f"item {item.id}: the verdict is taken back")


@app.command()
def report(
    workspace: WorkspacePath,
    text: Annotated[
        str | None,
        typer.Argument(metavar="TEXT", help="The text that was answered wrongly.", show_default=False),
    ] = None,
    request: Annotated[
        str | None,
        typer.Option(
            metavar="ID[/N]", help="`request_id` of the answer, with the number of the input.", show_default=False
        ),
    ] = None,
    label: Annotated[
        str | None, typer.Option(metavar="LABEL", help="The right label, if known.", show_default=False)
    ] = None,
    note: Annotated[str, typer.Option(metavar="TEXT", help="What is wrong.", show_default=False)] = "",
    reporter: Reviewer = None,
    log_to: LogFolder = None,
    as_json: AsJson = False,
) -> None:
    """Report an answer as wrong: it is reviewed before all others."""
    found = _review(workspace, log_to)
    identifier, _, place = (request or "").partition("/")
    if place and not (place.isdecimal() and int(place)):
        raise ConfigError(f"--request {request}: after the slash comes the number of the input, from 1")
    item, waits = found.report(
        text,
        request_id=identifier or None,
        place=int(place or 1),
        label=label,
        note=note,
        reporter=found.reviewer(reporter),
    )
    if as_json:
        print_json(item.to_json() | {"waits": waits})
    elif waits:
        line(f"item {item.id}: reported, and waits for review")
    else:
        line(f"item {item.id}: was reviewed already; its right label is {item.right or 'none of those learned'}")


@app.command()
def accuracy(
    workspace: WorkspacePath,
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME|AGE", help="Only answers from then on: 2026-11-29, or 30d.", show_default=False),
    ] = None,
    log_to: LogFolder = None,
    as_json: AsJson = False,
) -> None:
    """Show the accuracy of all recorded answers, estimated from those that were drawn and reviewed."""
    from conpet.config.duration import moment_of

    found = _review(workspace, log_to).accuracy(None if since is None else moment_of(since, "--since"))
    if as_json:
        print_json(found.to_json())
    else:
        _print_accuracy(found, workspace)


@app.command()
def learn(
    workspace: WorkspacePath,
    into: Annotated[
        str | None, typer.Option(metavar="TASK", help="Known task that gets new labels.", show_default=False)
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="TASK", help="Name of a new task for new labels.", show_default=False)
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be learned; change nothing.")] = False,
    yes: Yes = False,
    no_evaluate: NoEvaluate = False,
    no_gate: NoGate = False,
    wait: Wait = None,
    log_to: LogFolder = None,
    as_json: AsJson = False,
    backbone: BackboneMoved = None,
    device: Device = None,
) -> None:
    """Learn what was reviewed: right labels become examples of the next versions of their tasks.

    Every item is learned once, and marked with the generation that learned it. The gate may refuse the change, as for
    `conpet learn`.
    """
    opened = open_workspace(workspace, backbone, device, to_change=not dry_run, log_to=log_to)
    plan = opened.plan_reviewed(into=into, name=name)
    if dry_run and as_json:
        print_json(plan.to_json())
        return
    _print_plan(plan, messages() if as_json else None)
    if dry_run or not plan.items:
        if as_json:
            print_json([])
        return
    if not yes:
        typer.confirm("Learn this?", abort=True, err=True)
    change = partial(opened.learn_reviewed, into=into, name=name, gate=not no_gate)
    reports = run_change("review", wait, no_evaluate, change)
    if as_json:
        print_json([one.to_json() for one in reports])
        return
    for one in reports:
        for note in one.notes:
            line(f"{one.task}: {note}")
        line(str(one))


@app.command("import")
def import_(
    workspace: WorkspacePath,
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="An export of Label Studio (JSON), or a file of inputs; - for standard input."
        ),
    ],
    double: Double = 0.0,
    reviewer: Reviewer = None,
    log_to: LogFolder = None,
    as_json: AsJson = False,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    encoding: Encoding = None,
    input_format: InputFormat = None,
    inclusive_ends: InclusiveEnds = False,
    sheet: Sheet = None,
) -> None:
    """Put the inputs of a file into review, or take over annotations from Label Studio.

    Labels of a file are taken as the verdicts of the reviewer. What was imported before changes nothing.
    """
    from conpet.review.files import read_annotated, read_rows

    require_path(source, "nothing was imported")
    options = reading(
        text=text_column,
        label=label_column,
        encoding=encoding,
        form=input_format,
        inclusive_ends=inclusive_ends,
        sheet=sheet,
    )
    found = _review(workspace, log_to)
    tasks = read_annotated(source)
    if tasks is not None:
        done = found.add_annotated(tasks, double=double)
    else:
        told = partial(line, console=messages())
        done = found.add(read_rows(source, options, told), reviewer=reviewer, double=double)
    if as_json:
        print_json(done.to_json())
    else:
        _print_imported(done)


@app.command()
def export(
    workspace: WorkspacePath,
    target: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="The file.", show_default="standard output"),
    ] = None,
    states: Annotated[
        list[str] | None,
        typer.Option("--state", metavar="STATE", help="Only open, disputed, skipped or done items; repeatable."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write Label Studio's labelling configuration, too.", show_default=False),
    ] = None,
    log_to: LogFolder = None,
) -> None:
    """Write items as tasks for Label Studio (JSON): answers as predictions, verdicts as annotations."""
    for path in (target, config):
        if path is not None:
            require_writable_file(path)
    found = _review(workspace, log_to)
    tasks = found.export(states or ())
    if target is None:
        print_json(tasks)
    else:
        with written_aside(target) as stream:
            json.dump(tasks, stream, ensure_ascii=False, indent=1)
            stream.write("\n")
        line(f"{target}: {plural(len(tasks), 'task')}", messages())
    if config is not None:
        with written_aside(config) as stream:
            stream.write(found.label_studio_config())
        line(f"{config}: labelling configuration for Label Studio", messages())


def _print_status(found: ReviewStatus, workspace: Path) -> None:
    waiting = ", ".join(f"{number:,} {kind}" for kind, number in found.waiting.items())
    line(f"waiting: {waiting or 'nothing'}" + (f"; {found.claimed:,} with reviewers now" if found.claimed else ""))
    done = found.states["done"]
    line(f"done: {done:,}, of which {found.learned:,} learned and {found.learnable:,} to learn")
    for state, meaning in (("disputed", "reviewers disagree"), ("skipped", "skipped by all who saw them")):
        if found.states[state]:
            line(f"{state}: {found.states[state]:,} ({meaning})")
    for label, number in found.new_labels.items():
        line(f"new label {label}: {plural(number, 'item')}")
    agreement = found.agreement
    if agreement.observed is not None:
        alpha = "not defined" if agreement.alpha is None else f"{agreement.alpha:.2f}"
        line(
            f"agreement: {100 * agreement.observed:.0f}% of pairs of verdicts, Krippendorff's alpha {alpha} "
            f"(n = {agreement.items:,} items reviewed twice)"
        )
    for one in found.reviewers:
        skipped = f", {one.skipped:,} skipped" if one.skipped else ""
        line(f"  {one.reviewer}: {plural(one.verdicts, 'verdict')}{skipped}, {one.minutes:.1f} minutes")
    if found.first_deleted is not None:
        line(f"items to learn are deleted by their age from {found.first_deleted.date()} on", messages(), "yellow")
    if found.text_missing is not None and not found.total:
        line(found.text_missing, messages(), "yellow")
    elif not found.total:
        line(f"next: conpet review draw {workspace}", style="dim")
    elif found.learnable:
        line(f"next: conpet review learn {workspace}", style="dim")


def _print_item(item: ReviewItem, workspace: Path) -> None:
    from conpet.review.label_studio import shown

    until = "" if item.claimed_until is None else f", yours until {item.claimed_until:%H:%M:%S} UTC"
    line(f"item {item.id} ({item.kind}{until})")
    line(f"  {shown(item.example)}")
    if item.decision == "decline":
        line(f"  declined; likeliest label {item.label} (task {item.task})")
    elif item.answered:
        confidence = "" if item.confidence is None else f", right with probability {item.confidence:.2f}"
        verb = "asked" if item.decision == "ask" else "answered"
        line(f"  {verb} {item.label} (task {item.task}{confidence})")
    else:
        line("  no answer is recorded")
    if item.reports:
        said = f"; suggested: {item.suggested}" if item.suggested else ""
        line(
            f"  reported as wrong {plural(item.reports, 'time')}{said}"
            + (f"; {item.note} ({item.reported_by})" if item.note else "")
        )
    for one in item.verdicts:
        line(f"  {one.reviewer}: {one.verdict} {one.label or ''}".rstrip() + (f" ({one.note})" if one.note else ""))
    for number, candidate in enumerate(item.candidates, start=1):
        line(f"  {number}. {candidate.label} ({candidate.score:.2f}, task {candidate.task})")
    line(f"next: conpet review answer {workspace} {item.id} --confirm   or: --label LABEL, ...", style="dim")


def _print_answered(item: ReviewItem, *, as_json: bool) -> None:
    if as_json:
        print_json(item.to_json())
        return
    meaning = {
        "open": "waits for a second reviewer",
        "disputed": "reviewers disagree; another one decides",
        "skipped": "skipped; others may answer it",
        "done": f"done; right is {item.right or 'none of the learned labels'}",
    }
    line(f"item {item.id}: {meaning[item.state]}")


def _print_accuracy(found: ReviewAccuracy, workspace: Path) -> None:
    if found.estimate.value is None:
        line("the accuracy cannot be estimated yet: review answers that were drawn")
        line(f"next: conpet review next {workspace}", style="dim")
    else:
        line(f"right: {_shown(found.estimate)}")
        names = {"sure": "answered", "uncertain": "in doubt", "declined": "declined"}
        for stratum, estimate in found.decisions.items():
            line(f"  {names[stratum]}: {_shown(estimate)}")
        for batch in found.batches if len(found.batches) > 1 else ():
            if batch.estimate.value is not None:
                line(f"  {batch.since:%Y-%m-%d} to {batch.until:%Y-%m-%d}: {_shown(batch.estimate)}")
    for number, reason in found.missing.items():
        line(f"draw {number} is not part of it: {reason}", messages())
    if found.skipped:
        line(f"{plural(found.skipped, 'drawn answer')} skipped, and taken to be like the others", messages())


def _shown(estimate: Estimate) -> str:
    from conpet.report.text import percent

    if estimate.value is None or estimate.low is None or estimate.high is None:
        return "not reviewed yet"
    return (
        f"{percent(estimate.value)} of {estimate.population:,} (95% interval {percent(estimate.low)} to "
        f"{percent(estimate.high)}; {estimate.reviewed:,} reviewed)"
    )


def _print_plan(plan: ReviewPlan, console: Any) -> None:
    if not plan.items:
        line("nothing to learn: no reviewed item has a right label that was not learned yet", console)
    for addition in plan.additions:
        line(str(addition), console)
    for held in plan.held[:_HELD]:
        line(f"item {held.item} ({held.label}) waits: {held.reason}", messages(), "yellow")
    if len(plan.held) > _HELD:
        line(f"... and {len(plan.held) - _HELD:,} more that wait (--json lists all)", messages(), "yellow")


def _print_imported(done: Imported) -> None:
    line(f"{plural(done.items, 'new item')}, {done.known:,} in review already; {plural(done.verdicts, 'verdict')}")
    if done.unchanged:
        line(f"{plural(done.unchanged, 'verdict')} changed nothing: there already, or of learned items", messages())
