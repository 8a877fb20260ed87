"""Matplotlib figures as inline SVG with the colours and font of the page.

Colours are drawn as placeholders and replaced by CSS variables, so that a drawing works on light and dark pages. Names
are drawn as placeholders of the same width and replaced by text, so that Matplotlib does not need their glyphs and does
not parse mathematics in them.
"""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import escape

from markupsafe import Markup
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.style import context

from conpet.report.text import shorten, width

INK, MUTED, GRID, PAPER = "#010101", "#020202", "#030303", "#040404"
SERIES = tuple(f"#0101{number:02x}" for number in range(2, 10))
REFERENCES = tuple(f"#0202{number:02x}" for number in range(3, 7))
FONT_SIZE = 9.0  # points, that is 12 CSS pixels

_VARIABLES = {
    INK: "--ink", MUTED: "--muted", GRID: "--grid", PAPER: "--paper",
    **{colour: f"--series-{number}" for number, colour in enumerate(SERIES, start=1)},
    **{colour: f"--reference-{number}" for number, colour in enumerate(REFERENCES, start=1)},
}  # fmt: skip
_COLOUR = re.compile("|".join(_VARIABLES))
_NAME = re.compile(r"@(\d{4,})n*@")
_PIXELS_PER_POINT = 4 / 3
_LEAST_WIDTH = 700  # CSS pixels: on a narrower page, the drawing scrolls instead of shrinking
_drawing = threading.Lock()  # Matplotlib's SVG settings are global to the process


def variable(colour: str) -> str:
    """Return the CSS variable of a placeholder colour."""
    return f"var({_VARIABLES[colour]})"


@dataclass(frozen=True, slots=True)
class Names:
    """Placeholders for the names in a drawing.

    Args:
        columns: Width limit of names; longer names are shortened, and shown in full as a tooltip.
    """

    columns: int = 22
    _names: list[str] = field(default_factory=list)

    def __call__(self, name: str) -> str:
        """Return the placeholder to draw instead of `name`."""
        self._names.append(name)
        number = f"{len(self._names) - 1:04d}"
        return f"@{number}{'n' * (width(shorten(name, self.columns)) - len(number) - 2)}@"

    def put_into(self, svg: str) -> str:
        """Replace the placeholders in a drawing by the escaped names."""
        return _NAME.sub(lambda match: self._markup(self._names[int(match[1])]), svg)

    def _markup(self, name: str) -> str:
        shown = shorten(name, self.columns)
        return escape(shown) if shown == name else f"<title>{escape(name)}</title>{escape(shown)}"


@contextmanager
def style(key: str) -> Iterator[None]:
    """Set the Matplotlib style while a figure is built and rendered, independent of the settings of the process.

    Args:
        key: Makes the ids of this drawing unique on the page.
    """
    settings = {
        "svg.fonttype": "none",
        "svg.hashsalt": key,
        "image.composite_image": False,
        "font.size": FONT_SIZE,
        **dict.fromkeys(("axes.labelsize", "xtick.labelsize", "ytick.labelsize"), FONT_SIZE),
        "axes.labelcolor": MUTED,
    }
    with _drawing, context(["default", settings]):
        yield


def render(figure: Figure, names: Names, *, description: str) -> Markup:
    """Return a figure made under `style` as an SVG element.

    Args:
        figure: The figure, drawn in placeholder colours.
        names: Its names.
        description: Text alternative for screen readers.
    """
    buffer = io.StringIO()
    canvas = FigureCanvasSVG(figure)
    canvas.print_figure(buffer, format="svg", bbox_inches="tight", pad_inches=0.04, metadata={"Date": None})
    wide, high = (float(number) for number in re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', buffer.getvalue())[0])
    opening = (
        f'<svg class="plot" role="img" aria-label="{escape(description)}" viewBox="0 0 {wide:g} {high:g}" '
        f'width="{wide * _PIXELS_PER_POINT:.0f}" height="{high * _PIXELS_PER_POINT:.0f}" '
        f'style="min-width:min({wide * _PIXELS_PER_POINT:.0f}px,{_LEAST_WIDTH}px)">'
    )
    # All parts are Matplotlib's output or escaped.
    return Markup(opening + names.put_into(_inner(buffer.getvalue())) + "</svg>")  # noqa: S704


def standalone(drawing: Markup, style: str) -> str:
    """Return a drawing as a file of its own.

    Args:
        drawing: A drawing of `render`.
        style: A style sheet with its colours.
    """
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    opening, _, content = str(drawing).partition(">")
    return f"{opening.replace('<svg ', f'<svg {names} ', 1)}><style>{style}</style>{content}"


def _inner(svg: str) -> str:
    """Return the content of the SVG element in the page's colours, without parts that only a file needs."""
    inner = svg[svg.index(">", svg.index("<svg")) + 1 : svg.rindex("</svg>")]
    inner = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", inner, flags=re.DOTALL)
    inner = re.sub(r'<(g|image) id="[^"]*"', r"<\1", inner)  # ids such as "axes_1" repeat in every drawing
    inner = re.sub(r"\*\{[^}]*\}", "", inner)  # a style sheet that would apply to the whole page
    inner = re.sub(r"font-family: [^;\"]*;?", "", inner)
    inner = re.sub(r"\s*\n\s*", " ", inner).replace("base64, ", "base64,")
    return _COLOUR.sub(lambda match: variable(match[0]), inner).replace('<style type="text/css"></style>', "")
