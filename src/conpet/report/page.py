"""Render the report as one self-contained HTML file."""

from __future__ import annotations

from datetime import datetime

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from conpet.report import text
from conpet.report.data import ReportData
from conpet.report.view import PageView

_FONTS = 'system-ui, "Segoe UI", Roboto, "Noto Sans", "Hiragino Sans", "Yu Gothic UI", "Noto Sans CJK JP", sans-serif'


def render_page(data: ReportData) -> str:
    """Return the report as an HTML document without scripts or external resources."""
    return environment().get_template("page.html.j2").render(view=PageView(data), data=data, style=style())


def environment() -> Environment:
    """Return the environment of the templates: values are escaped, undefined names are errors."""
    made = Environment(
        loader=PackageLoader("conpet", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        percent=text.percent,
        points=text.points,
        plain_points=text.plain_points,
        count=text.count,
        short_count=text.short_count,
        bytes=text.size,
        duration=text.duration,
        moment=_moment,
        label=_label,
        with_short_labels=text.with_short_labels,
    )
    made.globals.update(plural=text.plural)
    return made


def style() -> Markup:
    """Return the style sheet of all pages."""
    return Markup(environment().get_template("style.css.j2").render())  # noqa: S704 - our own file, without input


def drawing_style() -> str:
    """Return the style sheet of a drawing that is a file of its own."""
    colours = environment().get_template("colours.css.j2").render()
    return f"{colours}text {{ font-family: {_FONTS}; }}"


def _label(name: str) -> Markup:
    """Return a label as it is shown, with the whole one as a tooltip if it is cut."""
    shown = text.label(name)
    return escape(shown) if shown == name else Markup('<span title="{}">{}</span>').format(name, shown)


def _moment(when: datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M}{f' {when:%Z}' if when.tzinfo else ''}"
