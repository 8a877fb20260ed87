"""`conpet bench`: experiments on benchmark data."""

from __future__ import annotations

import typer

from conpet.cli import bench_data

app = typer.Typer(help="Benchmarks: their data, runs and results.", no_args_is_help=True)
app.add_typer(bench_data.app, name="data")
