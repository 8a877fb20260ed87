"""Charts: drawings of the report as images of their own, with the same numbers for a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup
from starlette.responses import Response

from conpet.report.page import drawing_style
from conpet.report.svg import standalone

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'",  # no part of a page
    "Cache-Control": "private, max-age=86400, immutable",
}


@dataclass(frozen=True, slots=True)
class Key:
    """An entry of a legend; its style names the colour and the kind of line in the style sheet of the pages."""

    label: str
    style: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart on a page.

    Attributes:
        source: Address of its drawing, with all that it depends on.
        title: What it shows.
        columns: Heads of the table with its numbers.
        rows: Cells of the table.
        legend: Its legend.
        caption: What there is to see in it.
        width: Width of the drawing in pixels.
        height: Its height.
    """

    source: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    legend: Sequence[Key] = ()
    caption: str = ""
    width: int = 1009
    height: int = 290


def image(drawing: Markup) -> Response:
    """Return a drawing of `conpet.report` as an image, which browsers may keep: its address names its content."""
    return Response(standalone(drawing, drawing_style()), media_type="image/svg+xml", headers=_HEADERS)
