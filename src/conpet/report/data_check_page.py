"""The result of a check of data as one self-contained HTML page, with pairs of rows side by side."""

from __future__ import annotations

from datetime import datetime

from conpet.report.data_check import DataCheckReport, Severity
from conpet.report.page import environment, style

MOST = 500
"""Most findings of a kind on the page; the JSON has all."""


def render_data_check(report: DataCheckReport, generated: datetime) -> str:
    """Return the page, without scripts or external resources.

    Args:
        report: The result.
        generated: When the check was made.
    """
    template = environment().get_template("data_check.html.j2")
    sections = [(kind, report.of(kind.code)) for kind in report.kinds]
    cards = [
        (name, report.severities[severity], tone if report.severities[severity] else "")
        for name, severity, tone in (
            ("Errors", Severity.ERROR, "bad"),
            ("Warnings", Severity.WARNING, ""),
            ("Notes", Severity.NOTE, ""),
        )
    ]
    return template.render(report=report, sections=sections, cards=cards, generated=generated, most=MOST, style=style())
