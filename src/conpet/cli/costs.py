"""`conpet costs`: what mistakes cost, which decides when a prediction answers, asks or declines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from conpet.cli.console import line, print_json
from conpet.cli.help import App
from conpet.cli.options import AsJson, Wait, WorkspacePath

if TYPE_CHECKING:
    from conpet.types import CheckedKind, Costs

app = App(help="Set what mistakes cost, or a coverage: when to answer, ask or decline.", no_args_is_help=True)
_SHOWN = 10
"""Most labels listed."""


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
    wait: Wait = None,
) -> None:
    """Set costs or a coverage; what is not given stays, but costs end a coverage.

    Labels and scores do not change. Declining an input that does belong to a learned label counts as an error.
    """
    from functools import partial

    from conpet.cli.changes import with_wait
    from conpet.commands.costs import set_costs
    from conpet.store import Store

    store = Store.open(workspace)
    store.require_writable()
    change = partial(
        set_costs,
        error=error,
        question=question,
        refusal=refusal,
        coverage=coverage,
        unknown_share=unknown_share,
    )
    _print(with_wait(wait, lambda seconds: change(store, seconds)))


@app.command()
def show(workspace: WorkspacePath, as_json: AsJson = False) -> None:
    """Show the costs or the coverage, and how many examples the decisions rest on."""
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
        line(f"coverage: {costs.coverage:g} (in place of the costs: {listed})")
    line(f"expected share of inputs that belong to nothing learned: {costs.unknown_share:g}")
    for kind in costs.kinds:
        _print_kind(kind)


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
