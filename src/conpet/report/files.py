"""Write a report to disk as an HTML page and as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from conpet.files import written_aside
from conpet.report.data import ReportData
from conpet.report.page import render_page

REPORT_FOLDER = "report"
"""Default folder of a report inside the workspace."""


@dataclass(frozen=True, slots=True)
class ReportFiles:
    """The files of a report."""

    page: Path
    data: Path


def write_report(data: ReportData, target: Path) -> ReportFiles:
    """Write a report as HTML and as JSON, replacing existing files.

    Args:
        data: The report.
        target: An HTML file (`.html` or `.htm`; the JSON has the same name), or a folder, created if missing.

    Raises:
        ConfigError: A file cannot be written.
    """
    page = target if target.suffix.lower() in (".html", ".htm") else target / "report.html"
    files = ReportFiles(page, page.with_suffix(".json"))
    for path, content in ((files.page, render_page(data)), (files.data, data.to_json() + "\n")):
        with written_aside(path) as stream:
            stream.write(content)
    return files
