"""`conpet bench`: run experiments, read their results, list their data."""

from __future__ import annotations

from conpet.cli import bench_data, bench_results, bench_run
from conpet.cli.help import App

app = App(help="Compare learners: run experiments and read their results.", no_args_is_help=True)
app.command("run")(bench_run.run)
app.command("table")(bench_results.table)
app.command("plot")(bench_results.plot)
app.command("compare")(bench_results.compare)
app.add_typer(bench_data.app, name="data")
