"""Help: the guides for those who operate, in the language of the page."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated, NamedTuple

from markupsafe import Markup
from starlette.responses import Response

from conpet.dashboard.messages import marked
from conpet.dashboard.navigation import ROOT, Entry, page_router
from conpet.dashboard.templating import assets
from conpet.dashboard.visit import Visit, visits
from conpet.problem_details import ApiProblem
from conpet.serve.keys import Role

router = page_router()
ENTRY = Entry(120, f"{ROOT}/help", marked("Help"))
Anybody = Annotated[Visit, visits(Role.PREDICT)]

GUIDES = ("ideas", "weekly", "red", "glossary")
"""The guides, in the order in which they are offered. `scripts/make_learn.py` makes their files from docs/learn."""
_FOLDER = Path(__file__).parents[1] / "help"


class Guide(NamedTuple):
    """A guide in a language."""

    title: str
    content: Markup


@router.get("/help")
async def first(visit: Anybody) -> Response:
    """Show the first guide."""
    return _shown(visit, GUIDES[0])


@router.get("/help/{name}")
async def guide(visit: Anybody, name: str) -> Response:
    """Show a guide."""
    if name not in GUIDES:
        raise ApiProblem(404, "no-such-page", "there is no page at this address")
    return _shown(visit, name)


def _shown(visit: Visit, name: str) -> Response:
    guides = {one: _read(visit.language.code, one) for one in GUIDES}
    return visit.render("help.html", guides=guides, name=name, guide=guides[name])


@cache
def _read(language: str, name: str) -> Guide:
    """Read a guide; its first line is the title, the rest HTML without addresses of pictures."""
    title, _, content = (_FOLDER / language / f"{name}.html").read_text(encoding="utf-8").partition("\n")
    for picture, asset in assets().items():
        content = content.replace(f'src="{picture}"', f'src="{ROOT}/static/{picture}?v={asset.digest}"')
    return Guide(title, Markup(content))  # noqa: S704 - a file of this package
