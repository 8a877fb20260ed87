"""`conpet costs`: what mistakes cost, which decides when a prediction answers, asks or declines; and prices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from conpet.cli.console import line, print_json
from conpet.cli.help import App
from conpet.cli.options import AsJson, Wait, WorkspacePath

if TYPE_CHECKING:
    from conpet.config import PricesConfig
    from conpet.types import CheckedKind, Costs

app = App(
    help="Set what mistakes cost, or a coverage: when to answer, ask or decline. Set prices, and enter people's work.",
    no_args_is_help=True,
)
_SHOWN = 10
"""Most labels listed."""


_PRICES = "Prices and weights"


def _option(meaning: str) -> Any:
    return typer.Option(metavar="NUMBER", min=0, help=meaning, rich_help_panel=_PRICES, show_default=False)


def _price(of: str) -> Any:
    return _option(f"Price of {of}.")


@app.command("set")
def set_(
    workspace: WorkspacePath,
    error: Annotated[
        float | None, typer.Option(min=0, help="Cost of a wrong answer, in any unit.", show_default=False)
    ] = None,
    question: Annotated[
        float | None, typer.Option(min=0, help="Cost of asking which of some candidates is right.", show_default=False)
    ] = None,
    refusal: Annotated[
        float | None,
        typer.Option(min=0, help="Cost of declining an input that belongs to nothing learned.", show_default=False),
    ] = None,
    coverage: Annotated[
        float | None,
        typer.Option(
            help="In place of costs: share of inputs of learned labels whose right label must be the answer or among "
            "the candidates, above 0 and below 1.",
            show_default=False,
        ),
    ] = None,
    unknown_share: Annotated[
        float | None,
        typer.Option(
            help="Expected share of inputs that belong to nothing learned, above 0 and below 1.",
            show_default=False,
        ),
    ] = None,
    currency: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Currency of all prices.", rich_help_panel=_PRICES, show_default=False),
    ] = None,
    cpu_hour: Annotated[float | None, _price("an hour of one processor core")] = None,
    gpu_hour: Annotated[float | None, _price("an hour of an accelerator")] = None,
    gb_month: Annotated[float | None, _price("a gigabyte stored for 30 days")] = None,
    kwh: Annotated[float | None, _price("a kilowatt-hour, unless it is part of the price of an hour")] = None,
    cpu_watts: Annotated[float | None, _option("Power that a busy core draws, to estimate energy.")] = None,
    gpu_watts: Annotated[float | None, _option("Power that an accelerator draws.")] = None,
    review_hour: Annotated[float | None, _price("an hour of people's work")] = None,
    wrong_answer: Annotated[float | None, _price("a wrong answer")] = None,
    late_day: Annotated[
        float | None, _price("a day on which a needed label cannot be answered (see `conpet learn --needed-since`)")
    ] = None,
    answers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Expected number of answers of a version, over which its cost is spread.",
            rich_help_panel=_PRICES,
            show_default=False,
        ),
    ] = None,
    quality: Annotated[
        str | None,
        typer.Option(
            metavar="accuracy|decisions",
            help="What wrong answers are counted by: accuracy on test examples, or the costs of decisions on "
            "validation examples.",
            rich_help_panel=_PRICES,
            show_default=False,
        ),
    ] = None,
    freshness_weight: Annotated[float | None, _option("Weight of delays in the composite score.")] = None,
    update_weight: Annotated[float | None, _option("Weight of the cost of changes.")] = None,
    running_weight: Annotated[float | None, _option("Weight of the cost of answering and storing.")] = None,
    review_weight: Annotated[float | None, _option("Weight of people's work.")] = None,
    wait: Wait = None,
) -> None:
    """Set costs, a coverage or prices; what is not given stays, but costs end a coverage.

    Labels and scores do not change. Declining an input that does belong to a learned label counts as an error.
    Prices change no answer: `conpet cost` turns what was measured into money by them.
    """
    from functools import partial

    from conpet.cli.changes import with_wait
    from conpet.commands.costs import set_costs
    from conpet.store import Store

    store = Store.open(workspace)
    store.require_writable()
    prices = {
        "currency": currency,
        "cpu_hour": cpu_hour,
        "gpu_hour": gpu_hour,
        "gb_month": gb_month,
        "kwh": kwh,
        "cpu_watts": cpu_watts,
        "gpu_watts": gpu_watts,
        "review_hour": review_hour,
        "wrong_answer": wrong_answer,
        "late_day": late_day,
        "answers": answers,
        "quality": quality,
        "freshness_weight": freshness_weight,
        "update_weight": update_weight,
        "running_weight": running_weight,
        "review_weight": review_weight,
    }
    change = partial(
        set_costs,
        prices={name: value for name, value in prices.items() if value is not None},
        error=error,
        question=question,
        refusal=refusal,
        coverage=coverage,
        unknown_share=unknown_share,
    )
    _print(with_wait(wait, lambda seconds: change(store, seconds)))


@app.command(context_settings={"ignore_unknown_options": True})  # so that -10 is a number
def add_review(
    workspace: WorkspacePath,
    minutes: Annotated[
        float,
        typer.Argument(
            metavar="MINUTES",
            help="Time spent; a negative number corrects an earlier entry.",
            show_default=False,
        ),
    ],
    task: Annotated[str | None, typer.Option(help="The task it was for.", show_default="all tasks")] = None,
    note: Annotated[str, typer.Option(help="What was done; no names of labels.", show_default=False)] = "",
) -> None:
    """Enter the working time of people: labelling, checking answers, deciding on candidates.

    An entry stays: to take back ten minutes, enter -10.
    """
    from conpet.commands.costs import add_review as enter
    from conpet.store import Store

    entered = enter(Store.open(workspace), minutes, task, note)
    line(f"{f'task {task}' if task else 'all tasks'}: {entered:g} minutes of review so far")


@app.command()
def show(workspace: WorkspacePath, as_json: AsJson = False) -> None:
    """Show the costs or the coverage, how many examples the decisions rest on, and prices."""
    from conpet.commands.costs import shown_costs
    from conpet.store import Store

    costs = shown_costs(Store.open(workspace))
    if as_json:
        print_json(costs.to_json())
    else:
        _print(costs)


def _print(costs: Costs) -> None:
    listed = f"error {costs.error:g}, question {costs.question:g}, refusal {costs.refusal:g}"
    if costs.coverage is None:
        line(f"costs: {listed}")
    else:
        promised = all(kind.note is None for kind in costs.kinds)
        place = "in place of the costs" if promised else "where it cannot be promised, the costs decide"
        line(f"coverage: {costs.coverage:g} ({place}: {listed})")
    line(f"expected share of inputs that belong to nothing learned: {costs.unknown_share:g}")
    for kind in costs.kinds:
        _print_kind(kind)
    _print_prices(costs.prices)


def _print_prices(prices: PricesConfig) -> None:
    defaults = type(prices)()
    given = {name: value for name, value in prices if value != getattr(defaults, name)}
    shown = [f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in given.items()]
    line(f"prices: {', '.join(shown)}" if shown else "prices: none set")


def _print_kind(kind: CheckedKind) -> None:
    line(
        f"{kind.kind}: {kind.known:,} held-out examples of learned labels, {kind.unknown:,} scored as unknown, "
        f"{kind.answered:,} validation examples"
    )
    if kind.note:
        line(f"  {kind.note}", style="yellow")
    elif kind.without_promise:
        names = ", ".join(kind.without_promise[:_SHOWN]) + (", ..." if len(kind.without_promise) > _SHOWN else "")
        line(
            f"  the coverage is promised over all labels together; a promise for a label needs {kind.needed} "
            f"validation examples of it. Too few: {names}"
        )
