"""Write a report to disk: a page to look at, and the same as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from conpet.files import written_aside
from conpet.report.data import ReportData
from conpet.report.page import render_page

REPORT_FOLDER = "report"
"""Where a workspace's report goes by default: inside its folder, beside what the store owns."""


@dataclass(frozen=True, slots=True)
class ReportFiles:
    """Where a report was written."""

    page: Path
    data: Path


def write_report(data: ReportData, target: Path) -> ReportFiles:
    """Write a report as HTML and as JSON; files that are there are replaced.

    Args:
        data: The report.
        target: An HTML file (`.html` or `.htm`; the JSON goes beside it), or a folder, made where missing.

    Raises:
        ConfigError: A file cannot be written there.
    """
    page = target if target.suffix.lower() in (".html", ".htm") else target / "report.html"
    files = ReportFiles(page, page.with_suffix(".json"))
    for path, content in ((files.page, render_page(data)), (files.data, data.to_json() + "\n")):
        with written_aside(path) as stream:
            stream.write(content)
    return files
