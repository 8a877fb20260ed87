"""Write a report to disk as an HTML page and as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from conpet.files import require_new_files_in, require_writable_file, written_aside
from conpet.report.data import ReportData
from conpet.report.page import render_page

REPORT_FOLDER = "report"
"""Default folder of a report inside the workspace."""


@dataclass(frozen=True, slots=True)
class ReportFiles:
    """The files of a report."""

    page: Path
    data: Path


def require_report(target: Path) -> None:
    """Raise `ConfigError` unless a report can be written to `target` (see `write_report`)."""
    if _is_page(target):
        require_writable_file(target)
    else:
        require_new_files_in(target)


def write_report(data: ReportData, target: Path) -> ReportFiles:
    """Write a report as HTML and as JSON, replacing existing files.

    Args:
        data: The report.
        target: An HTML file (`.html` or `.htm`; the JSON has the same name), or a folder, created if missing in an
            existing one.

    Raises:
        ConfigError: A file cannot be written.
    """
    require_report(target)
    page = target if _is_page(target) else target / "report.html"
    page.parent.mkdir(exist_ok=True)
    files = ReportFiles(page, page.with_suffix(".json"))
    for path, content in ((files.page, render_page(data)), (files.data, data.to_json() + "\n")):
        with written_aside(path) as stream:
            stream.write(content)
    return files


def _is_page(target: Path) -> bool:
    return target.suffix.lower() in (".html", ".htm")
