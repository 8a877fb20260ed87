"""The `conpet` program: its commands, and how it reports errors."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from conpet.cli import (
    audit,
    backbones,
    bench,
    cache,
    compare,
    consolidate,
    cost,
    costs,
    data,
    demo,
    evaluate,
    forget,
    gate,
    introduction,
    keys,
    labels,
    learn,
    mlflow,
    modules,
    predict,
    report,
    review,
    serve,
    settings,
    stream,
    tune,
    upgrade,
    watch,
)
from conpet.cli.console import INTERRUPTED, escape_unprintable, line, messages, print_error, warnings_as_lines
from conpet.cli.help import App
from conpet.errors import LESS_MEMORY, ConpetError, OutOfMemoryError, is_out_of_memory


@dataclass
class Invocation:
    """The options given before the command."""

    debug: bool = False


app = App(
    name="conpet",
    help="Continual task learning on one frozen language model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(demo.demo)
app.command("compare")(compare.compare)
app.command("init")(learn.init)
app.command("learn")(learn.learn)
app.command("settings")(settings.settings)
app.command("tune")(tune.tune)
app.command("predict")(predict.predict)
app.command("evaluate")(evaluate.evaluate)
app.command("serve")(serve.serve)
app.command("report")(report.report)
app.command("upgrade")(upgrade.upgrade)
app.command("merge")(upgrade.merge)
app.command("consolidate")(consolidate.consolidate)
app.command("watch")(watch.watch)
app.command("gate")(gate.gate)
app.command("candidates")(gate.candidates)
app.command("promote")(gate.promote)
app.command("forget")(forget.forget)
app.command("cost")(cost.cost)
app.command("plan")(introduction.plan)
app.command("export-mlflow")(mlflow.export_mlflow)
app.command("generations")(consolidate.generations)
app.command("restore")(consolidate.restore)
app.add_typer(modules.app, name="modules")
app.add_typer(labels.app, name="labels")
app.add_typer(costs.app, name="costs")
app.add_typer(keys.app, name="keys")
app.add_typer(audit.app, name="audit")
app.add_typer(review.app, name="review")
app.add_typer(backbones.app, name="backbones")
app.add_typer(cache.app, name="cache")
app.add_typer(bench.app, name="bench")
app.add_typer(stream.app, name="stream")
app.add_typer(data.app, name="data")


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        line(f"conpet {version('conpet')}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    context.obj.debug = debug


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, 1 (an error), 2 (wrong usage), 130 (interrupted), or 3.

    `conpet watch` returns 3 for an alarm.

    Args:
        arguments: Command-line arguments; by default those of the process.
    """
    invocation = Invocation()
    escape_unprintable()
    try:
        with warnings_as_lines():
            _run(arguments, invocation)
        sys.stdout.flush()
    except SystemExit as done:
        if _was_interrupted(done):
            line("stopped", messages(), "yellow")
        return done.code if isinstance(done.code, int) else int(done.code is not None)
    except KeyboardInterrupt:
        line("stopped", messages(), "yellow")
        return INTERRUPTED
    except BrokenPipeError:
        _discard_output()
        return 1
    except (ConpetError, OSError) as error:
        if invocation.debug:
            line(traceback.format_exc(), messages())
        print_error(error)
        return 1
    except Exception as error:
        if is_out_of_memory(error):
            if invocation.debug:
                line(traceback.format_exc(), messages())
            print_error(OutOfMemoryError(f"memory ran out ({error}). {LESS_MEMORY}"))
            return 1
        error.add_note(
            "This is a bug in conpet: please report it with the lines above. "
            "Every change is committed completely or not at all, so the workspace is unchanged."
        )
        raise
    return 0


def _run(arguments: Sequence[str] | None, invocation: Invocation) -> None:
    command = typer.main.get_command(app)
    command(args=list(arguments) if arguments is not None else None, prog_name="conpet", obj=invocation)


def _was_interrupted(error: BaseException | None) -> bool:
    """Return whether Ctrl-C led to an error and no command has said so: one that did ends the chain (`from None`)."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return False


def _discard_output() -> None:
    """Redirect standard output to the null device, so that flushing a broken pipe at exit raises no error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
